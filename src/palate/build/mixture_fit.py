"""`palate mixture fit`: train a library's controller, and put it into the library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from palate.build.measure import measure_again
from palate.build.run_file import read_prompts
from palate.core.errors import InvalidInputError
from palate.core.files import write_versioned
from palate.core.protocols import Reward, SamplingParams
from palate.core.settings import Settings
from palate.engine.control import Controller
from palate.engine.local import LocalEngine
from palate.library.controller import (
    RUN_FILE,
    RUN_KIND,
    RUN_VERSION,
    strengths_for,
    wording_of,
)
from palate.library.library import Library
from palate.library.manifest import experts_key
from palate.library.opening import WORLD
from palate.library.rewards import library_rewards
from palate.mixture.controller import PreferenceController, new_controller
from palate.mixture.decode import ControlledDecoding
from palate.mixture.fit import Task, fit
from palate.mixture.monitors import Summary, summarise, warnings_of
from palate.mixture.rollout import CONTROLLER, Judge, References, Sample, sample
from palate.mixture.settings import FitSettings
from palate.mixture.static import StaticController, StaticDecoding
from palate.mixture.wording import Asked, Wording
from palate.models.processes import is_first, join_launch
from palate.rewards.reward import LearnedReward
from palate.world.objectives import USERS
from palate.world.prompts import train_prompts

TRAINING_FOLDER = "controller-training"

WORLD_OVERRIDES = (  # a fresh trunk of 0.2 M parameters that learns in minutes on one core
    "fit.prompts=full",  # better than each expert's own sentence on training prompts, docs/log.md
    "fit.blend=0.5",  # rows of one objective alone follow one wish per token, docs/mixture.md
    "fit.loss.eta=32.0",
    "fit.loss.price=0.03125",
    "fit.loss.is_replayed=true",
    "fit.trunk.hidden=64",
    "fit.trunk.layers=1",
    "fit.trunk.heads=2",
    "fit.trunk.feed_forward=128",
    "fit.n_updates=8",
    "fit.n_pairs=128",  # few large updates: small ones make the shares follow noise, docs/log.md
    "fit.n_epochs=2",
    "fit.batch_pairs=16",
    "fit.body_rate=1.0e-3",
    "fit.head_rate=3.0e-3",
    "fit.judge_temperature=4.0",
    "fit.max_tokens=80",
    "fit.checkpoint_every=1",
)

Shares = dict[str, float]  # objective to share


class MixtureRun(Settings):
    """What a controller is trained on.

    Attributes:
        prompts: JSONL with a column `prompt`, or `world`: the small world's training prompts.
        combinations: Preferences to train on, each a mapping of objectives to shares; empty are the
            small world's eight users.
        held_out: Preferences that are measured and never trained on; they are taken out of
            `combinations`.
        n_measured: Answers per measurement, before and after.
        fit: Sizes and rates.
    """

    prompts: str = WORLD
    combinations: tuple[Shares, ...] = ()
    held_out: tuple[Shares, ...] = ()
    n_measured: int = Field(default=96, ge=2)
    fit: FitSettings = FitSettings()


@dataclass(frozen=True, eq=False)
class LibraryLogOdds:
    """The library's rewards as log-odds, one column per expert.

    A learned reward gives its raw score; a rule has no log-odds, and its reward in [0, 1] stands in
    for them. An expert trained for several objectives gets their sum in its own direction.

    Attributes:
        rewards: In the order of the objectives.
        directions: `[experts, objectives]`.
    """

    rewards: tuple[Reward, ...]
    directions: Float[ndarray, "experts objectives"]

    def log_odds(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[ndarray, "texts experts"]:
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
    """A controller in its library, and what came of it.

    Attributes:
        folder: Of the controller.
        curves: One row per update.
        before: Summaries of the uniform mixture: `trained` and, if any, `held_out` combinations.
        after: The same of the controller.
        warnings: One sentence per monitor that speaks up.
        seconds: Wall clock.
        n_parameters: Of the controller.
        is_first: Whether this process wrote the files; under a launch of several one does.
    """

    folder: Path
    curves: list[dict[str, Any]]
    before: dict[str, Summary]
    after: dict[str, Summary]
    warnings: list[str]
    seconds: float
    n_parameters: int
    is_first: bool = True

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
    even = task_for(opened, run, StaticDecoding(StaticController(trained + held_out)), trained)
    sets = {"trained": trained, **({"held_out": held_out} if held_out else {})}
    before = {name: _measured(even, rows, run) for name, rows in sets.items()}
    after = {name: _measured(task, rows, run) for name, rows in sets.items()}
    library = opened.files
    if is_first():
        library = library.with_controller(
            lambda target: _fill(target, opened, controller, run, trained),
            key=experts_key(library.manifest),
        )
        measure_again(opened, entries=(("mixture", 1),))
    names = opened.manifest.expert_names
    warnings = [
        f"{name}: {sentence}"
        for name, summary in after.items()
        for sentence in warnings_of(
            summary,
            experts=names,
            uniform=before[name],
            density_gap=max(row["density_gap"] for row in curves),
        )
    ]
    seconds = monotonic() - start
    return FittedMixture(
        library.controller_folder,
        curves,
        before,
        after,
        warnings,
        seconds,
        controller.n_parameters,
        is_first=is_first(),
    )


def controller_for(opened: Library, settings: FitSettings) -> PreferenceController:
    """A new controller for the library's experts."""
    return new_controller(
        settings.trunk,
        experts=opened.manifest.expert_names,
        n_vocab=len(opened.base.tokenizer),
        tokenizer_fingerprint=opened.base.tokenizer_fingerprint,
        seed=settings.seed,
    )


def task_for(
    opened: Library,
    run: MixtureRun,
    decoding: Controller,
    combinations: tuple[tuple[float, ...], ...],
) -> Task:
    """What a controller of this library is trained on, with the given decoding in the engine."""
    manifest = opened.manifest
    wording = _wording(opened, run)
    engine = LocalEngine(
        opened.base, opened.bank, max_num_seqs=256, controllers={CONTROLLER: decoding}
    )
    rewards = library_rewards(opened.files).rewards
    judge = Judge(
        LibraryLogOdds(rewards, manifest.anchors()),
        References(engine, wording, max_tokens=run.fit.max_tokens),
        temperature=run.fit.judge_temperature,
        is_raw=run.fit.reward == "raw",
    )
    return Task(engine, wording, judge, _prompts(run.prompts), combinations)


def _wording(opened: Library, run: MixtureRun) -> Wording:
    fit_settings = run.fit
    return wording_of(
        opened.manifest,
        opened.base,
        prompts=fit_settings.prompts,
        pool=fit_settings.pool,
        blend=fit_settings.blend,
    )


def combinations_of(
    opened: Library, run: MixtureRun
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Strengths of the training combinations and of those held out.

    Raises:
        InvalidInputError: none is left to train on.
    """
    manifest = opened.manifest
    listed = run.combinations or tuple(
        {objective.name: 1.0 / len(user.objectives) for objective in user.objectives}
        for user in USERS
    )
    held_out = tuple(strengths_for(manifest, shares) for shares in run.held_out)
    trained = tuple(strengths_for(manifest, shares) for shares in listed)
    kept = tuple(row for row in trained if not any(np.allclose(row, other) for other in held_out))
    if not kept:
        raise InvalidInputError(
            "Every combination is held out, so none is left to train on; hold out fewer."
        )
    return kept, held_out


def fit_static(opened: Library, run: MixtureRun, *, folder: Path) -> StaticController:
    """The best constant shares for every combination, learned by the same loss and updates."""
    trained, held_out = combinations_of(opened, run)
    everything = trained + held_out
    controller = StaticController(everything)
    settings = run.fit.model_copy(update={"head_rate": 0.1})
    task = task_for(opened, run, StaticDecoding(controller), everything)
    fit(controller, task, settings, folder=folder)
    return controller


def _measured(task: Task, combinations: Sequence[tuple[float, ...]], run: MixtureRun) -> Summary:
    asked = [
        Asked(task.prompts[place % len(task.prompts)], combinations[place % len(combinations)])
        for place in range(run.n_measured)
    ]
    return summarise(measure(task, asked, run))


def measure(task: Task, asked: Sequence[Asked], run: MixtureRun) -> list[Sample]:
    """Answers under the task's controller, judged; the same seeds for every controller."""
    sampling = SamplingParams(temperature=1.0, max_tokens=run.fit.max_tokens)
    return sample(
        task.engine, task.wording, task.judge, asked, sampling=sampling, seed=run.fit.seed
    )


def _prompts(source: str) -> tuple[str, ...]:
    return train_prompts() if source == WORLD else read_prompts(Path(source))


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
