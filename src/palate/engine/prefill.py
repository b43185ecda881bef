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
from palate.engine.batch import Batch, RunningRequest
from palate.engine.prefix_cache import BLOCK_TOKENS, PrefixCache
from palate.models.cache import RowCache, empty_kv
from palate.models.load import Base


@dataclass(frozen=True)
class PrefillSettings:
    """How prompts are read.

    Attributes:
        max_prefix_tokens: Most tokens whose keys and values a session keeps for later prompts.
        prefill_chunk_tokens: Most tokens of one prompt that are read between two steps of others, where
            prefixes are kept; `None` reads every prompt at once.
        pass_tokens: Tokens whose reading costs as much as starting another pass; prompts of unlike
            length are read apart where that saves more.
    """

    max_prefix_tokens: int = 0
    prefill_chunk_tokens: int | None = None
    pass_tokens: int = 512

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.max_prefix_tokens < 0:
            raise InvalidInputError(
                f"The setting max_prefix_tokens is {self.max_prefix_tokens}; give 0 to keep "
                "nothing."
            )
        if self.prefill_chunk_tokens is not None and self.prefill_chunk_tokens < 1:
            raise InvalidInputError(
                f"The setting prefill_chunk_tokens is {self.prefill_chunk_tokens}; give at least 1."
            )


SequenceKey = tuple[Hashable, tuple[float, ...], tuple[int, ...]]


@dataclass(eq=False)
class _PrefillSequence:
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
    n_cached_tokens: int = 0

    @property
    def n_to_read(self) -> int:
        """Tokens that must be read: what is not known, and the last for its logits."""
        n_known = sum(len(block) for block in self.known)
        return max(len(self.context) - n_known, 1)


class Reader:
    """Makes batches and moves them on."""

    def __init__(self, base: Base, bank: AdapterBank, prefill: PrefillSettings) -> None:
        """Start with nothing known."""
        self._base = base
        self._bank = bank
        n_kept = prefill.max_prefix_tokens
        self._store = PrefixCache(n_kept) if n_kept > 0 else None
        self._max_read_tokens = prefill.prefill_chunk_tokens
        self._pass_tokens = prefill.pass_tokens
        self._shapes: list[tuple[int, int]] = []

    @torch.inference_mode()
    def read(self, running_requests: list[RunningRequest]) -> Batch:
        """A batch of requests whose prompts have been read."""
        sequences, sequence_of = self._sequences(running_requests)
        done: list[_PrefillSequence] = []
        parts: list[tuple[RowCache, Tensor]] = []
        for wave in self._waves(sequences):
            for group in _groups(wave, pass_tokens=self._pass_tokens):
                parts.append(self._read_group(group))
                done.extend(group)
        cache = parts[0][0]
        for other, _ in parts[1:]:
            cache.join(other)
        logits = torch.cat([said for _, said in parts])
        place_of = {sequence: place for place, sequence in enumerate(done)}
        places = [place_of[sequence] for sequence in sequence_of]
        if places != list(range(len(done))):
            cache.select(torch.tensor(places, device=self._base.device))
        order = torch.tensor([row for sequence in done for _, row in sequence.rows])
        first = 0
        for running in running_requests:
            if running.n_chunks == 0:
                running.n_cached_tokens = sequence_of[first].n_cached_tokens
            first += running.n_sequences
        return Batch(running_requests, cache, logits[order.argsort().to(self._base.device)])

    @torch.inference_mode()
    def read_part(self, running: RunningRequest) -> bool:
        """Read some of a request whose prompts are too long to be read at once.

        Returns:
            Whether something was read; if not, the request is to be read.
        """
        limit = self._max_read_tokens
        if self._store is None or limit is None:
            return False
        sequences, sequence_of = self._sequences([running])
        size = max(limit // len(sequences), BLOCK_TOKENS)
        most = sum(len(sequence.context) for sequence in sequences)
        if most > self._store.max_tokens or running.n_chunks * size > most:
            return False  # it would not all be kept, or others push it out as fast as it is read
        parts: list[_PrefillSequence] = []
        for sequence in sequences:
            known = self._store.find(sequence.owner, sequence.context)
            n_known = sum(len(block) for block in known)
            end = n_known + size
            if running.n_chunks == 0 and sequence is sequence_of[0]:
                running.n_cached_tokens = n_known  # before any of it was read for this request
            if end < len(sequence.context):
                coefficients, _ = sequence.rows[0]
                parts.append(
                    _PrefillSequence(
                        sequence.context[:end], sequence.owner, [(coefficients, 0)], known
                    )
                )
        different = list({(part.owner, part.context): part for part in parts}.values())
        for group in _groups(different, pass_tokens=self._pass_tokens):
            self._read_group(group)
        running.n_chunks += bool(parts)
        return bool(parts)

    @torch.inference_mode()
    def advance(self, batch: Batch) -> None:
        """Read the token that was drawn last in every request."""
        batch.cache.extend()
        batch.logits = self._forward(
            batch.last_tokens(), batch.cache, batch.coefficients(), batch.sequences
        )

    @torch.inference_mode()
    def keep(self, batch: Batch, ended: Iterable[int]) -> None:
        """Keep what requests have read that end: the next turn of a conversation begins so."""
        if self._store is None:
            return
        indices, place = set(ended), 0
        for running in batch.running_requests:
            if running.index in indices:
                for sequence in range(running.n_sequences):
                    row = running.sequences.index(sequence)
                    tokens = running.contexts[row] + tuple(running.tokens[:-1])
                    owner = self._owner(running, running.plan.rows[row].coefficients)
                    self._put(owner, tokens, batch.cache, place + sequence)
            place += running.n_sequences

    def _sequences(
        self, running_requests: list[RunningRequest]
    ) -> tuple[list[_PrefillSequence], list[_PrefillSequence]]:
        """The different lanes, and the lane of each lane of each request in turn."""
        unique: dict[SequenceKey, _PrefillSequence] = {}
        sequence_of: list[_PrefillSequence] = []
        row = 0
        for running in running_requests:
            n_seen = 0
            for part, context, place in zip(
                running.plan.rows, running.contexts, running.sequences, strict=True
            ):
                key = (running.request.scope, self._bank.before_head(part.coefficients), context)
                sequence = unique.setdefault(
                    key, _PrefillSequence(context, self._owner(running, part.coefficients))
                )
                sequence.rows.append((part.coefficients, row))
                row += 1
                if place == n_seen:  # lanes are counted in the order of their first rows
                    sequence_of.append(sequence)
                    n_seen += 1
        return list(unique.values()), sequence_of

    def _owner(self, running: RunningRequest, coefficients: tuple[float, ...]) -> Hashable:
        return (running.request.scope, self._bank.in_cache(coefficients))

    def _waves(self, sequences: list[_PrefillSequence]) -> Iterable[list[_PrefillSequence]]:
        """Lanes to be read together; of those with the same states one first, then the others."""
        if self._store is None:
            yield sequences
            return
        firsts = list(
            {
                (sequence.owner, sequence.context): sequence for sequence in reversed(sequences)
            }.values()
        )
        for wave in (firsts[::-1], [sequence for sequence in sequences if sequence not in firsts]):
            for sequence in wave:
                sequence.known = self._store.find(sequence.owner, sequence.context)
            if wave:
                yield wave

    def _read_group(
        self, sequences: list[_PrefillSequence]
    ) -> tuple[RowCache, Float[Tensor, "rows vocab"]]:
        device = self._base.device
        n_new = max(sequence.n_to_read for sequence in sequences)
        width = max(n_new, *(len(sequence.context) for sequence in sequences))
        filler = int(str(self._base.tokenizer.pad_token_id or 0))
        mask = torch.tensor(
            [
                [0] * (width - len(sequence.context)) + [1] * len(sequence.context)
                for sequence in sequences
            ],
            device=device,
        )
        ids: list[list[int]] = []
        for sequence in sequences:
            new = sequence.context[-n_new:]
            ids.append([filler] * (n_new - len(new)) + list(new))
            sequence.n_cached_tokens = len(sequence.context) - len(new)
        if width > n_new:
            cache = RowCache.of_states(_states(sequences, width - n_new), mask, self._shapes)
        else:
            cache = RowCache(empty_kv(), mask)
        rows = [
            (coefficients, k)
            for k, sequence in enumerate(sequences)
            for coefficients, _ in sequence.rows
        ]
        own = None if len(rows) == len(sequences) else [k for _, k in rows]
        logits = self._forward(ids, cache, [coefficients for coefficients, _ in rows], own)
        for k, sequence in enumerate(sequences):
            self._put(sequence.owner, sequence.context, cache, k)
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
        sequences: Sequence[int] | None,
    ) -> Float[Tensor, "rows vocab"]:
        tokens = torch.tensor(ids, device=self._base.device)
        positions = (cache.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with self._bank.applied(coefficients, sequences=sequences):
            output = self._base.model(
                input_ids=tokens,
                attention_mask=cache.mask,
                position_ids=positions,
                past_key_values=cache.kv,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]


def _groups(
    sequences: Sequence[_PrefillSequence], *, pass_tokens: int
) -> list[list[_PrefillSequence]]:
    """Lanes in groups to be read together, those with most to read first.

    Another group begins where it saves more than a pass costs.
    """
    groups: list[list[_PrefillSequence]] = []
    order = sorted(sequences, key=lambda sequence: -sequence.n_to_read)
    for place, sequence in enumerate(order):
        saved = groups[-1][0].n_to_read - sequence.n_to_read if groups else 0
        if not groups or saved * (len(order) - place) > pass_tokens:
            groups.append([])
        groups[-1].append(sequence)
    return groups


def _states(
    sequences: Sequence[_PrefillSequence], n_columns: int
) -> Float[Tensor, "rows tokens width"]:
    """What the lanes take over, ending together."""
    some = next(sequence.known[0] for sequence in sequences if sequence.n_cached_tokens)
    states = some.new_zeros(len(sequences), n_columns, some.shape[1])
    for row, sequence in enumerate(sequences):
        if sequence.n_cached_tokens:
            states[row, -sequence.n_cached_tokens :] = torch.cat(sequence.known)[
                : sequence.n_cached_tokens
            ]
    return states
