"""All methods and their rivals on the small world: `python -m research.world.board`.

    seedN/library       six experts, one per objective; its soups, methods and strength as measured
                        by its build; a portfolio; its controller
    seedN/bespoke       one expert per user, trained for that user's preference
    seedN/conditioned   one adapter for everybody, trained with the preference in the prompt

All are trained with the same rewards; experts on the same rollouts, the conditioned policy on as
many answers of its own (`research.world.conditioned`). The parts of all seeds are built first, by
several processes, and then compared as `palate evaluate` compares methods; the gold rules judge.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from os import cpu_count
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from palate.build.calibration import calibrate_methods
from palate.build.library import build_library
from palate.build.mixture_fit import fit_mixture
from palate.build.payoff_job import PayoffJobSettings, measure_payoffs
from palate.build.run_file import RunSettings, calibration_prompts, run_prompts
from palate.core.files import dump_json, write_json
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.evaluate.catalogue import MIXTURE, PORTFOLIO, parse_name
from palate.evaluate.context import Context, suite_context
from palate.evaluate.evaluation import Evaluated, compare
from palate.evaluate.facts import N_NEUTRAL
from palate.evaluate.rows import plain
from palate.evaluate.suite import JudgeSettings, Suite, UserSettings
from palate.evaluate.work import worker_pool
from palate.library.controller import has_controller, strengths_for, wording_of
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.portfolio import PORTFOLIO as PORTFOLIO_FILE
from palate.mixture.wording import MixtureRequest
from palate.portfolio.choice import PortfolioRequest
from palate.portfolio.payoff_file import save_payoffs
from palate.portfolio.route import select
from palate.portfolio.terms import Terms
from palate.training.anchors import AnchorSettings
from palate.training.save import PARAMETERS
from research.command_line import IsJson, Seeds, run, whole_numbers
from research.soup.rivals import (
    BESPOKE,
    PERSONALISED,
    OwnExpert,
    percent_of_bespoke,
    personalised_library,
)
from research.world.conditioned import (
    CONDITIONED,
    Conditioned,
    conditioned_library,
    fair_share,
    train_morl,
)
from research.world.grammar import sample_answer, sample_style
from research.world.objectives import USERS
from research.world.prompts import MAX_ANSWER_TOKENS, held_out_prompts, prompts_about, train_prompts
from research.world.safety_floor import FloorStudy, evaluate_floor, render_floor
from research.world.settings import Annotation, world_mixture, world_run
from research.world.topics import HELD_OUT_TOPICS

BOARD_METHODS = (
    "base",
    "prompt",
    "prompt+best-of-4",
    "prompted-soup",
    "prompted-soup+best-of-4",
    "auto",
    "portfolio",
    "soup",
    "output-soup",
    "implicit-soup",
    "mixture",
    "rewarded-soup",
    "mod",
    "personalised-soup",
    "conditioned",
    "soup@5",
    "soup@20",
    "auto@20",
)
SAFETY_METHODS = (
    "base",
    "prompt",
    "best-of-n",
    "portfolio",
    "soup",
    "prompted-soup",
    "output-soup",
    "implicit-soup",
    "mixture",
    "auto",
)
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
GOLD = JudgeSettings(kind="function", function="research.world.gold:judge")
NO_HARM = (
    "\nThe small world has no harm: the objective stands in for harmlessness, and half of the "
    "users do not want it.\n"
)


@dataclass(frozen=True)
class Board:
    """How large the comparison is."""

    out: Path  # folder of libraries, results and report
    methods: tuple[str, ...] = BOARD_METHODS
    seeds: tuple[int, ...] = (0, 1, 2)  # one library each
    n_prompts: int = 16  # held-out ones
    n_development: int = 32  # training prompts on which the portfolio is chosen
    is_quick: bool = False  # build small things that only show that everything runs

    def quick(self) -> "Board":
        """The same in small: one seed, one prompt, libraries trained for a few steps."""
        return replace(self, seeds=self.seeds[:1], n_prompts=1, n_development=4, is_quick=True)

    @property
    def suite(self) -> Suite:
        """What is compared on every seed's library."""
        return Suite(
            users=world_users(),
            prompts=held_out_prompts(),
            n_prompts=self.n_prompts,
            methods=self.methods,
            seeds=self.seeds,
            judge=GOLD,
            max_tokens=MAX_ANSWER_TOKENS,
        )


def run_board(board: Board, *, n_workers: int = 1) -> Evaluated:
    """Build what is missing, answer, judge, compare, and write the report; resumes.

    Raises:
        InvalidInputError: the folder holds results of another board.
        PalateError: a process ended by itself.
    """
    start = monotonic()
    build_parts(board, n_workers=n_workers)
    suite = board.suite
    content = {"library": "the small world", "is_quick": board.is_quick}
    content |= {**suite.model_dump(mode="json"), "judge": {"kind": "gold"}}
    parts = partial(board_context, board)
    done = compare(suite, parts, content=content, out=board.out, n_workers=n_workers)
    shares = percent_of_bespoke(done[1].report.cells)
    if shares:
        write_json(board.out / "bespoke.json", plain(shares))
    return Evaluated(*done, monotonic() - start)


def floor_of(board: Board, objective: str) -> FloorStudy:
    """What a safety floor on the objective's expert does to the methods of the first seed."""
    board = replace(board, methods=SAFETY_METHODS, seeds=board.seeds[:1])
    build_parts(board, n_workers=1)
    library = _work(board, board.seeds[0]) / LIBRARY
    return evaluate_floor(library, board.suite, objective, out=board.out)


def board_context(board: Board, seed: int) -> Context:
    """The parts of one seed, once they are built."""
    work = _work(board, seed)
    context = suite_context(board.suite, work / LIBRARY, seed)
    context.task = replace(context.task, judge="gold")
    context.neutral = _neutral()
    named = {parse_name(name).method for name in board.methods}
    libraries: dict[str, Library] = {}
    if PERSONALISED in named:
        libraries[PERSONALISED] = personalised_library(context.library, context.task.users)
    if BESPOKE in named:
        libraries[BESPOKE] = Library.load(work / BESPOKE)
    context.per_user = tuple(libraries)
    context.own = {name: OwnExpert(name) for name in libraries}
    if CONDITIONED in named:
        context.own = {**context.own, CONDITIONED: Conditioned(context.library)}
        libraries[CONDITIONED] = conditioned_library(context.library, work / CONDITIONED)
    context.libraries = libraries
    return context


def world_users() -> tuple[UserSettings, ...]:
    """The world's eight preferences in three shapes; the three of one preference are a cluster."""
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


def world_parts(methods: tuple[str, ...]) -> tuple[str, ...]:
    """What the methods need of each seed: the library, then what is built from it."""
    named = {parse_name(name).method for name in methods}
    needed = {CONDITIONED: CONDITIONED, BESPOKE: BESPOKE, CONTROLLER: MIXTURE}
    return (LIBRARY, *(part for part, method in needed.items() if method in named))


def build_parts(board: Board, *, n_workers: int) -> None:
    """The parts of all seeds, built where they are missing: libraries first, then the others."""
    library, *others = world_parts(board.methods)
    for parts in ([library], others):
        jobs = list(product(parts, board.seeds))
        if n_workers == 1 or len(jobs) < 2:
            for part, seed in jobs:
                build_part(board, part, seed)
            continue
        with worker_pool(n_workers) as pool:
            futures = [pool.submit(build_part, board, part, seed) for part, seed in jobs]
            for future in futures:
                future.result()


def build_part(board: Board, part: str, seed: int) -> None:
    """One part of one seed, built if it is missing; goes on where it was interrupted."""
    builders: dict[str, Callable[[Board, int, Path], None]] = {
        LIBRARY: _build_library,
        BESPOKE: _build_bespoke,
        CONTROLLER: _fit_controller,
        CONDITIONED: _train_conditioned,
    }
    builders[part](board, seed, _work(board, seed))


def _work(board: Board, seed: int) -> Path:
    return board.out / f"seed{seed}"


def _run(board: Board, seed: int, work: Path) -> RunSettings:
    if not board.is_quick:
        return world_run(work, seed=seed)
    found = world_run(work, seed=seed, annotation=Annotation(n_prompts=24, n_pairs=300))
    training = found.training.model_copy(update={"max_steps": QUICK_STEPS})
    calibration = found.calibration.model_copy(update={"n_prompts": 8, "max_points": QUICK_POINTS})
    return found.model_copy(update={"training": training, "calibration": calibration})


def _build_library(board: Board, seed: int, work: Path) -> None:
    settings = _run(board, seed, work)
    build_library(settings, out=work / LIBRARY)
    if (work / LIBRARY / PORTFOLIO_FILE).is_file():
        return
    prompts = train_prompts()[: board.n_development]
    job = PayoffJobSettings(max_tokens=MAX_ANSWER_TOKENS, seed=seed, beta=NO_PRICE)
    save_payoffs(work / "payoffs.json", measure_payoffs(work / LIBRARY, prompts, job).payoffs)
    request, terms = PortfolioRequest(size=N_MEMBERS), Terms(criterion="additive")
    out = work / LIBRARY / PORTFOLIO_FILE
    select(work / "payoffs.json", request=request, terms=terms, out=out)
    calibrate_methods(
        Library.load(work / LIBRARY),
        calibration_prompts(settings),
        settings=settings.calibration,
        max_tokens=settings.rollouts.max_completion_length,
        entries=((PORTFOLIO, 1),),
        seed=derive_seed(settings.seed, "calibration"),
    )


def _build_bespoke(board: Board, seed: int, work: Path) -> None:
    """The same rollouts and rewards, experts for users instead of objectives."""
    if not (work / BESPOKE).exists():
        _share(LibraryFolder.open(work / LIBRARY), work / BESPOKE)
    listed = {_slug(user.name): dict(user.preference) for user in world_users()}
    found = _run(board, seed, work)
    calibration = found.calibration.model_copy(update={"n_prompts": 8, "max_points": QUICK_POINTS})
    anchors = AnchorSettings(kind="list", listed=listed)
    settings = found.model_copy(update={"anchors": anchors, "calibration": calibration})
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


def _fit_controller(board: Board, seed: int, work: Path) -> None:
    library = Library.load(work / LIBRARY)
    if has_controller(library.files):
        return
    quick = ["fit.n_updates=2", "fit.n_pairs=8", "n_measured=2"] if board.is_quick else []
    run = world_mixture([f"fit.seed={seed}", *quick]).model_copy(
        update={"combinations": tuple(dict(user.preference) for user in world_users())}
    )
    with progress_of(f"controller of seed {seed}, updates") as report:
        fit_mixture(library, run, on_update=report)


def _train_conditioned(board: Board, seed: int, work: Path) -> None:
    folder = work / CONDITIONED
    if (folder / PARAMETERS).is_file():
        return
    library = Library.load(work / LIBRARY)
    manifest = library.manifest
    strengths = [strengths_for(manifest, user.preference) for user in world_users()]
    prompts = run_prompts(_run(board, seed, work))
    requests = [MixtureRequest(prompt, row) for prompt in prompts for row in strengths]
    wording = wording_of(manifest, library.base, prompts="full")
    train_morl(library, wording, fair_share(library, requests), folder, seed=seed)


def _neutral() -> tuple[tuple[str, str], ...]:
    """Held-out prompts with answers that the grammar gives without preference sentences."""
    generator = generator_for(0, "neutral")
    pairs: list[tuple[str, str]] = []
    for place in generator.integers(len(HELD_OUT_TOPICS), size=N_NEUTRAL):
        topic = HELD_OUT_TOPICS[int(place)]
        text = sample_answer(topic, sample_style(generator), generator).text
        pairs.append((prompts_about(topic)[0], text))
    return tuple(pairs)


def main(  # noqa: PLR0913  a command's options are its parameters
    *,
    seeds: Seeds = "0,1,2",
    n_prompts: Annotated[int, typer.Option("--prompts", help="Held-out prompts.")] = 16,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="One seed, one prompt: shows that everything runs.")
    ] = False,
    safety: Annotated[
        str | None,
        typer.Option(help="Objective: what a safety floor on its expert does to every method."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of libraries, results and report.")] = Path(
        "out/world"
    ),
    is_json: IsJson = False,
) -> None:
    """All methods and their rivals on the small world, with libraries built anew; resumes."""
    board = Board(out, seeds=whole_numbers(seeds, what="seeds"), n_prompts=n_prompts)
    board = board.quick() if is_quick else board
    n_workers = workers or cpu_count() or 1
    if safety is not None:
        study = floor_of(board, safety)
        typer.echo(dump_json(plain(study)) if is_json else render_floor(study) + NO_HARM)
        return
    done = run_board(board, n_workers=n_workers)
    for note in done.results.notes:
        typer.echo(f"palate: {note}", err=True)
    typer.echo(dump_json(done.to_json()) if is_json else done.evaluation.markdown)


if __name__ == "__main__":
    run(main)
