"""What a comparison on the small world needs: users, and per seed a library and rivals.

    SEED/library       six experts, one per objective, as `palate demo` trains them; its soups,
                       methods and strength as measured by its build; a portfolio; its controller
    SEED/bespoke       one expert per user, trained for that user's preference
    SEED/conditioned   one adapter for everybody, trained with the preference in the prompt

All are trained with the same rewards; experts on the same rollouts, the conditioned policy on as
many answers of its own (`research.world.conditioned`). Each part is built by itself, so that
several processes can share the work.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from palate.build.calibration import calibrate_methods
from palate.build.library import build_library
from palate.build.mixture_fit import MixtureRun, fit_mixture
from palate.build.payoff_job import PayoffJobSettings, measure_payoffs
from palate.build.run_file import RunSettings
from palate.build.run_prompts import calibration_prompts, run_prompts
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed
from palate.core.settings import load_settings
from palate.evaluate.catalogue import BESPOKE, MIXTURE, PORTFOLIO, parse_name
from palate.evaluate.rivals import CONDITIONED
from palate.evaluate.suite import Suite, UserSettings
from palate.library.controller import has_controller, strengths_for, wording_of
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.portfolio import PORTFOLIO as PORTFOLIO_FILE
from palate.mixture.wording import MixtureRequest
from palate.portfolio.choice import PortfolioRequest
from palate.portfolio.payoff_file import save_payoffs
from palate.portfolio.select import select
from palate.portfolio.terms import Terms
from palate.training.anchors import AnchorSettings
from palate.training.save import PARAMETERS
from research.world.conditioned import fair_share, train_morl
from research.world.objectives import USERS
from research.world.prompts import train_prompts
from research.world.settings import world_run

QUICK_STEPS = 6
QUICK_POINTS = 6  # of the grid that methods are measured on: the corners
LIBRARY, CONTROLLER = "library", "controller"
N_MEMBERS = 4  # of the portfolio, out of the base and six experts
NO_PRICE = 1e-9  # of a nat: users are compared by reward alone
SHAPES = {
    "even": (1 / 3, 1 / 3, 1 / 3),
    "70/20/10": (0.7, 0.2, 0.1),
    "two": (0.5, 0.5),
}  # shares of a user's objectives, in their order


@dataclass(frozen=True)
class Libraries:
    """Folders of one seed; `None` is not there.

    Attributes:
        library: The experts.
        bespoke: One expert per user.
        conditioned: A PEFT folder.
    """

    library: Path
    bespoke: Path | None = None
    conditioned: Path | None = None


def world_users() -> tuple[UserSettings, ...]:
    """The world's eight tastes in three shapes; the three of one taste are one cluster."""
    return tuple(
        UserSettings(
            name=user.name if shape == "even" else f"{user.name} {shape}",
            preference={
                one.name: share for one, share in zip(user.objectives, shares, strict=False)
            },
            shape=shape,
            cluster=user.name,
        )
        for shape, shares in SHAPES.items()
        for user in USERS
    )


def world_parts(suite: Suite) -> dict[str, tuple[str, ...]]:
    """What the suite's methods need of each seed, with the parts that come before each.

    The library is first; the others do not need each other, and stand in the order of the time
    they take.
    """
    methods = {parse_name(name).method for name in suite.methods}
    needed = {CONDITIONED: CONDITIONED, BESPOKE: BESPOKE, CONTROLLER: MIXTURE}
    others = {part: (LIBRARY,) for part, method in needed.items() if method in methods}
    return {LIBRARY: (), **others}


def build_part(suite: Suite, part: str, *, seed: int, work: Path) -> None:
    """One part of one seed, built if it is missing; goes on where it was interrupted."""
    builders: dict[str, Callable[[Suite, int, Path], None]] = {
        LIBRARY: _build_library,
        BESPOKE: _build_bespoke,
        CONTROLLER: _fit_controller,
        CONDITIONED: _train_conditioned,
    }
    builders[part](suite, seed, work)


def world_libraries(suite: Suite, *, work: Path) -> Libraries:
    """Where the parts of one seed are, once they are built."""
    parts = world_parts(suite)
    return Libraries(
        work / LIBRARY,
        work / BESPOKE if BESPOKE in parts else None,
        work / CONDITIONED if CONDITIONED in parts else None,
    )


def _run(suite: Suite, *, seed: int) -> RunSettings:
    run = world_run(seed=seed)
    if not suite.is_quick:
        return run
    rollouts = run.rollouts.model_copy(update={"n_prompts": 24})
    training = run.training.model_copy(update={"max_steps": QUICK_STEPS})
    calibration = run.calibration.model_copy(update={"n_prompts": 8, "max_points": QUICK_POINTS})
    return run.model_copy(
        update={"rollouts": rollouts, "training": training, "calibration": calibration}
    )


def _build_library(suite: Suite, seed: int, work: Path) -> None:
    run = _run(suite, seed=seed)
    build_library(run, out=work / LIBRARY)
    if (work / LIBRARY / PORTFOLIO_FILE).is_file():
        return
    prompts = train_prompts()[: suite.n_development]
    settings = PayoffJobSettings(max_tokens=suite.max_tokens, seed=seed, beta=NO_PRICE)
    save_payoffs(work / "payoffs.json", measure_payoffs(work / LIBRARY, prompts, settings).payoffs)
    request, terms = PortfolioRequest(size=N_MEMBERS), Terms(criterion="additive")
    out = work / LIBRARY / PORTFOLIO_FILE
    select(work / "payoffs.json", request=request, terms=terms, out=out)
    calibrate_methods(
        Library.load(work / LIBRARY),
        calibration_prompts(run),
        settings=run.calibration,
        max_tokens=run.rollouts.max_completion_length,
        entries=((PORTFOLIO, 1),),
        seed=derive_seed(run.seed, "calibration"),
    )


def _build_bespoke(suite: Suite, seed: int, work: Path) -> None:
    """The same rollouts and rewards, experts for users instead of objectives."""
    if not (work / BESPOKE).exists():
        _share(LibraryFolder.open(work / LIBRARY), work / BESPOKE)
    listed = {_slug(user.name): dict(user.preference) for user in suite.users or world_users()}
    run = _run(suite, seed=seed)
    calibration = run.calibration.model_copy(update={"n_prompts": 8, "max_points": QUICK_POINTS})
    anchors = AnchorSettings(kind="list", listed=listed)
    settings = run.model_copy(update={"anchors": anchors, "calibration": calibration})
    build_library(settings, out=work / BESPOKE)


def _share(source: LibraryFolder, folder: Path) -> None:
    """A library with the rollouts and rewards of another, and no experts."""
    manifest = source.manifest
    bare = replace(manifest, experts=(), rewards={}, rollouts=None, controller=None)
    library = LibraryFolder.create(folder, bare)
    key = "" if manifest.rollouts is None else manifest.rollouts.key
    library = library.with_rollouts_begun(key=key).with_rollouts(
        key=key, write=lambda path: _copy_file(source.rollouts_path, path)
    )
    for name, part in manifest.rewards.items():
        fill = partial(_copy_folder, source.reward_folder(name))
        library = library.with_reward(name, fill, key=part.key)


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _copy_folder(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _slug(name: str) -> str:
    """A user's name as that of an expert."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower())


def _fit_controller(suite: Suite, seed: int, work: Path) -> None:
    library = Library.load(work / LIBRARY)
    if has_controller(library.files):
        return
    overrides = [*WORLD_OVERRIDES, f"fit.seed={seed}"]
    if suite.is_quick:
        overrides += ["fit.n_updates=2", "fit.n_pairs=8", "n_measured=2"]
    settings = load_settings(MixtureRun, overrides=overrides)
    users = suite.users or world_users()
    run = settings.model_copy(
        update={"combinations": tuple(dict(user.preference) for user in users)}
    )
    with progress_of(f"controller of seed {seed}, updates") as report:
        fit_mixture(library, run, on_update=report)


def _train_conditioned(suite: Suite, seed: int, work: Path) -> None:
    folder = work / CONDITIONED
    if (folder / PARAMETERS).is_file():
        return
    library = Library.load(work / LIBRARY)
    manifest = library.manifest
    users = suite.users or world_users()
    wishes = [strengths_for(manifest, user.preference) for user in users]
    prompts = run_prompts(_run(suite, seed=seed))
    asked = fair_share(library, [MixtureRequest(prompt, wish) for prompt in prompts for wish in wishes])
    wording = wording_of(manifest, library.base, prompts="full")
    train_morl(library, wording, asked, folder, seed=seed)
