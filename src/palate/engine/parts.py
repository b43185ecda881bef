"""The parts of a library that engines are opened with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.engine.logprobs import Scored
from palate.models.load import Base


@dataclass(frozen=True, eq=False)
class EngineParts:
    """The parts of a library that engines are opened with."""

    base: Base  # in this process
    bank: AdapterBank  # the experts in this process
    expert_folders: Mapping[str, Path]  # PEFT folders of the experts, in bank order
    controllers: Mapping[str, Controller]  # by name
    texts: Callable[[], Sequence[Scored]]  # gives answers on which distributions are measured
