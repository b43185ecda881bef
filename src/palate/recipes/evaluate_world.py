"""What a comparison on the small world needs: per seed a library, bespoke experts, and rivals.

    SEED/library       six experts, one per objective, as `palate demo` trains them; its controller
    SEED/bespoke       one expert per person, trained for that person's preference: the ceiling
    SEED/conditioned   one adapter for everybody, trained with the preference in the prompt

All are trained with the same rewards; experts on the same rollouts, the conditioned policy on as
many answers of its own (`palate.recipes.mixture_morl`). Each part is built by itself, so that
several processes can share the work.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palate.core.files import write_folder_atomic
from palate.core.settings import load_settings
from palate.evaluate.suite import PersonSettings, Suite
from palate.experts.anchors import AnchorSettings
from palate.experts.save import PARAMETERS
from palate.mixture.wording import Asked
from palate.recipes.build import build_library
from palate.recipes.mixture_fit import WORLD_OVERRIDES, MixtureRun, fit_mixture
from palate.recipes.mixture_morl import fair_share, train_morl
from palate.recipes.mixture_open import has_controller, strengths_for, wording_of
from palate.recipes.opened import open_library
from palate.recipes.progress import progress_of
from palate.recipes.run_file import RunSettings
from palate.recipes.workshop import run_prompts
from palate.recipes.world_run import world_run
from palate.world.objectives import PEOPLE

QUICK_STEPS = 6
LIBRARY = "library"


@dataclass(frozen=True)
class Libraries:
    """Folders of one seed; `None` is not there.

    Attributes:
        library: The experts.
        bespoke: One expert per person, named after them in lower case.
        conditioned: A PEFT folder.
    """

    library: Path
    bespoke: Path | None
    conditioned: Path | None


def world_people() -> tuple[PersonSettings, ...]:
    """The world's eight."""
    return tuple(
        PersonSettings(
            name=person.name,
            preference={one.name: 1.0 / len(person.objectives) for one in person.objectives},
            instruction=person.instruction,
        )
        for person in PEOPLE
    )


def world_parts(suite: Suite) -> tuple[str, ...]:
    """What the suite's ways need of each seed; the library first, on which the others stand.

    The others do not need each other, and stand in the order of the time they take.
    """
    needed = {
        "conditioned": "conditioned" in suite.ways,
        "bespoke": any(way.startswith("bespoke") for way in suite.ways),
        "controller": "mixture" in suite.ways,
    }
    return (LIBRARY, *(name for name, is_needed in needed.items() if is_needed))


def build_part(suite: Suite, part: str, *, seed: int, work: Path) -> None:
    """One part of one seed, built if it is missing; goes on where it was interrupted."""
    builders: dict[str, Callable[[Suite, int, Path], None]] = {
        LIBRARY: _build_library,
        "bespoke": _build_bespoke,
        "controller": _fit_controller,
        "conditioned": _train_conditioned,
    }
    builders[part](suite, seed, work)


def world_libraries(suite: Suite, *, work: Path) -> Libraries:
    """Where the parts of one seed are, once they are built."""
    parts = world_parts(suite)
    return Libraries(
        work / LIBRARY,
        work / "bespoke" if "bespoke" in parts else None,
        work / "conditioned" if "conditioned" in parts else None,
    )


def _run(suite: Suite, *, seed: int) -> RunSettings:
    run = world_run(seed=seed)
    if not suite.is_quick:
        return run
    rollouts = run.rollouts.model_copy(update={"n_prompts": 24})
    training = run.training.model_copy(update={"n_steps": QUICK_STEPS})
    return run.model_copy(update={"rollouts": rollouts, "training": training})


def _build_library(suite: Suite, seed: int, work: Path) -> None:
    library, bespoke = work / LIBRARY, work / "bespoke"
    build_library(_run(suite, seed=seed), out=library)
    if "bespoke" in world_parts(suite) and not bespoke.exists():
        # rollouts and rewards are shared; copied now, while nobody changes the library
        write_folder_atomic(
            bespoke, lambda target: shutil.copytree(library, target, dirs_exist_ok=True) and None
        )


def _build_bespoke(suite: Suite, seed: int, work: Path) -> None:
    """The same rollouts and rewards, experts for people instead of objectives."""
    people = suite.people or world_people()
    listed = {person.name.lower(): dict(person.preference) for person in people}
    anchors = AnchorSettings(kind="list", listed=listed)
    run = _run(suite, seed=seed).model_copy(update={"anchors": anchors})
    build_library(run, out=work / "bespoke")


def _fit_controller(suite: Suite, seed: int, work: Path) -> None:
    opened = open_library(work / LIBRARY)
    if has_controller(opened):
        return
    overrides = [*WORLD_OVERRIDES, f"fit.seed={seed}"]
    if suite.is_quick:
        overrides += ["fit.n_updates=2", "fit.n_pairs=8", "n_measured=2"]
    settings = load_settings(MixtureRun, overrides=overrides)
    people = suite.people or world_people()
    told = settings.model_copy(
        update={"combinations": tuple(dict(person.preference) for person in people)}
    )
    with progress_of(f"controller of seed {seed}, updates") as report:
        fit_mixture(opened, told, on_update=report)


def _train_conditioned(suite: Suite, seed: int, work: Path) -> None:
    folder = work / "conditioned"
    if (folder / PARAMETERS).is_file():
        return
    opened = open_library(work / LIBRARY)
    manifest = opened.library.manifest
    wishes = [
        strengths_for(manifest, person.preference) for person in suite.people or world_people()
    ]
    prompts = run_prompts(_run(suite, seed=seed))
    asked = fair_share(opened, [Asked(prompt, wish) for prompt in prompts for wish in wishes])
    train_morl(opened, wording_of(opened, prompts="full"), asked, folder, seed=seed)
