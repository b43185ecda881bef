"""The model's forward passes for a running batch: prefill of new requests, and decoding.

Rows of a request that differ only behind the hidden states share a sequence: one pass, one cache,
their own logits. Equal sequences of different requests are prefilled once. With a prefix cache a
sequence takes over the keys and values of its longest cached prefix under the same coefficients (as
far as these reach keys and values), and its own, answer included, are cached for later, so that the
next turn of a conversation prefills only its new tokens.

A long prompt can be prefilled in chunks, between which other requests get their tokens: each chunk
goes to the prefix cache, until little enough is left to be prefilled at once.

Prompts of similar length are prefilled together, so that a long one does not pad short ones to its
length. In a group every sequence passes as many tokens as the longest: the pass is a rectangle.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.engine.bank import AdapterBank
from palate.engine.batch import Batch
from palate.engine.prefix_cache import BLOCK_TOKENS, PrefixCache
from palate.engine.request import RunningRequest
from palate.models.cache import BatchCache, RowCache, empty_kv
from palate.models.load import Base


@dataclass(frozen=True)
class PrefillSettings:
    """How prompts are prefilled."""

    max_prefix_tokens: int = 0  # most tokens in a session's prefix cache; 0 caches nothing
    # most tokens of one prompt that are prefilled between two steps of other requests, where there
    # is a prefix cache; `None` prefills every prompt at once
    prefill_chunk_tokens: int | None = None
    # tokens whose prefill costs as much as starting another pass; prompts of unlike length are
    # prefilled in separate passes where that saves more
    pass_tokens: int = 512

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.max_prefix_tokens < 0:
            raise InvalidInputError(
                f"The setting max_prefix_tokens is {self.max_prefix_tokens}; give 0 to cache "
                "nothing."
            )
        if self.prefill_chunk_tokens is not None and self.prefill_chunk_tokens < 1:
            raise InvalidInputError(
                f"The setting prefill_chunk_tokens is {self.prefill_chunk_tokens}; give at least 1."
            )


Owner = tuple[str, Hashable]
SequenceKey = tuple[Hashable, tuple[float, ...], tuple[int, ...]]


@dataclass(eq=False)
class _Prefill:
    """A sequence to be prefilled."""

    context: tuple[int, ...]  # its tokens
    owner: Owner  # key of its states in the prefix cache: scope, coefficients that reach them
    # coefficients of the rows it serves, and where each stands among all rows
    rows: list[tuple[tuple[float, ...], int]] = field(default_factory=list)
    cached: list[Float[Tensor, "tokens width"]] = field(default_factory=list)  # from the cache
    n_cached: int = 0  # tokens that were not passed through the model

    @property
    def n_new(self) -> int:
        """Tokens to pass: all that are not cached, and the last one for its logits."""
        return max(len(self.context) - sum(len(block) for block in self.cached), 1)


class ModelRunner:
    """Prefills batches and decodes them, with one prefix cache."""

    def __init__(self, base: Base, bank: AdapterBank, settings: PrefillSettings) -> None:
        """Start with an empty prefix cache."""
        self._base = base
        self._bank = bank
        n_tokens = settings.max_prefix_tokens
        self._prefixes = PrefixCache(n_tokens) if n_tokens > 0 else None
        self._chunk_tokens = settings.prefill_chunk_tokens
        self._pass_tokens = settings.pass_tokens
        self._shapes: list[tuple[int, int]] = []
        # answers to earlier prompts of a scope may still run; the last thousand scopes are enough
        self._forgotten: deque[str] = deque(maxlen=1000)

    def forget(self, scope: str) -> None:
        """Drop what is cached of a scope, and cache no more of it."""
        self._forgotten.append(scope)
        if self._prefixes is not None:
            self._prefixes.drop(lambda owner: owner[0] == scope)

    @torch.inference_mode()
    def prefill(self, requests: list[RunningRequest]) -> Batch:
        """A batch of requests whose prompts have been prefilled."""
        unique, of_sequence = self._sequences(requests)
        done: list[_Prefill] = []
        parts: list[tuple[RowCache, Tensor]] = []
        for wave in self._waves(unique):
            for group in _groups(wave, pass_tokens=self._pass_tokens):
                parts.append(self._prefill_group(group))
                done.extend(group)
        cache = BatchCache(parts[0][0])
        for other, _ in parts[1:]:
            cache.join(BatchCache(other))
        logits = torch.cat([group_logits for _, group_logits in parts])
        place_of = {sequence: place for place, sequence in enumerate(done)}
        places = [place_of[sequence] for sequence in of_sequence]
        if places != list(range(len(done))):
            cache.select(torch.tensor(places, device=self._base.device))
        order = torch.tensor([row for sequence in done for _, row in sequence.rows])
        first = 0
        for running in requests:
            if running.n_chunks == 0 and not running.tokens:
                running.n_cached_tokens = of_sequence[first].n_cached
            first += running.n_sequences
        return Batch(requests, cache, logits[order.argsort().to(self._base.device)])

    @torch.inference_mode()
    def prefill_chunk(self, running: RunningRequest) -> bool:
        """Prefill a chunk of a request whose prompts are too long to be prefilled at once.

        Returns:
            Whether a chunk was prefilled; if not, the rest of the request is to be prefilled.
        """
        limit = self._chunk_tokens
        if self._prefixes is None or limit is None:
            return False
        unique, of_sequence = self._sequences([running])
        size = max(limit // len(unique), BLOCK_TOKENS)
        most = sum(len(sequence.context) for sequence in unique)
        if most > self._prefixes.max_tokens or running.n_chunks * size > most:
            return False  # the cache cannot hold it, or others evict it as fast as it comes
        chunks: dict[tuple[Owner, tuple[int, ...]], _Prefill] = {}
        for sequence in unique:
            cached = self._prefixes.lookup(sequence.owner, sequence.context)
            n_cached = sum(len(block) for block in cached)
            end = n_cached + size
            if running.n_chunks == 0 and sequence is of_sequence[0]:
                running.n_cached_tokens = n_cached  # before this request's own chunks
            if end < len(sequence.context):
                chunk, owner = sequence.context[:end], sequence.owner
                rows = [(sequence.rows[0][0], 0)]
                chunks[owner, chunk] = _Prefill(chunk, owner, rows, cached)
        for group in _groups(list(chunks.values()), pass_tokens=self._pass_tokens):
            self._prefill_group(group)
        running.n_chunks += bool(chunks)
        return bool(chunks)

    @torch.inference_mode()
    def decode(self, batch: Batch) -> None:
        """Pass the last token of every sequence; the batch has the next token's logits then."""
        batch.cache.extend()
        last = [[one.tokens[-1]] for one in batch.requests for _ in range(one.n_sequences)]
        batch.logits = self._forward(last, batch.cache, batch.coefficients(), batch.sequences)

    @torch.inference_mode()
    def cache_prefixes(self, batch: Batch, ended: Iterable[int]) -> None:
        """Cache the sequences of requests that end: the next turn of a conversation begins so."""
        if self._prefixes is None:
            return
        indices, first = set(ended), 0
        for running in batch.requests:
            if running.index in indices:
                for sequence in range(running.n_sequences):
                    row = running.sequences.index(sequence)
                    tokens = running.contexts[row] + tuple(running.tokens[:-1])
                    owner = self._owner(running, running.plan.rows[row].coefficients)
                    self._insert(owner, tokens, *batch.cache.part_of(first + sequence))
            first += running.n_sequences

    def _sequences(self, requests: list[RunningRequest]) -> tuple[list[_Prefill], list[_Prefill]]:
        """The different sequences, and the one of each sequence of each request in turn."""
        unique: dict[SequenceKey, _Prefill] = {}
        of_sequence: list[_Prefill] = []
        row = 0
        for running in requests:
            n_seen = 0
            for part, context, place in zip(
                running.plan.rows, running.texts, running.sequences, strict=True
            ):
                key = (running.request.scope, self._bank.before_head(part.coefficients), context)
                owner = self._owner(running, part.coefficients)
                sequence = unique.setdefault(key, _Prefill(context, owner))
                sequence.rows.append((part.coefficients, row))
                row += 1
                if place == n_seen:  # sequences are counted in the order of their first rows
                    of_sequence.append(sequence)
                    n_seen += 1
        return list(unique.values()), of_sequence

    def _owner(self, running: RunningRequest, coefficients: tuple[float, ...]) -> Owner:
        return (running.request.scope, self._bank.in_cache(coefficients))

    def _waves(self, sequences: list[_Prefill]) -> Iterable[list[_Prefill]]:
        """Sequences to prefill together: one of those with equal states first, then the others."""
        if self._prefixes is None:
            yield sequences
            return
        firsts = list({(one.owner, one.context): one for one in reversed(sequences)}.values())
        for wave in (firsts[::-1], [one for one in sequences if one not in firsts]):
            for sequence in wave:
                sequence.cached = self._prefixes.lookup(sequence.owner, sequence.context)
            if wave:
                yield wave

    def _prefill_group(self, group: list[_Prefill]) -> tuple[RowCache, Float[Tensor, "rows vocab"]]:
        device = self._base.device
        n_new = max(sequence.n_new for sequence in group)
        width = max(n_new, *(len(sequence.context) for sequence in group))
        filler = int(str(self._base.tokenizer.pad_token_id or 0))
        lengths = [len(sequence.context) for sequence in group]
        mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=device)
        ids: list[list[int]] = []
        for sequence in group:
            new = sequence.context[-n_new:]
            ids.append([filler] * (n_new - len(new)) + list(new))
            sequence.n_cached = len(sequence.context) - len(new)
        if width > n_new:
            cache = RowCache.of_states(_states(group, width - n_new), mask, self._shapes)
        else:
            cache = RowCache(empty_kv(), mask)
        rows = [(c, k) for k, sequence in enumerate(group) for c, _ in sequence.rows]
        own = None if len(rows) == len(group) else [k for _, k in rows]
        logits = self._forward(ids, cache, [coefficients for coefficients, _ in rows], own)
        for k, sequence in enumerate(group):
            self._insert(sequence.owner, sequence.context, cache, k)
        return cache, logits

    def _insert(self, owner: Owner, tokens: tuple[int, ...], cache: RowCache, row: int) -> None:
        if self._prefixes is None or owner[0] in self._forgotten:
            return
        first = cache.mask.shape[1] - len(tokens)
        self._shapes = self._shapes or cache.shapes()
        self._prefixes.insert(
            owner, tokens, lambda start, stop: cache.states(row, first + start, first + stop)
        )

    def _forward(
        self,
        ids: Sequence[Sequence[int]],
        cache: RowCache | BatchCache,
        coefficients: Sequence[Sequence[float]],
        sequences: Sequence[int] | None,
    ) -> Float[Tensor, "rows vocab"]:
        tokens = torch.tensor(ids, device=self._base.device)
        with self._bank.applied(coefficients, sequences=sequences):
            return cache.logits(self._base.model, tokens)


def _groups(sequences: Sequence[_Prefill], *, pass_tokens: int) -> list[list[_Prefill]]:
    """Sequences in groups to prefill together, longest first.

    Another group begins where it saves more than a pass costs.
    """
    groups: list[list[_Prefill]] = []
    order = sorted(sequences, key=lambda sequence: -sequence.n_new)
    for place, sequence in enumerate(order):
        saved = groups[-1][0].n_new - sequence.n_new if groups else 0
        if not groups or saved * (len(order) - place) > pass_tokens:
            groups.append([])
        groups[-1].append(sequence)
    return groups


def _states(sequences: Sequence[_Prefill], n_columns: int) -> Float[Tensor, "rows tokens width"]:
    """The cached states of the sequences, ending together."""
    some = next(sequence.cached[0] for sequence in sequences if sequence.n_cached)
    states = some.new_zeros(len(sequences), n_columns, some.shape[1])
    for row, sequence in enumerate(sequences):
        if sequence.n_cached:
            states[row, -sequence.n_cached :] = torch.cat(sequence.cached)[: sequence.n_cached]
    return states
