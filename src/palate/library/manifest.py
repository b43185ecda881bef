"""What `library.json` says: base, objectives, experts, each with the hashes of its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value
from palate.core.types import BaseRecord, Objective
from palate.training.anchors import Anchor

KIND = "palate.library"
SCHEMA_VERSION = 1

Files = Mapping[str, str]  # path within its folder -> SHA-256


@dataclass(frozen=True)
class PartRecord:
    """A reward or the rollouts.

    Attributes:
        key: Hash of everything that determines the part.
        files: Path within the part's folder -> SHA-256; empty while the part is not finished.
    """

    key: str
    files: Files = field(default_factory=dict)


@dataclass(frozen=True)
class ExpertRecord:
    """One expert, finished.

    Attributes:
        anchor: The taste it was trained for; its name is the expert's.
        key: Hash of everything that determines its parameters.
        files: Of its folder, but for the card.
        tilt_mean: Mean over rollouts of `beta * log pi/pi_0`, reward units.
        tilt_sd: Standard deviation of the same.
        n_tilts: Rollouts these two rest on.
    """

    anchor: Anchor
    key: str
    files: Files
    tilt_mean: float = 0.0
    tilt_sd: float = 0.0
    n_tilts: int = 0


@dataclass(frozen=True)
class Manifest:
    """The content of `library.json`.

    Attributes:
        base: Which base model.
        objectives: In the order of rewards and preferences.
        beta: Reward units per nat of KL, common to all experts.
        seed: Of the whole build.
        experts: Finished experts, in bank order.
        rewards: Finished reward folders, by objective.
        rollouts: The rollouts; without files while they are being sampled.
        controller: What mixes the experts token by token; its key is the hash of the experts that
            it was trained for.
        versions: Of the packages that made it.
        config: The settings as resolved.
    """

    base: BaseRecord
    objectives: tuple[Objective, ...]
    beta: float
    seed: int
    experts: tuple[ExpertRecord, ...] = ()
    rewards: Mapping[str, PartRecord] = field(default_factory=dict)
    rollouts: PartRecord | None = None
    controller: PartRecord | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives' names."""
        return tuple(objective.name for objective in self.objectives)

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts' names, in bank order."""
        return tuple(record.anchor.name for record in self.experts)

    def expert(self, name: str) -> ExpertRecord:
        """The expert of that name.

        Raises:
            InvalidInputError: there is none.
        """
        for record in self.experts:
            if record.anchor.name == name:
                return record
        raise InvalidInputError(
            f"The library has no expert {name!r}; it has {', '.join(self.expert_names) or 'none'}."
        )

    def anchors(self) -> Float[ndarray, "experts objectives"]:
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
            "experts": [
                {
                    **record.anchor.to_json(),
                    "key": record.key,
                    "files": dict(record.files),
                    "tilt": {
                        "mean": record.tilt_mean,
                        "sd": record.tilt_sd,
                        "n_rollouts": record.n_tilts,
                    },
                }
                for record in self.experts
            ],
            "rewards": {name: _part(record) for name, record in self.rewards.items()},
            "rollouts": self.rollouts and _part(self.rollouts),
            **({"controller": _part(self.controller)} if self.controller else {}),
            "versions": dict(self.versions),
            "config": dict(self.config),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, source: str) -> "Manifest":
        """The manifest written by `to_json`.

        Raises:
            FormatError: a field is missing or of the wrong type.
        """
        try:
            objectives = tuple(Objective(**row) for row in value["objectives"])
            names = tuple(objective.name for objective in objectives)
            return cls(
                base=BaseRecord(**value["base"]),
                objectives=objectives,
                beta=float(value["beta"]),
                seed=int(value["seed"]),
                experts=tuple(_expert(row, objectives=names) for row in value["experts"]),
                rewards={name: PartRecord(**row) for name, row in value["rewards"].items()},
                rollouts=value["rollouts"] and PartRecord(**value["rollouts"]),
                controller=PartRecord(**value["controller"]) if "controller" in value else None,
                versions=value["versions"],
                config=value["config"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"The library file {source!r} lacks or garbles a field ({error!r}); build the "
                "library again."
            ) from error


def _part(record: PartRecord) -> dict[str, Any]:
    return {"key": record.key, "files": dict(record.files)}


def _expert(row: Mapping[str, Any], *, objectives: Sequence[str]) -> ExpertRecord:
    tilt = row["tilt"]
    return ExpertRecord(
        anchor=Anchor.from_json(row, objectives=objectives),
        key=row["key"],
        files=row["files"],
        tilt_mean=float(tilt["mean"]),
        tilt_sd=float(tilt["sd"]),
        n_tilts=int(tilt["n_rollouts"]),
    )


def experts_key(manifest: Manifest) -> str:
    """Hash of all experts' files, in bank order."""
    rows: list[Any] = [[r.anchor.name, dict(r.files)] for r in manifest.experts]
    return hash_value(rows)
