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
    """The parts of a library that engines are opened with.

    Attributes:
        base: The base in this process.
        bank: The experts in this process.
        expert_folders: PEFT folders of the experts, in bank order.
        controllers: By name.
        texts: Gives some answers, on which distributions are measured.
    """

    base: Base
    bank: AdapterBank
    expert_folders: Mapping[str, Path]
    controllers: Mapping[str, Controller]
    texts: Callable[[], Sequence[Scored]]
