"""Anchors: the preferences for which experts are trained.

An anchor is a direction `u` over the objectives whose absolute entries sum to one. A non-negative
direction is a preference. A signed one wants less of the objectives with a negative entry; up to a
constant and a scale it is a preference over the `2d` objectives `(r, 1 - r)`.

Source:
    methods README C11; Spectral Souping, arXiv 2605.20408, section 4.1 (random signed unit vectors
    plus the axes), where the paper's own sampling is unknown.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from palate.core.errors import InvalidInputError, InvalidPreferenceError
from palate.core.seeds import generator_for
from palate.core.settings import Settings
from palate.core.simplex import require_simplex, sample_simplex
from palate.rewards.scale import require_rewards as require_objective_rewards

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SAMPLED = dict.fromkeys(("n_random", "is_with_objectives"), ("random", "signed"))
_KINDS = {**_SAMPLED, "concentration": ("random",), "listed": ("list",)}  # that a key is for


@dataclass(frozen=True)
class Anchor:
    """A direction in objective space, and the name of the expert trained for it."""

    name: str  # letters, digits, `.`, `_`, `-`; also the expert's folder
    objectives: tuple[str, ...]  # names, in the library's order
    direction: tuple[float, ...]  # one number per objective, any sign; absolute entries sum to one

    def __post_init__(self) -> None:
        """Refuse a name that is no folder, and directions that are not of length one."""
        require_name(self.name, what="anchor")
        if len(self.objectives) != len(self.direction):
            raise InvalidPreferenceError(
                f"The anchor {self.name!r} has {len(self.direction)} entries for "
                f"{len(self.objectives)} objectives; give one per objective."
            )
        lengths = require_simplex(
            [abs(value) for value in self.direction],
            name=f"absolute direction of the anchor {self.name!r}",
        )
        signed = np.copysign(lengths, self.direction) + 0.0  # -0.0 becomes 0.0
        object.__setattr__(self, "direction", tuple(signed.tolist()))

    @property
    def is_signed(self) -> bool:
        """Whether less is wanted of some objective."""
        return any(value < 0.0 for value in self.direction)

    def is_only(self, name: str) -> bool:
        """Whether it is this objective's, wanted alone, and has its name."""
        wanted = dict(zip(self.objectives, self.direction, strict=True))
        return self.name == name and wanted.get(name) == 1.0

    def vector(self) -> Float[np.ndarray, " objectives"]:
        """The direction as an array."""
        return np.array(self.direction)

    def scalarise(
        self, rewards: Float[np.ndarray, "texts objectives"]
    ) -> Float[np.ndarray, " texts"]:
        """The anchor's reward of each text, in [0, 1]; higher is better.

        `sum_i max(u_i, 0) r_i + max(-u_i, 0) (1 - r_i)`, which is `u . r` plus a constant.

        Raises:
            InvalidInputError: the shape is wrong, or a reward is not a number in [0, 1].
        """
        require_rewards(rewards, objectives=self.objectives)
        direction = self.vector()
        return rewards @ direction + np.clip(-direction, 0.0, None).sum()

    def to_json(self) -> dict[str, Any]:
        """The anchor as plain data."""
        return {
            "name": self.name,
            "direction": dict(zip(self.objectives, self.direction, strict=True)),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, objectives: Sequence[str]) -> "Anchor":
        """The anchor written by `to_json`, or one that names only some objectives.

        Raises:
            InvalidInputError: an objective is unknown or the direction is not of length one.
        """
        named = value["direction"]
        unknown = [name for name in named if name not in objectives]
        if unknown:
            raise InvalidPreferenceError(
                f"The anchor {value['name']!r} names the unknown objective {unknown[0]!r}; "
                f"known are {', '.join(objectives)}."
            )
        direction = tuple(float(named.get(name, 0.0)) for name in objectives)
        return cls(str(value["name"]), tuple(objectives), direction)


class AnchorSettings(Settings):
    """Which experts to train."""

    # `objectives`: one per objective; `random`: sampled from the simplex; `signed`: random signed
    # directions; `list`: those given
    kind: Literal["objectives", "random", "signed", "list"] = "objectives"
    n_random: int = Field(default=0, ge=0)  # number of sampled anchors for `random` and `signed`
    # of the symmetric Dirichlet distribution of `random`; below one prefers few objectives
    concentration: float = Field(default=1.0, gt=0)
    is_with_objectives: bool = True  # put one anchor per objective before the sampled ones
    # for `list`: name to `{objective: share}`, absolute shares summing to one
    listed: dict[str, dict[str, float]] = Field(default={})

    @model_validator(mode="after")
    def _are_used(self) -> "AnchorSettings":
        for name in self.model_dump(exclude_defaults=True):
            if name in _KINDS and self.kind not in _KINDS[name]:
                kinds = " or ".join(_KINDS[name])
                raise ValueError(f"{name} needs the kind {kinds}, but the kind is {self.kind}")
        return self


def make_anchors(
    settings: AnchorSettings, *, objectives: Sequence[str], seed: int
) -> tuple[Anchor, ...]:
    """The anchors, in bank order; InvalidInputError where there is none or a direction is wrong."""
    names = tuple(objectives)
    axes = objective_anchors(names)
    if settings.kind == "objectives":
        anchors = axes
    elif settings.kind == "list":
        listed = settings.listed.items()
        anchors = tuple(
            Anchor.from_json({"name": name, "direction": direction}, objectives=names)
            for name, direction in listed
        )
    else:
        points = _sample_directions(settings, n_objectives=len(names), seed=seed)
        sampled = tuple(
            Anchor(f"{settings.kind}-{index:03d}", names, tuple(point))
            for index, point in enumerate(points.tolist())
        )
        anchors = axes + sampled if settings.is_with_objectives else sampled
    if not anchors:
        raise InvalidInputError(
            f"The anchors of kind {settings.kind!r} are none; set 'n_random' or 'listed'."
        )
    for anchor in anchors:
        require_new_name(anchor.name, what="expert")
    return anchors


def objective_anchors(objectives: Sequence[str]) -> tuple[Anchor, ...]:
    """One anchor per objective, named after it."""
    names = tuple(objectives)
    rows = np.eye(len(names))
    return tuple(
        Anchor(name, names, tuple(row)) for name, row in zip(names, rows.tolist(), strict=True)
    )


def _sample_directions(
    settings: AnchorSettings, *, n_objectives: int, seed: int
) -> Float[np.ndarray, "anchors objectives"]:
    """Dirichlet points for `random`; for `signed` directions uniform on the sphere."""
    generator = generator_for(seed, "anchors", settings.kind)
    if settings.kind == "random":
        return sample_simplex(
            n_points=settings.n_random,
            n_objectives=n_objectives,
            generator=generator,
            concentration=settings.concentration,
        )
    points = generator.normal(size=(settings.n_random, n_objectives))
    return points / np.abs(points).sum(axis=1, keepdims=True)


def require_name(name: str, *, what: str) -> str:
    """The name, if it can be a folder on every system; InvalidInputError where it cannot."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"The {what} name {name!r} is not allowed; use up to 64 letters, digits, '.', '_' "
            "and '-', beginning with a letter or digit."
        )
    return name


def require_new_name(name: str, *, what: str) -> str:
    """As `require_name`; InvalidInputError also for `base`, the name of the base among policies."""
    if name == "base":
        raise InvalidInputError(f"The {what} name 'base' is the base's own; choose another one.")
    return require_name(name, what=what)


def require_rewards(
    rewards: Float[np.ndarray, "texts objectives"], *, objectives: Sequence[str]
) -> None:
    """Return when rewards are in [0, 1], a column per objective; InvalidInputError where not."""
    if rewards.ndim != 2 or rewards.shape[1] != len(objectives):
        raise InvalidInputError(
            f"The rewards have shape {rewards.shape}, but {len(objectives)} objectives need one "
            "column each."
        )
    for column, objective in zip(rewards.T, objectives, strict=True):
        require_objective_rewards(column, objective=objective)
