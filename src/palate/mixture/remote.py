"""The mixture over experts that are black boxes: lists or draws from servers, pooled here.

    lists     every expert gives its top-k log-probabilities; the pooled token is off by at most
              sum_i share_i m_i in total variation, m_i what expert i did not list (M3)
    draws     the expert is drawn from the shares, then it draws the token: an exact sample of the
              mixture with one call, at temperature one (M6)

Experts whose share is below a threshold are not called (M5); an expert that fails is dropped from
the rest of the answer with a note, or the answer fails, as asked. Each token has its own bound; by
summing them every reward in [0, 1] is bounded as well.

Source:
    methods mope 15.1-15.3, M3, M5, M6.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError, ProviderError
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.engine.openai.endpoint import Drawn
from palate.engine.sample import draw, uniforms
from palate.mixture.bounds import Bounded, Listed, pool_listed, skip_small

EXACT = 1e-6  # a bound below this is rounding


class RemoteExpert(Protocol):
    """What a black box must do; `palate.engine.openai.endpoint.EndpointExpert` does."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def next_log_probs(
        self, context: Sequence[int], *, top_k: int | None = None
    ) -> dict[int, float]:
        """Log-probabilities of some next tokens, by token id."""
        ...

    def draw(self, context: Sequence[int], *, n_tokens: int, seed: int) -> Drawn:
        """Tokens drawn at temperature one."""
        ...


class ShareSource(Protocol):
    """Gives the shares of the experts, token by token."""

    def shares(self, tokens: Sequence[int]) -> Float[ndarray, " experts"]:
        """On the simplex, for the next token; each call has one token more, or more of them."""
        ...


@dataclass(frozen=True)
class FixedShares:
    """The same shares at every token."""

    values: tuple[float, ...]

    def shares(self, tokens: Sequence[int]) -> Float[ndarray, " experts"]:  # noqa: ARG002 - a seam
        """The values."""
        return np.array(self.values)


@dataclass(frozen=True)
class RemoteSettings:
    """How black boxes are mixed.

    Attributes:
        mode: Pool lists, or draw the expert.
        chunk_tokens: For draws: tokens an expert writes in a row; exact only at one.
        skip_below: Experts with smaller shares are not called.
        budget: Total variation per token above which longer lists are asked for.
        max_top_k: Longest list asked for; 0 never asks for longer ones.
        on_failure: Go on without a failed expert, or fail.
    """

    mode: Literal["lists", "draws"] = "lists"
    chunk_tokens: int = 1
    skip_below: float = 0.0
    budget: float = 0.02
    max_top_k: int = 0
    on_failure: Literal["drop", "fail"] = "fail"


@dataclass(frozen=True, eq=False)
class RemoteAnswer:
    """An answer of black boxes, and how far its tokens can be from exact ones.

    Attributes:
        tokens: Token ids.
        shares: `[tokens, experts]`, as used: skipped and dropped experts have none.
        bounds: `[tokens]`, on the total variation to the exact mixture; zero is exact.
        is_certified: `[tokens]`, whether the exact mixture would have given the same token.
        notes: One sentence per expert that was dropped.
        n_calls: Requests to servers.
    """

    tokens: tuple[int, ...]
    shares: Float[ndarray, "tokens experts"]
    bounds: Float[ndarray, " tokens"]
    is_certified: tuple[bool, ...]
    notes: tuple[str, ...]
    n_calls: int

    @property
    def certified_fraction(self) -> float:
        """Share of tokens that are certainly those of the exact mixture."""
        return float(np.mean(self.is_certified)) if self.is_certified else 1.0


class RemoteMixture:
    """Experts on servers under one share source."""

    def __init__(
        self,
        experts: Sequence[RemoteExpert],
        *,
        n_vocab: int,
        stop_ids: frozenset[int],
        settings: RemoteSettings | None = None,
    ) -> None:
        """Keep the experts.

        Raises:
            InvalidInputError: there are no experts.
        """
        if not experts:
            raise InvalidInputError("There are no experts to mix; give at least one.")
        self._experts = tuple(experts)
        self._n_vocab = n_vocab
        self._stop_ids = stop_ids
        self.settings = settings or RemoteSettings()

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        source: ShareSource,
        *,
        sampling: SamplingParams,
        seed: int = 0,
    ) -> RemoteAnswer:
        """One answer.

        Args:
            contexts: Token ids that each expert reads first.
            source: Gives the shares.
            sampling: For lists; draws need temperature one and no truncation.
            seed: The same seed gives the same answer from the same distributions.

        Raises:
            InvalidInputError: not one context per expert, or draws with other sampling.
            ProviderError: an expert failed and failing was asked for, or none is left.
        """
        if len(contexts) != len(self._experts):
            raise InvalidInputError(
                f"There are {len(contexts)} contexts for {len(self._experts)} experts; give each "
                "its own."
            )
        is_plain = sampling == SamplingParams(max_tokens=sampling.max_tokens, stop=sampling.stop)
        if self.settings.mode == "draws" and not is_plain:
            raise InvalidInputError(
                "Experts that only draw can be mixed at temperature 1 without truncation only."
            )
        run = _Run(self, [list(context) for context in contexts], sampling, seed)
        with ThreadPoolExecutor(len(self._experts)) as pool:
            while not run.is_finished:
                run.step(source, pool)
        return run.answer()

    @property
    def experts(self) -> tuple[RemoteExpert, ...]:
        """The black boxes."""
        return self._experts

    @property
    def n_vocab(self) -> int:
        """Token ids of the shared tokenizer."""
        return self._n_vocab

    @property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        return self._stop_ids


class _Run:
    """The state of one answer."""

    def __init__(
        self, mixture: RemoteMixture, contexts: list[list[int]], sampling: SamplingParams, seed: int
    ) -> None:
        self._mixture = mixture
        self._settings = mixture.settings
        self._contexts = contexts
        self._sampling = sampling
        self._seed = seed
        self._uniforms = uniforms(seed=seed, n_tokens=sampling.max_tokens)
        self._alive = np.ones(len(contexts), dtype=bool)
        self._tokens: list[int] = []
        self._shares: list[ndarray] = []
        self._bounds: list[float] = []
        self._certified: list[bool] = []
        self._notes: list[str] = []
        self._n_calls = 0
        self._list_length = 0  # of the last lists
        self._prompt = tuple(contexts[0])

    @property
    def is_finished(self) -> bool:
        is_ended = bool(self._tokens) and self._tokens[-1] in self._mixture.stop_ids
        return is_ended or len(self._tokens) >= self._sampling.max_tokens

    def answer(self) -> RemoteAnswer:
        return RemoteAnswer(
            tokens=tuple(self._tokens),
            shares=np.array(self._shares),
            bounds=np.array(self._bounds),
            is_certified=tuple(self._certified),
            notes=tuple(self._notes),
            n_calls=self._n_calls,
        )

    def step(self, source: ShareSource, pool: ThreadPoolExecutor) -> None:
        """Draw the next token, or tokens; an expert that fails changes the shares, and again."""
        asked = source.shares(self._tokens)
        while True:
            shares, lost = self._usable(asked)
            try:
                if self._settings.mode == "lists":
                    self._step_lists(shares, lost, pool)
                else:
                    self._step_draws(shares, lost)
            except _ExpertFailed as failure:
                self._drop(failure)
            else:
                return

    def _usable(self, asked: Float[ndarray, " experts"]) -> tuple[ndarray, float]:
        """Shares of the experts that are called, and the total variation of leaving others out."""
        alive = np.where(self._alive, asked, 0.0)
        if alive.sum() <= 0.0:
            raise ProviderError(
                f"No expert with a share is left after {len(self._tokens)} tokens: "
                f"{' '.join(self._notes)}"
            )
        kept, _ = skip_small(alive / alive.sum(), threshold=self._settings.skip_below)
        return kept, float(np.clip(1.0 - asked[kept > 0].sum(), 0.0, 1.0))

    def _step_lists(self, shares: ndarray, lost: float, pool: ThreadPoolExecutor) -> None:
        top_k: int | None = None
        pooled = self._pooled(shares, pool, top_k)
        while pooled.bound > self._settings.budget and (top_k or 0) < self._settings.max_top_k:
            top_k = min(self._settings.max_top_k, 4 * self._list_length)
            pooled = self._pooled(shares, pool, top_k)
        token = self._draw(pooled.probs)
        missing = min(1.0, pooled.bound + lost)
        is_greedy = self._sampling.temperature == 0.0
        is_certified = missing <= EXACT or (is_greedy and _lead(pooled, lost) > 0.0)
        self._accept([token], shares, missing, is_certified=is_certified)

    def _pooled(self, shares: ndarray, pool: ThreadPoolExecutor, top_k: int | None) -> Bounded:
        used = np.flatnonzero(shares)
        futures = [pool.submit(self._list, int(expert), top_k) for expert in used]
        lists = [future.result() for future in futures]
        self._n_calls += len(used)
        self._list_length = max(len(one.probs) for one in lists)
        return pool_listed(lists, [float(shares[expert]) for expert in used])

    def _list(self, expert: int, top_k: int | None) -> Listed:
        try:
            found = self._mixture.experts[expert].next_log_probs(
                self._contexts[expert], top_k=top_k
            )
        except ProviderError as error:
            raise _ExpertFailed(expert, error) from error
        return Listed({token: min(1.0, math.exp(value)) for token, value in found.items()})

    def _draw(self, probs: Mapping[int, float]) -> int:
        scores = torch.full((1, self._mixture.n_vocab), -torch.inf, dtype=torch.float64)
        for token, prob in probs.items():
            scores[0, token] = math.log(prob) if prob > 0 else -math.inf
        uniform = torch.tensor([self._uniforms[len(self._tokens)]])
        drawn = draw(
            scores,
            sampling=[self._sampling],
            prompts=[self._prompt],
            answers=[self._tokens],
            uniform=uniform,
        )
        return int(drawn[0])

    def _step_draws(self, shares: ndarray, lost: float) -> None:
        place = len(self._tokens)
        generator = generator_for(self._seed, "expert", place)
        expert = int(generator.choice(len(shares), p=shares))
        n_tokens = min(self._settings.chunk_tokens, self._sampling.max_tokens - place)
        try:
            drawn = self._mixture.experts[expert].draw(
                self._contexts[expert],
                n_tokens=n_tokens,
                seed=derive_seed(self._seed, "token", place),
            )
        except ProviderError as error:
            raise _ExpertFailed(expert, error) from error
        self._n_calls += 1
        is_exact = lost <= EXACT and self._settings.chunk_tokens == 1
        bound = lost if self._settings.chunk_tokens == 1 else 1.0
        self._accept(list(drawn.tokens), shares, bound, is_certified=is_exact)

    def _accept(
        self, tokens: Sequence[int], shares: ndarray, bound: float, *, is_certified: bool
    ) -> None:
        for token in tokens:
            for context in self._contexts:
                context.append(token)
            self._tokens.append(token)
            self._shares.append(shares)
            self._bounds.append(bound)
            self._certified.append(is_certified)

    def _drop(self, failure: "_ExpertFailed") -> None:
        name = self._mixture.experts[failure.expert].name
        if self._settings.on_failure == "fail":
            raise ProviderError(
                f"The answer failed after {len(self._tokens)} tokens: {failure.error}",
                is_retryable=failure.error.is_retryable,
            ) from failure.error
        self._alive[failure.expert] = False
        self._notes.append(
            f"Expert {name!r} was dropped after {len(self._tokens)} tokens; from there on every "
            f"token is off by at most its share ({failure.error})"
        )


class _ExpertFailed(Exception):  # noqa: N818 - never leaves this module
    """Carries which expert failed to where it is dropped."""

    def __init__(self, expert: int, error: ProviderError) -> None:
        super().__init__(expert, error)
        self.expert = expert
        self.error = error


def _lead(pooled: Bounded, lost: float) -> float:
    """How far the first token's kept mass is ahead of what any other can have at most."""
    kept = (1.0 - pooled.bound) * (1.0 - lost)
    ordered = sorted(pooled.probs.values(), reverse=True)
    second = ordered[1] if len(ordered) > 1 else 0.0
    return kept * (ordered[0] - second) - (1.0 - kept)
