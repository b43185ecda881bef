"""A library's controller, loaded from its folder, with the prompts of experts and controller."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from palate.core.errors import FormatError, InvalidInputError, InvalidPreferenceError
from palate.core.files import read_versioned, reading
from palate.core.simplex import vector_from_mapping
from palate.engine.control import Controller
from palate.library.folder import LibraryFolder
from palate.library.manifest import Manifest, experts_key
from palate.library.safety_floor import Floor
from palate.mixture.controller import load_controller
from palate.mixture.decode import ControlledDecoding, DecodeSettings
from palate.mixture.pooling import Floor as ShareFloor
from palate.mixture.wording import Pooling, Prompts, Wording
from palate.models.load import Base

RUN_FILE = "run.json"
RUN_KIND, RUN_VERSION = "palate.mixture-run", 1


@dataclass(frozen=True, eq=False)
class LibraryController:
    """What is needed to answer under a library's controller."""

    wording: Wording  # the prompts of experts and controller
    decoding: Controller  # for engines, with the safety floor
    trained: tuple[tuple[float, ...], ...]  # combinations: strengths over the experts

    def is_trained_on(self, strengths: tuple[float, ...]) -> bool:
        """Whether the controller was trained on the combination."""
        return any(np.allclose(strengths, row, atol=1e-4) for row in self.trained)


def open_controller(
    files: LibraryFolder, base: Base, *, floor: Floor | None = None
) -> LibraryController | None:
    """The controller that `palate mixture fit` put into the library, with the safety floor.

    `None` where there is none, or one of other experts (`require_controller` says which).
    """
    if not has_controller(files):
        return None
    folder = files.controller_folder
    run = read_versioned(folder / RUN_FILE, kind=RUN_KIND, version=RUN_VERSION)
    with reading(folder / RUN_FILE, remedy="fit the controller anew"):
        if run["experts"] != experts_key(files.manifest):
            return None
        fit = run["settings"]["fit"]
        prompts, pool = fit["prompts"], fit.get("pool", "linear")
        blend = float(fit.get("blend", 0.0))
        trained = tuple(tuple(map(float, row)) for row in run["combinations"])
    controller = load_controller(folder, base=base.model)
    share = None if floor is None else ShareFloor(floor.expert, floor.share)
    return LibraryController(
        wording=wording_of(files.manifest, base, prompts=prompts, pool=pool, blend=blend),
        decoding=ControlledDecoding(controller, base, settings=DecodeSettings(floor=share)),
        trained=trained,
    )


def require_controller(
    controller: LibraryController | None, files: LibraryFolder
) -> LibraryController:
    """The controller, if there is one.

    Raises:
        InvalidInputError: the library has none.
        FormatError: the one it has was trained for other experts.
    """
    if controller is not None:
        return controller
    if has_controller(files):
        raise FormatError(
            f"The controller of the library {files.folder.name!r} was trained for other experts "
            "than it has now; fit it again with 'palate mixture fit'."
        )
    raise InvalidInputError(
        f"The library {files.folder.name!r} has no controller; make one with "
        "'palate mixture fit', or use another method."
    )


def has_controller(files: LibraryFolder) -> bool:
    """Whether the library has a trained controller."""
    return (files.controller_folder / RUN_FILE).is_file()


def wording_of(
    manifest: Manifest,
    base: Base,
    *,
    prompts: Prompts = "own",
    pool: Pooling = "linear",
    blend: float = 0.0,
) -> Wording:
    """Each expert's sentence: that of the objective it was trained for, if it was for one alone."""
    sentences = {objective.name: objective.instruction for objective in manifest.objectives}
    owner = {place: name for name, place in own_experts(manifest).items()}
    instructions = tuple(
        sentences[owner[place]] if place in owner else "" for place in range(len(manifest.experts))
    )
    return Wording(base, instructions, prompts, pool, blend)


def own_experts(manifest: Manifest) -> dict[str, int]:
    """By objective, the place of the expert that was trained for it alone."""
    places: dict[str, int] = {}
    for place, record in enumerate(manifest.experts):
        for name, share in zip(manifest.objective_names, record.anchor.direction, strict=True):
            if share == 1.0:
                places.setdefault(name, place)
    return places


def strengths_for(manifest: Manifest, shares: Mapping[str, float]) -> tuple[float, ...]:
    """Shares by objective as strengths over the experts.

    Raises:
        InvalidPreferenceError: the shares are off the simplex, name an unknown objective, or one
            without an expert of its own.
    """
    wanted = vector_from_mapping(shares, objectives=manifest.objective_names).tolist()
    owners = own_experts(manifest)
    strengths = [0.0] * len(manifest.experts)
    for name, share in zip(manifest.objective_names, wanted, strict=True):
        if share == 0.0:
            continue
        if name not in owners:
            raise InvalidPreferenceError(
                f"The objective {name!r} has no expert of its own to mix; it has one for "
                f"{', '.join(owners) or 'none'}."
            )
        strengths[owners[name]] = share
    return tuple(strengths)
