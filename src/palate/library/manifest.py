"""The content of `library.json`: base, objectives, and parts with the hashes of their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value, reading
from palate.core.types import BaseRecord, Objective
from palate.training.anchors import Anchor

KIND = "palate.library"
SCHEMA_VERSION = 1

Files = Mapping[str, str]  # path within its folder -> SHA-256


@dataclass(frozen=True)
class PartRecord:
    """A reward, the rollouts or the controller."""

    key: str  # hash of everything that determines the part
    files: Files = field(default_factory=dict)  # empty while the part is not finished

    def to_json(self) -> dict[str, Any]:
        """The part as plain data."""
        return {"key": self.key, "files": dict(self.files)}


@dataclass(frozen=True)
class ExpertRecord:
    """One expert, finished."""

    anchor: Anchor  # with the expert's name
    key: str  # hash of everything that determines its parameters
    files: Files  # of its folder, without the card
    tilt_mean: float = 0.0  # mean over rollouts of `beta * log pi/pi_0`, reward units
    tilt_sd: float = 0.0
    n_tilts: int = 0  # rollouts

    def to_json(self) -> dict[str, Any]:
        """The expert as plain data."""
        tilt = {"mean": self.tilt_mean, "sd": self.tilt_sd, "n_rollouts": self.n_tilts}
        return {**self.anchor.to_json(), "key": self.key, "files": dict(self.files), "tilt": tilt}


@dataclass(frozen=True)
class Manifest:
    """The content of `library.json`."""

    base: BaseRecord
    objectives: tuple[Objective, ...]  # in the order of rewards and preferences
    beta: float  # reward units per nat of KL, common to all experts
    seed: int  # of the build
    experts: tuple[ExpertRecord, ...] = ()  # finished, in bank order
    rewards: Mapping[str, PartRecord] = field(default_factory=dict)  # finished, by objective
    rollouts: PartRecord | None = None  # without files while they are being sampled
    controller: PartRecord | None = None  # its key is the hash of its experts
    versions: Mapping[str, str] = field(default_factory=dict)  # of packages
    config: Mapping[str, Any] = field(default_factory=dict)  # resolved settings

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives' names."""
        return tuple(objective.name for objective in self.objectives)

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts' names, in bank order."""
        return tuple(record.anchor.name for record in self.experts)

    def expert(self, name: str) -> ExpertRecord:
        """The expert of that name; InvalidInputError where there is none."""
        for record in self.experts:
            if record.anchor.name == name:
                return record
        raise InvalidInputError(
            f"The library has no expert {name!r}; it has {', '.join(self.expert_names) or 'none'}."
        )

    def anchors(self) -> Float[np.ndarray, "experts objectives"]:
        """`[experts, objectives]`: what each expert was trained for."""
        rows = [record.anchor.direction for record in self.experts]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.objectives))

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data."""
        return {
            "base": vars(self.base).copy(),
            "objectives": [vars(objective).copy() for objective in self.objectives],
            "beta": self.beta,
            "seed": self.seed,
            "experts": [record.to_json() for record in self.experts],
            "rewards": {name: record.to_json() for name, record in self.rewards.items()},
            "rollouts": self.rollouts and self.rollouts.to_json(),
            **({"controller": self.controller.to_json()} if self.controller else {}),
            "versions": dict(self.versions),
            "config": dict(self.config),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, path: Path) -> "Manifest":
        """The manifest that `to_json` wrote; FormatError where a field is missing or wrong."""
        with reading(path, remedy="build the library again"):
            objectives = tuple(Objective(**_texts(row)) for row in value["objectives"])
            names = tuple(objective.name for objective in objectives)
            beta, config = float(value["beta"]), {**value["config"]}
            temperature = float((config.get("calibration") or {}).get("temperature", 1.0))
            if beta <= 0 or temperature < 0:
                raise FormatError(f"beta is {beta:g}, the temperature {temperature:g}.")
            return cls(
                base=BaseRecord(**_texts(value["base"])),
                objectives=objectives,
                beta=beta,
                seed=int(value["seed"]),
                experts=tuple(_expert(row, objectives=names) for row in value["experts"]),
                rewards={name: _part(row) for name, row in value["rewards"].items()},
                rollouts=None if value["rollouts"] is None else _part(value["rollouts"]),
                controller=_part(value["controller"]) if "controller" in value else None,
                versions=_texts(value["versions"]),
                config=config,
            )


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    wrong = [name for name, text in row.items() if not isinstance(text, str | None)]
    if wrong:
        raise FormatError(f"{wrong[0]} is no text.")
    return {**row}


def _part(row: Mapping[str, Any]) -> PartRecord:
    return PartRecord(str(row["key"]), _texts(row["files"]))


def _expert(row: Mapping[str, Any], *, objectives: Sequence[str]) -> ExpertRecord:
    tilt = row["tilt"]
    return ExpertRecord(
        anchor=Anchor.from_json(row, objectives=objectives),
        key=str(row["key"]),
        files=_texts(row["files"]),
        tilt_mean=float(tilt["mean"]),
        tilt_sd=float(tilt["sd"]),
        n_tilts=int(tilt["n_rollouts"]),
    )


def experts_key(manifest: Manifest) -> str:
    """Hash of all experts' files, in bank order."""
    rows: list[Any] = [[r.anchor.name, dict(r.files)] for r in manifest.experts]
    return hash_value(rows)
