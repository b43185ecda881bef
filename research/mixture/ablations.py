"""What each part of the controller's training is worth: one thing changed at a time, one seed.

Every variant is trained on the same prompts with the same number of samples as the library's own
controller (`rebel`), and answers the same held-out prompts with the same seeds, judged by the gold
rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library
from palate.build.mixture_fit import (
    MixtureRun,
    combinations_of,
    controller_for,
    task_for,
)
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.library.controller import wording_of
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.mixture.controller import PreferenceController, load_controller
from palate.mixture.decode import ControlledDecoding
from palate.mixture.mope import fit
from research.mixture.rivals import Entrant, controlled_entrant, uniform_entrant
from research.mixture.verdicts import Compared, rates_of, verdicts, wanted_mean
from research.mixture.win_rates import (
    OURS,
    MixtureStudySettings,
    answered,
    compared_prompts,
    curves_of,
    library_of,
    seeded,
)
from research.world.objectives import USERS
from research.world.settings import world_mixture

HELD_OUT = ("Bilal", "Goro")  # opposite corners: every objective is still wanted by three others
REBEL, UNIFORM = "rebel", "uniform"
_PLAIN = ("fit.loss.is_replayed=false", "fit.loss.price=0", "fit.n_epochs=5")
VARIANTS: dict[str, tuple[str, ...]] = {
    "ppo": (*_PLAIN, "fit.loss.method=ppo"),
    "rebel-without-replay": (*_PLAIN, "fit.loss.eta=16.0"),
    "one-expert-rows": ("fit.blend=0",),
    "own-prompts": ("fit.prompts=own",),
    "raw-reward": ("fit.reward=raw",),
    "log-linear": ("fit.pool=log_linear",),
    "six-of-eight": (),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small-trunk": ("fit.trunk.hidden=16", "fit.trunk.feed_forward=32"),
    "large-trunk": ("fit.trunk.hidden=96", "fit.trunk.layers=3", "fit.trunk.feed_forward=256"),
}
UNTRAINED = {"uniform-log-linear": "log-linear", "uniform-own-prompts": "own-prompts"}


@dataclass(frozen=True)
class AblationRow:
    """One variant in numbers.

    Attributes:
        wanted: Mean gold reward of what the user wants.
        difference: The same minus that of `rebel`, paired; `None` for `rebel`.
        wins: Wins against `rebel` among decided comparisons; `None` for `rebel`.
        reward: Mean training reward over the last tenth of the updates; `None` if not trained.
        entropy: Mean entropy of the shares over the same, nats.
        n_parameters: Of the controller.
    """

    wanted: Interval
    difference: Interval | None
    wins: Interval | None
    reward: float | None
    entropy: float | None
    n_parameters: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "wanted": self.wanted.to_json(),
            "difference": self.difference and self.difference.to_json(),
            "wins": self.wins and self.wins.to_json(),
            "reward": self.reward,
            "entropy": self.entropy,
            "n_parameters": self.n_parameters,
        }


@dataclass(frozen=True)
class Ablations:
    """All variants of one seed.

    Attributes:
        seed: Of the library.
        n_comparisons: Answers per variant.
        rows: By variant, `rebel` first.
        curves: Training curves by variant.
        held_out_gain: Gold reward over the uniform mixture, on the combinations held out of
            training, of the controller that never saw them.
        trained_gain: The same of the controller that was trained on all.
    """

    seed: int
    n_comparisons: int
    rows: dict[str, AblationRow]
    curves: dict[str, list[dict[str, Any]]]
    held_out_gain: Interval | None
    trained_gain: Interval | None

    @property
    def held_out_share(self) -> float:
        """Share of the trained gain that the controller has where it was not trained."""
        if self.held_out_gain is None or self.trained_gain is None:
            return float("nan")
        return self.held_out_gain.estimate / self.trained_gain.estimate

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "seed": self.seed,
            "rows": {name: row.to_json() for name, row in self.rows.items()},
            "held_out_gain": self.held_out_gain and self.held_out_gain.to_json(),
            "trained_gain": self.trained_gain and self.trained_gain.to_json(),
            "curves": self.curves,
        }


def run_ablations(
    settings: MixtureStudySettings, *, sizes: Mapping[str, tuple[str, ...]]
) -> Ablations:
    """Train and judge every variant on the study's first seed; what is there is not made again.

    Args:
        settings: Of the study.
        sizes: More variants: overrides of the run by name, for trunks of other sizes.
    """
    seed = settings.seeds[0]
    opened = library_of(settings, seed)
    main = load_controller(opened.files.controller_folder)
    wording = wording_of(
        opened.manifest, opened.base, prompts=settings.run.fit.prompts, blend=settings.run.fit.blend
    )
    gold: dict[str, Float[ndarray, "comparisons objectives"]] = {}
    curves = {REBEL: curves_of(settings, seed)}
    n_parameters: dict[str, int] = {REBEL: main.n_parameters}

    def note(name: str, method: Entrant, *, file: str | None = None) -> None:
        gold[name] = answered(
            settings.work, file or name, method, opened, n_prompts=settings.n_prompts, seed=seed
        ).gold

    note(
        REBEL, controlled_entrant(opened, wording, ControlledDecoding(main, opened.base)), file=OURS
    )
    note(UNIFORM, uniform_entrant(opened, wording))
    runs = {name: seeded(run, seed) for name, run in _runs(settings.overrides, sizes).items()}
    for name, run in runs.items():
        folder = settings.work / "ablations" / f"seed-{seed}" / name
        controller, curves[name] = _trained(opened, run, folder, title=name)
        n_parameters[name] = controller.n_parameters
        own = wording_of(
            opened.manifest,
            opened.base,
            prompts=run.fit.prompts,
            pool=run.fit.pool,
            blend=run.fit.blend,
        )
        note(name, controlled_entrant(opened, own, ControlledDecoding(controller, opened.base)))
    for name, variant in UNTRAINED.items():
        fit_settings = runs[variant].fit
        own = wording_of(
            opened.manifest,
            opened.base,
            prompts=fit_settings.prompts,
            pool=fit_settings.pool,
            blend=fit_settings.blend,
        )
        note(name, uniform_entrant(opened, own))
    return _found(gold, curves, n_parameters, settings, seed=seed)


def _runs(
    overrides: tuple[str, ...], sizes: Mapping[str, tuple[str, ...]]
) -> dict[str, MixtureRun]:
    held_out = [
        {objective.name: 1 / 3 for objective in user.objectives}
        for user in USERS
        if user.name in HELD_OUT
    ]
    found = {name: world_mixture([*overrides, *own]) for name, own in {**VARIANTS, **sizes}.items()}
    six = found["six-of-eight"].model_copy(update={"held_out": tuple(held_out)})
    return {**found, "six-of-eight": six}


def _trained(
    opened: Library, run: MixtureRun, folder: Path, *, title: str
) -> tuple[PreferenceController, list[dict[str, Any]]]:
    controller = controller_for(opened, run.fit)
    trained, _ = combinations_of(opened, run)
    task = task_for(opened, run, ControlledDecoding(controller, opened.base), trained)
    with progress_of(f"{title}, updates") as report:
        curves = fit(
            controller,
            task,
            run.fit,
            folder=folder,
            on_update=lambda done, _row: report(done, run.fit.n_updates),
        )
    return controller.eval(), curves


def _found(
    gold: Mapping[str, Float[ndarray, "comparisons objectives"]],
    curves: dict[str, list[dict[str, Any]]],
    n_parameters: Mapping[str, int],
    settings: MixtureStudySettings,
    *,
    seed: int,
) -> Ablations:
    compared = compared_prompts(settings.n_prompts)
    wanted = {name: wanted_mean(rows, compared.is_wanted) for name, rows in gold.items()}
    rows: dict[str, AblationRow] = {}
    for name, values in wanted.items():
        won = verdicts(gold[name], gold[REBEL], compared.is_wanted)
        is_main = name == REBEL
        rows[name] = AblationRow(
            wanted=_interval(values, compared, name),
            difference=None if is_main else _interval(values - wanted[REBEL], compared, name),
            wins=None if is_main else rates_of(won, compared).ties_out,
            reward=_last(curves.get(name), "reward"),
            entropy=_last(curves.get(name), "mean_entropy"),
            n_parameters=n_parameters.get(name),
        )
    places = [place for place, user in enumerate(USERS) if user.name in HELD_OUT]
    kept = np.isin(compared.user, places)
    there = replace(
        compared,
        is_wanted=compared.is_wanted[kept],
        prompt=compared.prompt[kept],
        user=compared.user[kept],
    )
    gains = {
        name: _interval((wanted[name] - wanted[UNIFORM])[kept], there, name, is_crossed=False)
        for name in (REBEL, "six-of-eight")
    }
    return Ablations(
        seed=seed,
        n_comparisons=len(compared.prompt),
        rows=rows,
        curves=curves,
        held_out_gain=gains["six-of-eight"],
        trained_gain=gains[REBEL],
    )


def _last(curve: list[dict[str, Any]] | None, key: str) -> float | None:
    if curve is None:
        return None
    return float(np.mean([row[key] for row in curve[-max(1, len(curve) // 10) :]]))


def _interval(
    values: Float[ndarray, " comparisons"],
    compared: Compared,
    name: str,
    *,
    is_crossed: bool = True,
) -> Interval:
    return bootstrap_interval(
        values,
        generator=generator_for(0, "ablation", name),
        clusters=compared.prompt,
        second_clusters=compared.user if is_crossed else None,
    )
