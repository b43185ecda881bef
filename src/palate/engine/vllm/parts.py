"""What sessions on a vLLM run on, and what they report."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.plan import Pool
from palate.engine.control import Controller
from palate.engine.vllm.adapters import AdapterCache, SoupMaker
from palate.engine.vllm.place import Place
from palate.engine.vllm.rounding import Rounding
from palate.engine.vllm.wire import VllmClient
from palate.models.load import Base

EXACT = 1e-6  # a bound below this is rounding of numbers
Writers = dict[str, Callable[[Path], None]]  # by adapter name, what writes its folder
RowLists = Sequence[Mapping[int, float]]  # log-probabilities by token id, one list per row


@dataclass(frozen=True)
class Pooled:
    """The next token's distribution.

    Attributes:
        log_probs: By token id; what is not listed has none.
        bound: On the total variation to the exact distribution; zero is exact.
    """

    log_probs: Mapping[int, float]
    bound: float


PoolLists = Callable[[RowLists, Pool, int], Pooled]  # lists, pool, size of the vocabulary


@dataclass(frozen=True)
class Account:
    """What an answer's tokens are off by, at most.

    Attributes:
        coefficients: By row, as they were served.
        parameter_change: Frobenius norm of what rounding changed of the parameters.
        rounding_bound: Per token, on total variation, from rounding; `None` when not known.
        list_bounds: Per token, on total variation, from lists; zero where the server drew.
        leads: Per token, how far the most probable token was ahead of the second.
        is_greedy: Whether the most probable token was taken.
        n_calls: Requests to the server.
    """

    coefficients: tuple[tuple[float, ...], ...]
    parameter_change: float
    rounding_bound: float | None
    list_bounds: tuple[float, ...]
    leads: tuple[float, ...]
    is_greedy: bool
    n_calls: int

    @property
    def is_exact(self) -> bool:
        """Whether nothing was approximated, but for rounding errors of numbers."""
        return self.rounding_bound == 0.0 and not any(b > EXACT for b in self.list_bounds)

    @property
    def certified(self) -> tuple[bool, ...]:
        """Per token, whether the exact plan, having read the same, would take the same token.

        A total variation of `b` moves no probability by more than `b`, so a greedy token stays
        where it leads by more than `2 b`. Drawn tokens are certified where the plan is exact.
        """
        if self.rounding_bound is None:
            return (False,) * len(self.leads)
        bounds = [b + self.rounding_bound for b in self.list_bounds]
        return tuple(
            b <= EXACT or (self.is_greedy and lead > 2 * b)
            for lead, b in zip(self.leads, bounds, strict=True)
        )


@dataclass(frozen=True, eq=False)
class VllmParts:
    """What sessions run on.

    Attributes:
        base: Tokenizer, stop tokens, size of the vocabulary; its parameters are not used.
        names: Experts in bank order, as the server's LoRA modules are called.
        client: The connection, with this process's share of its settings.
        place: This process's own on the server.
        cache: Merged soups on the server.
        maker: Merges them.
        rounding: Of soups' coefficients.
        pool: Pools lists; `None` refuses plans with several rows.
        controllers: By name.
        rows: Threads for the rows of pooled answers.
        max_tokens: Of prompt and answer together, where the server says.
    """

    base: Base
    names: tuple[str, ...]
    client: VllmClient
    place: Place
    cache: AdapterCache
    maker: SoupMaker
    rounding: Rounding
    pool: PoolLists | None
    controllers: Mapping[str, Controller]
    rows: ThreadPoolExecutor
    max_tokens: int | None = None

    @property
    def abort_id(self) -> int:
        """A token that no answer means: ends the rows of a group that the server split."""
        tokenizer: Any = self.base.tokenizer
        special = [int(token) for token in getattr(tokenizer, "all_special_ids", ())]
        idle = [token for token in special if token not in self.base.stop_ids]
        return idle[0] if idle else self.n_vocab - 1

    @property
    def n_vocab(self) -> int:
        """Token ids of the model."""
        config: Any = self.base.model.config
        return int(config.vocab_size)

    def model_of(self, coefficients: Sequence[float]) -> tuple[str, Writers]:
        """The server's name for a row's model, and how to write it if it must be loaded.

        Raises:
            InvalidInputError: the soup is larger than the server's adapters may be.
        """
        settings = self.client.settings
        active = [k for k, c in enumerate(coefficients) if c != 0.0]
        if not active and (not settings.base_as_adapter or not self.names):
            return settings.base_name, {}
        if len(active) == 1 and coefficients[active[0]] == 1.0:
            return self.names[active[0]], {}
        rank = self.maker.rank(coefficients)
        if rank > settings.max_lora_rank:
            raise InvalidInputError(
                f"The exact soup has rank {rank}, but max_lora_rank is {settings.max_lora_rank}; "
                "start the server with a larger --max-lora-rank and set it, or use fewer experts."
            )
        name, values = self.maker.name(coefficients), tuple(coefficients)
        return name, {name: lambda folder: self.maker.save(values, folder)}
