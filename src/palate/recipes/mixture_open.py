"""A library's mixture, opened: wording, controller and an engine that answers under it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError, InvalidInputError, InvalidPreferenceError
from palate.core.files import hash_value, read_versioned
from palate.core.protocols import Request, Sampling
from palate.core.types import Preference
from palate.experts.library import CONTROLLER as CONTROLLER_PART
from palate.experts.manifest import Manifest
from palate.mixture.controller import PreferenceController, load_controller
from palate.mixture.decode import ControlledDecoding, DecodeSettings
from palate.mixture.rollout import CONTROLLER
from palate.mixture.wording import Asked, Pooling, Prompts, Wording
from palate.models.engine import LocalEngine
from palate.recipes.opened import Opened

CONTROLLER_FOLDER = CONTROLLER_PART
RUN_FILE = "run.json"
RUN_KIND, RUN_VERSION = "palate.mixture-run", 1


@dataclass(frozen=True, eq=False)
class OpenedMixture:
    """What is needed to answer under a library's controller.

    Attributes:
        opened: Library, base, bank.
        controller: As trained.
        wording: What experts and controller read.
        engine: Has the controller.
        trained: Combinations it was trained on: strengths over the experts.
    """

    opened: Opened
    controller: PreferenceController
    wording: Wording
    engine: LocalEngine
    trained: tuple[tuple[float, ...], ...]

    def request(
        self, prompt: str, preference: Mapping[str, float], *, sampling: Sampling, seed: int = 0
    ) -> Request:
        """The request for a prompt and shares by objective.

        Raises:
            InvalidInputError: an objective that is wanted has no expert of its own.
        """
        manifest = self.opened.library.manifest
        asked = Asked(prompt, strengths_for(manifest, preference))
        plan = self.wording.plan(asked, controller=CONTROLLER)
        return Request(self.wording.full_text(asked), plan, sampling, seed)

    def is_trained_on(self, preference: Mapping[str, float]) -> bool:
        """Whether the combination was trained on, or is new to the controller."""
        asked = strengths_for(self.opened.library.manifest, preference)
        return any(np.allclose(asked, row, atol=1e-4) for row in self.trained)


def open_mixture(opened: Opened, *, settings: DecodeSettings | None = None) -> OpenedMixture:
    """The controller that `palate mixture fit` put into the library.

    Raises:
        InvalidInputError: the library has none.
        FormatError: it was trained for other experts.
    """
    folder = controller_folder(opened)
    if not has_controller(opened):
        raise InvalidInputError(
            f"The library {str(opened.library.folder)!r} has no controller; make one with "
            "'palate mixture fit'."
        )
    run = read_versioned(folder / RUN_FILE, kind=RUN_KIND, version=RUN_VERSION)
    if run["experts"] != experts_key(opened.library.manifest):
        raise FormatError(
            f"The controller {str(folder)!r} was trained for other experts than the library's; "
            "fit it again."
        )
    controller = load_controller(folder)
    fit = run["settings"]["fit"]
    decoding = ControlledDecoding(controller, opened.base, settings=settings)
    return OpenedMixture(
        opened=opened,
        controller=controller,
        wording=wording_of(
            opened,
            prompts=fit["prompts"],
            pool=fit.get("pool", "linear"),
            blend=fit.get("blend", 0.0),
        ),
        engine=LocalEngine(opened.base, opened.bank, controllers={CONTROLLER: decoding}),
        trained=tuple(tuple(row) for row in run["combinations"]),
    )


def has_controller(opened: Opened) -> bool:
    """Whether the library has a trained controller."""
    return (controller_folder(opened) / RUN_FILE).is_file()


def wording_of(
    opened: Opened, *, prompts: Prompts = "own", pool: Pooling = "linear", blend: float = 0.0
) -> Wording:
    """Each expert's sentence: that of the objective it was trained for, if it was for one alone."""
    manifest = opened.library.manifest
    sentences = {objective.name: objective.instruction for objective in manifest.objectives}
    owner = {place: name for name, place in own_experts(manifest).items()}
    instructions = tuple(
        sentences[owner[place]] if place in owner else "" for place in range(len(manifest.experts))
    )
    return Wording(opened.base, instructions, prompts, pool, blend)


def own_experts(manifest: Manifest) -> dict[str, int]:
    """Objective to the place of the expert that was trained for it alone."""
    found: dict[str, int] = {}
    for place, record in enumerate(manifest.experts):
        for name, share in zip(manifest.objective_names, record.anchor.direction, strict=True):
            if share == 1.0:
                found.setdefault(name, place)
    return found


def strengths_for(manifest: Manifest, shares: Mapping[str, float]) -> tuple[float, ...]:
    """Shares by objective as strengths over the experts.

    Raises:
        InvalidPreferenceError: the shares are off the simplex or name an unknown objective.
        InvalidInputError: an objective that is wanted has no expert of its own.
    """
    wanted = Preference.from_mapping(shares, objectives=manifest.objective_names)
    owners = own_experts(manifest)
    strengths = [0.0] * len(manifest.experts)
    for name, share in zip(wanted.objectives, wanted.shares, strict=True):
        if share == 0.0:
            continue
        if name not in owners:
            raise InvalidPreferenceError(
                f"The objective {name!r} has no expert of its own to mix; it has one for "
                f"{', '.join(owners) or 'none'}."
            )
        strengths[owners[name]] = share
    return tuple(strengths)


def directions(manifest: Manifest) -> Float[ndarray, "experts objectives"]:
    """What each expert was trained for."""
    return np.array([record.anchor.direction for record in manifest.experts])


def experts_key(manifest: Manifest) -> str:
    """Hash of all experts' files, in bank order."""
    rows: list[Any] = [[r.anchor.name, dict(r.files)] for r in manifest.experts]
    return hash_value(rows)


def controller_folder(opened: Opened) -> Path:
    """Where the library's controller is or would be."""
    return opened.library.controller_folder
