"""The model's passes for a running batch: what is read of new requests, and one token more.

Rows of a request that differ only behind the hidden states share a lane: one pass, one cache, their
own logits. Equal lanes of different requests are read once. With a store of prefixes a lane takes
over the keys and values of the longest beginning that was read under the same coefficients (as far
as these reach keys and values), and what it reads is kept for later, its answer included, so that
the next turn of a conversation reads only what is new.

A long prompt can be read in parts, between which others get their tokens: each part ends up in the
store, until little enough is left to be read at once.

Prompts of like length are read together, so that a long one does not pad short ones to its length.
In a group every lane reads as many tokens as the one with most to read: the pass is a rectangle.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.engine.bank import AdapterBank
from palate.engine.batch import Batch, Live
from palate.engine.prefix_cache import BLOCK_TOKENS, PrefixStore
from palate.models.cache import RowCache, empty_kv
from palate.models.load import Base


@dataclass(frozen=True)
class Reading:
    """How prompts are read.

    Attributes:
        max_prefix_tokens: Most tokens whose keys and values a session keeps for later prompts.
        max_read_tokens: Most tokens of one prompt that are read between two steps of others, where
            prefixes are kept; `None` reads every prompt at once.
        pass_tokens: Tokens whose reading costs as much as starting another pass; prompts of unlike
            length are read apart where that saves more.
    """

    max_prefix_tokens: int = 0
    max_read_tokens: int | None = None
    pass_tokens: int = 512

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.max_prefix_tokens < 0:
            raise InvalidInputError(
                f"The setting max_prefix_tokens is {self.max_prefix_tokens}; give 0 to keep "
                "nothing."
            )
        if self.max_read_tokens is not None and self.max_read_tokens < 1:
            raise InvalidInputError(
                f"The setting max_read_tokens is {self.max_read_tokens}; give at least 1."
            )


LaneKey = tuple[Hashable, tuple[float, ...], tuple[int, ...]]


@dataclass(eq=False)
class _Lane:
    """A context to be read.

    Attributes:
        context: Its tokens.
        owner: Whose keys and values they become: scope and coefficients that reach them.
        rows: Coefficients of the rows it serves, and where each stands among all rows.
        known: Blocks of states that need not be read.
        n_reused: Tokens that were not read.
    """

    context: tuple[int, ...]
    owner: Hashable
    rows: list[tuple[tuple[float, ...], int]] = field(default_factory=list)
    known: list[Float[Tensor, "tokens width"]] = field(default_factory=list)
    n_reused: int = 0

    @property
    def n_to_read(self) -> int:
        """Tokens that must be read: what is not known, and the last for its logits."""
        n_known = sum(len(block) for block in self.known)
        return max(len(self.context) - n_known, 1)


class Reader:
    """Makes batches and moves them on."""

    def __init__(self, base: Base, bank: AdapterBank, reading: Reading) -> None:
        """Start with nothing known."""
        self._base = base
        self._bank = bank
        n_kept = reading.max_prefix_tokens
        self._store = PrefixStore(n_kept) if n_kept > 0 else None
        self._max_read_tokens = reading.max_read_tokens
        self._pass_tokens = reading.pass_tokens
        self._shapes: list[tuple[int, int]] = []

    @torch.inference_mode()
    def read(self, lives: list[Live]) -> Batch:
        """A batch of requests whose prompts have been read."""
        lanes, lane_of = self._lanes(lives)
        done: list[_Lane] = []
        parts: list[tuple[RowCache, Tensor]] = []
        for wave in self._waves(lanes):
            for group in _groups(wave, pass_tokens=self._pass_tokens):
                parts.append(self._read_group(group))
                done.extend(group)
        cache = parts[0][0]
        for other, _ in parts[1:]:
            cache.join(other)
        logits = torch.cat([said for _, said in parts])
        place_of = {lane: place for place, lane in enumerate(done)}
        places = [place_of[lane] for lane in lane_of]
        if places != list(range(len(done))):
            cache.select(torch.tensor(places, device=self._base.device))
        order = torch.tensor([row for lane in done for _, row in lane.rows])
        first = 0
        for live in lives:
            if live.n_parts == 0:
                live.n_reused = lane_of[first].n_reused
            first += live.n_lanes
        return Batch(lives, cache, logits[order.argsort().to(self._base.device)])

    @torch.inference_mode()
    def read_part(self, live: Live) -> bool:
        """Read some of a request whose prompts are too long to be read at once.

        Returns:
            Whether something was read; if not, the request is to be read.
        """
        limit = self._max_read_tokens
        if self._store is None or limit is None:
            return False
        lanes, lane_of = self._lanes([live])
        size = max(limit // len(lanes), BLOCK_TOKENS)
        most = sum(len(lane.context) for lane in lanes)
        if most > self._store.max_tokens or live.n_parts * size > most:
            return False  # it would not all be kept, or others push it out as fast as it is read
        parts: list[_Lane] = []
        for lane in lanes:
            known = self._store.find(lane.owner, lane.context)
            n_known = sum(len(block) for block in known)
            end = n_known + size
            if live.n_parts == 0 and lane is lane_of[0]:
                live.n_reused = n_known  # before any of it was read for this request
            if end < len(lane.context):
                coefficients, _ = lane.rows[0]
                parts.append(_Lane(lane.context[:end], lane.owner, [(coefficients, 0)], known))
        different = list({(part.owner, part.context): part for part in parts}.values())
        for group in _groups(different, pass_tokens=self._pass_tokens):
            self._read_group(group)
        live.n_parts += bool(parts)
        return bool(parts)

    @torch.inference_mode()
    def advance(self, batch: Batch) -> None:
        """Read the token that was drawn last in every request."""
        batch.cache.extend()
        batch.logits = self._forward(
            batch.last_tokens(), batch.cache, batch.coefficients(), batch.lanes
        )

    @torch.inference_mode()
    def keep(self, batch: Batch, ended: Iterable[int]) -> None:
        """Keep what requests have read that end: the next turn of a conversation begins so."""
        if self._store is None:
            return
        indices, place = set(ended), 0
        for live in batch.lives:
            if live.index in indices:
                for lane in range(live.n_lanes):
                    row = live.lanes.index(lane)
                    tokens = live.contexts[row] + tuple(live.tokens[:-1])
                    owner = self._owner(live, live.plan.rows[row].coefficients)
                    self._put(owner, tokens, batch.cache, place + lane)
            place += live.n_lanes

    def _lanes(self, lives: list[Live]) -> tuple[list[_Lane], list[_Lane]]:
        """The different lanes, and the lane of each lane of each request in turn."""
        unique: dict[LaneKey, _Lane] = {}
        lane_of: list[_Lane] = []
        row = 0
        for live in lives:
            n_seen = 0
            for part, context, place in zip(live.plan.rows, live.contexts, live.lanes, strict=True):
                key = (live.request.scope, self._bank.before_head(part.coefficients), context)
                lane = unique.setdefault(key, _Lane(context, self._owner(live, part.coefficients)))
                lane.rows.append((part.coefficients, row))
                row += 1
                if place == n_seen:  # lanes are counted in the order of their first rows
                    lane_of.append(lane)
                    n_seen += 1
        return list(unique.values()), lane_of

    def _owner(self, live: Live, coefficients: tuple[float, ...]) -> Hashable:
        return (live.request.scope, self._bank.in_cache(coefficients))

    def _waves(self, lanes: list[_Lane]) -> Iterable[list[_Lane]]:
        """Lanes to be read together; of those with the same states one first, then the others."""
        if self._store is None:
            yield lanes
            return
        firsts = list({(lane.owner, lane.context): lane for lane in reversed(lanes)}.values())
        for wave in (firsts[::-1], [lane for lane in lanes if lane not in firsts]):
            for lane in wave:
                lane.known = self._store.find(lane.owner, lane.context)
            if wave:
                yield wave

    def _read_group(self, lanes: list[_Lane]) -> tuple[RowCache, Float[Tensor, "rows vocab"]]:
        device = self._base.device
        n_new = max(lane.n_to_read for lane in lanes)
        width = max(n_new, *(len(lane.context) for lane in lanes))
        filler = int(str(self._base.tokenizer.pad_token_id or 0))
        mask = torch.tensor(
            [[0] * (width - len(lane.context)) + [1] * len(lane.context) for lane in lanes],
            device=device,
        )
        ids: list[list[int]] = []
        for lane in lanes:
            new = lane.context[-n_new:]
            ids.append([filler] * (n_new - len(new)) + list(new))
            lane.n_reused = len(lane.context) - len(new)
        if width > n_new:
            cache = RowCache.of_states(_states(lanes, width - n_new), mask, self._shapes)
        else:
            cache = RowCache(empty_kv(), mask)
        rows = [(coefficients, k) for k, lane in enumerate(lanes) for coefficients, _ in lane.rows]
        own = None if len(rows) == len(lanes) else [k for _, k in rows]
        logits = self._forward(ids, cache, [coefficients for coefficients, _ in rows], own)
        for k, lane in enumerate(lanes):
            self._put(lane.owner, lane.context, cache, k)
        return cache, logits

    def _put(self, owner: Hashable, tokens: tuple[int, ...], cache: RowCache, row: int) -> None:
        if self._store is None:
            return
        first = cache.mask.shape[1] - len(tokens)
        self._shapes = self._shapes or cache.shapes()
        self._store.put(
            owner, tokens, lambda start, stop: cache.states(row, first + start, first + stop)
        )

    def _forward(
        self,
        ids: Sequence[Sequence[int]],
        cache: RowCache,
        coefficients: Sequence[Sequence[float]],
        lanes: Sequence[int] | None,
    ) -> Float[Tensor, "rows vocab"]:
        tokens = torch.tensor(ids, device=self._base.device)
        positions = (cache.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with self._bank.applied(coefficients, lanes=lanes):
            output = self._base.model(
                input_ids=tokens,
                attention_mask=cache.mask,
                position_ids=positions,
                past_key_values=cache.kv,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]


def _groups(lanes: Sequence[_Lane], *, pass_tokens: int) -> list[list[_Lane]]:
    """Lanes in groups to be read together, those with most to read first.

    Another group begins where it saves more than a pass costs.
    """
    groups: list[list[_Lane]] = []
    order = sorted(lanes, key=lambda lane: -lane.n_to_read)
    for place, lane in enumerate(order):
        saved = groups[-1][0].n_to_read - lane.n_to_read if groups else 0
        if not groups or saved * (len(order) - place) > pass_tokens:
            groups.append([])
        groups[-1].append(lane)
    return groups


def _states(lanes: Sequence[_Lane], n_columns: int) -> Float[Tensor, "rows tokens width"]:
    """What the lanes take over, ending together."""
    some = next(lane.known[0] for lane in lanes if lane.n_reused)
    states = some.new_zeros(len(lanes), n_columns, some.shape[1])
    for row, lane in enumerate(lanes):
        if lane.n_reused:
            states[row, -lane.n_reused :] = torch.cat(lane.known)[: lane.n_reused]
    return states
