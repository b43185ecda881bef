"""The parts that sessions and answers on a vLLM share."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.engine.control import Controller
from palate.engine.remote import vocabulary_size
from palate.engine.vllm.adapters import AdapterCache, SoupMaker
from palate.engine.vllm.client import VllmClient, VllmSettings
from palate.engine.vllm.place import Place
from palate.engine.vllm.rounding import Rounding
from palate.models.load import Base

Writers = dict[str, Callable[[Path], None]]  # by adapter name, what writes its folder


@dataclass(frozen=True, eq=False)
class VllmContext:
    """The parts of a vLLM engine."""

    base: Base  # tokenizer, stop tokens, size of the vocabulary; its parameters are not used
    names: tuple[str, ...]  # experts in bank order, as the server's LoRA modules are called
    client: VllmClient  # with this process's share of the settings
    place: Place  # this process's own
    cache: AdapterCache  # merged soups on the server
    maker: SoupMaker
    rounding: Rounding
    controllers: Mapping[str, Controller]  # by name
    row_threads: ThreadPoolExecutor  # for the rows of pooled answers
    context_length: int | None = None  # most tokens of prompt and answer, where the server says

    @property
    def settings(self) -> VllmSettings:
        """This process's share of the settings."""
        return self.client.settings

    @property
    def abort_id(self) -> int:
        """A token that no answer contains: it ends the rows of a group that the server split."""
        tokenizer: Any = self.base.tokenizer
        special = [int(token) for token in getattr(tokenizer, "all_special_ids", ())]
        idle = [token for token in special if token not in self.base.stop_ids]
        return idle[0] if idle else self.n_vocab - 1

    @property
    def n_vocab(self) -> int:
        """Token ids of the model."""
        return vocabulary_size(self.base)

    def model_of(self, coefficients: Sequence[float]) -> tuple[str, Writers]:
        """The server's name for a row's model, and how to write it if it must be loaded.

        Raises:
            InvalidInputError: the soup is larger than the server's adapters may be.
        """
        settings = self.settings
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
