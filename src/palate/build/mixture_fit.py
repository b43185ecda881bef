"""`palate mixture fit`: train a library's controller, and put it into the library."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field

from palate.build.measure import measure_again
from palate.build.run_file import Prompts, read_prompts
from palate.core.errors import InvalidInputError
from palate.core.files import write_versioned
from palate.core.protocols import Reward
from palate.core.settings import Settings
from palate.engine.control import Controller
from palate.engine.local import LocalEngine
from palate.library.controller import RUN_FILE, RUN_KIND, RUN_VERSION, strengths_for, wording_of
from palate.library.library import Library
from palate.library.manifest import experts_key
from palate.library.rewards import library_rewards
from palate.mixture.controller import PreferenceController, new_controller
from palate.mixture.decode import ControlledDecoding
from palate.mixture.monitors import Summary, summarise, warnings_of
from palate.mixture.mope import fit
from palate.mixture.rollout import CONTROLLER, Judge, References, Task, sample
from palate.mixture.settings import FitSettings
from palate.mixture.wording import MixtureRequest
from palate.models.processes import is_first, join_launch
from palate.rewards.reward import LearnedReward
from palate.rewards.texts import messages_of
from palate.training.rollouts import read_rollouts

TRAINING_FOLDER = "controller-training"

Shares = dict[str, float]  # objective to share


class MixtureRun(Settings):
    """What a controller is trained on."""

    prompts: Prompts | None = None  # file or list; by default the library's own training prompts
    # preferences to train on, each a mapping of objectives to shares; by default every objective
    # alone and every two in equal shares
    combinations: tuple[Shares, ...] = ()
    held_out: tuple[Shares, ...] = ()  # measured, never trained on; taken out of `combinations`
    n_measured: int = Field(default=96, ge=2)  # answers per measurement, before and after
    fit: FitSettings = FitSettings()  # sizes and rates


@dataclass(frozen=True, eq=False)
class LibraryLogOdds:
    """The library's rewards as log-odds, one column per expert.

    A learned reward gives its raw score; a rule has no log-odds, and its reward in [0, 1] stands in
    for them. An expert trained for several objectives gets their sum in its own direction.
    """

    rewards: tuple[Reward, ...]  # in the order of the objectives
    directions: Float[np.ndarray, "experts objectives"]  # `[experts, objectives]`

    def log_odds(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[np.ndarray, "texts experts"]:
        """`[texts, experts]`."""
        columns = [
            reward.raw(prompts, answers)
            if isinstance(reward, LearnedReward)
            else reward.score(prompts, answers)
            for reward in self.rewards
        ]
        return np.stack(columns, axis=1) @ self.directions.T


@dataclass(frozen=True, eq=False)
class FittedMixture:
    """A trained controller in its library."""

    folder: Path  # the controller's folder
    curves: list[dict[str, Any]]  # one row per update
    before: dict[str, Summary]  # of the uniform mixture: `trained` and, if any, `held_out`
    after: dict[str, Summary]  # the same of the controller
    warnings: list[str]  # one sentence per monitor that is out of range
    seconds: float  # wall clock
    n_parameters: int  # size of the controller
    is_first: bool = True  # whether this process wrote the files; in a launch of several one does

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {
            "folder": str(self.folder),
            "parameters": self.n_parameters,
            "seconds": round(self.seconds, 1),
            "before": {name: one.to_json() for name, one in self.before.items()},
            "after": {name: one.to_json() for name, one in self.after.items()},
            "warnings": self.warnings,
            "updates": len(self.curves),
        }


def fit_mixture(
    opened: Library,
    run: MixtureRun,
    *,
    on_update: Callable[[int, int], None] = lambda _done, _all: None,
) -> FittedMixture:
    """Train the library's controller; an interrupted run goes on from its last checkpoint.

    Raises:
        InvalidInputError: no combination is left to train on, or an objective has no expert.
        FormatError: the training folder holds a run with other settings.
    """
    start = monotonic()
    join_launch(opened.base.device)
    controller = controller_for(opened, run.fit)
    trained, held_out = combinations_of(opened, run)
    task = task_for(opened, run, ControlledDecoding(controller, opened.base), trained)
    curves = fit(
        controller,
        task,
        run.fit,
        folder=opened.files.folder / TRAINING_FOLDER,
        on_update=lambda done, _row: on_update(done, run.fit.n_updates),
    )
    sets = {"trained": trained, **({"held_out": held_out} if held_out else {})}
    before = {name: _measured(task, rows, run, is_uniform=True) for name, rows in sets.items()}
    after = {name: _measured(task, rows, run) for name, rows in sets.items()}
    library = opened.files
    if is_first():
        library = library.with_controller(
            lambda target: _fill(target, opened, controller, run, trained),
            key=experts_key(library.manifest),
        )
        measure_again(opened, entries=(("mixture", 1),))
    warnings = [
        f"{name}: {sentence}"
        for name, summary in after.items()
        for sentence in warnings_of(
            summary,
            experts=opened.manifest.expert_names,
            uniform=before[name],
            density_gap=max(row["density_gap"] for row in curves),
        )
    ]
    folder, size, seconds = library.controller_folder, controller.n_parameters, monotonic() - start
    return FittedMixture(
        folder, curves, before, after, warnings, seconds, size, is_first=is_first()
    )


def controller_for(opened: Library, settings: FitSettings) -> PreferenceController:
    """A new controller for the library's experts."""
    return new_controller(
        settings.trunk,
        experts=opened.manifest.expert_names,
        n_vocab=len(opened.base.tokenizer),
        tokenizer_fingerprint=opened.base.tokenizer_fingerprint,
        seed=settings.seed,
        base=opened.base.model,
    )


def task_for(
    opened: Library,
    run: MixtureRun,
    decoding: Controller,
    combinations: tuple[tuple[float, ...], ...],
) -> Task:
    """The training task of a controller of this library, with its decoding in the engine."""
    manifest, settings = opened.manifest, run.fit
    wording = wording_of(
        manifest, opened.base, prompts=settings.prompts, pool=settings.pool, blend=settings.blend
    )
    engine = LocalEngine(
        opened.base, opened.bank, max_num_seqs=256, controllers={CONTROLLER: decoding}
    )
    rewards = library_rewards(opened.files).rewards
    judge = Judge(
        LibraryLogOdds(rewards, manifest.anchors()),
        References(engine, wording, max_tokens=settings.max_tokens),
        temperature=settings.judge_temperature,
        is_raw=settings.reward == "raw",
    )
    if run.prompts is not None:
        prompts = read_prompts(run.prompts)
    else:
        rows = read_rollouts(opened.files.rollouts_path, objectives=manifest.objective_names)
        prompts = tuple(dict.fromkeys(row.prompt for row in rows))
    return Task(engine, wording, judge, prompts, combinations)


def combinations_of(
    opened: Library, run: MixtureRun
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Strengths of trained and held-out combinations; InvalidInputError where none is trained."""
    manifest = opened.manifest
    listed = run.combinations or tuple(
        dict.fromkeys(some, 1.0 / len(some))
        for n in (1, 2)
        for some in itertools.combinations(manifest.objective_names, n)
    )
    held_out = tuple(strengths_for(manifest, shares) for shares in run.held_out)
    trained = tuple(strengths_for(manifest, shares) for shares in listed)
    trained = tuple(row for row in trained if not any(np.allclose(row, o) for o in held_out))
    if not trained:
        raise InvalidInputError(
            "Every combination is held out, so none is left to train on; hold out fewer."
        )
    return trained, held_out


def _measured(
    task: Task,
    combinations: Sequence[tuple[float, ...]],
    run: MixtureRun,
    *,
    is_uniform: bool = False,
) -> Summary:
    """Answers are sampled with the same seeds under the controller and under equal shares."""
    requests = [
        MixtureRequest(
            messages_of(task.prompts[place % len(task.prompts)]),
            combinations[place % len(combinations)],
        )
        for place in range(run.n_measured)
    ]
    samples = sample(
        task, requests, sampling=run.fit.sampling, seed=run.fit.seed, is_uniform=is_uniform
    )
    return summarise(samples)


def _fill(
    target: Path,
    opened: Library,
    controller: PreferenceController,
    run: MixtureRun,
    trained: tuple[tuple[float, ...], ...],
) -> None:
    controller.save(target)
    content = {
        "experts": experts_key(opened.manifest),
        "settings": run.model_dump(mode="json"),
        "combinations": [list(row) for row in trained],
    }
    write_versioned(target / RUN_FILE, kind=RUN_KIND, version=RUN_VERSION, content=content)
