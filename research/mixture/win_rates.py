"""What a trained controller is worth in the small world: win rates on held-out prompts, gold judge.

For every seed a library is built from nothing but the base; its controller, the best constant
shares and the single conditioned policy are trained on training prompts with learned rewards; then
all methods answer the held-out prompts for the eight users with common seeds, and the gold rules,
which taught nobody, judge. Everything that is finished is kept in the work folder, so an
interrupted study goes on where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library
from palate.build.library import build_library
from palate.build.mixture_fit import (
    TRAINING_FOLDER,
    MixtureRun,
    fit_mixture,
)
from palate.core.errors import InvalidInputError
from palate.core.files import read_json, read_jsonl, write_json
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.library.controller import has_controller, wording_of
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.win_rates import WinRates
from palate.mixture.checkpoint import CURVES
from palate.mixture.controller import load_controller
from palate.mixture.decode import ControlledDecoding
from palate.models.adapter import load_adapter
from research.mixture.rivals import (
    BESIDE,
    MORL,
    RIVALS,
    Entrant,
    controlled_entrant,
    everybody,
    morl_entrant,
    rivals,
)
from research.mixture.static import StaticController, StaticDecoding, fit_static
from research.mixture.verdicts import (
    Average,
    Compared,
    average_of,
    joined,
    rates_of,
    verdicts,
    wanted_mean,
)
from research.world.conditioned import fair_share, train_morl
from research.world.gold import gold_rewards
from research.world.grammar import parse
from research.world.objectives import OBJECTIVE_NAMES, USERS
from research.world.prompts import held_out_prompts, train_prompts
from research.world.settings import world_mixture, world_run

OURS = "controller"
EVERY_METHOD = (OURS, *RIVALS, *BESIDE)
TARGET = 0.66  # average win rate that is aimed at


@dataclass(frozen=True)
class MixtureStudySettings:
    """How large the study is.

    Attributes:
        work: Folder for libraries, adapters and answers; what is there is not made again.
        overrides: `key=value` beside `WORLD_FIT`; the seed is set per library.
        seeds: One library each.
        n_prompts: Held-out prompts; all by default.
    """

    work: Path
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    n_prompts: int = len(held_out_prompts())

    def __post_init__(self) -> None:
        """Refuse no seeds, seeds that occur twice, and too few or too many prompts."""
        n_all = len(held_out_prompts())
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InvalidInputError(
                f"The seeds {list(self.seeds)} make no study; give different ones, at least one."
            )
        if not 2 <= self.n_prompts <= n_all:
            raise InvalidInputError(
                f"The study cannot ask {self.n_prompts} held-out prompts; use 2 to {n_all}."
            )

    @property
    def run(self) -> MixtureRun:
        """The settings of a training run."""
        return world_mixture(self.overrides)


@dataclass(frozen=True, eq=False)
class Answered:
    """One method's judged answers over all seeds.

    Attributes:
        gold: `[comparisons, 6]`.
        is_well_formed: `[comparisons]`.
    """

    gold: Float[ndarray, "comparisons objectives"]
    is_well_formed: ndarray


@dataclass(frozen=True)
class MethodResult:
    """One method in numbers.

    Attributes:
        wanted: Mean gold reward of what the user wants.
        well_formed: Share of answers that the grammar parses.
        rates: Win rates of the controller against this method; `None` for the controller itself.
        by_seed: Its wins among decided comparisons in each seed.
    """

    wanted: Interval
    well_formed: float
    rates: WinRates | None
    by_seed: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "wanted": self.wanted.to_json(),
            "well_formed": self.well_formed,
            "rates": self.rates and self.rates.to_json(),
            "by_seed": list(self.by_seed),
        }


@dataclass(frozen=True)
class MixtureStudy:
    """The findings.

    Attributes:
        settings: What was asked for.
        methods: By name, the controller first.
        average: The controller against the rivals of the headline.
        round_robin: Every method's average win rate against the others of the headline, ties half.
        by_user: The controller's mean wanted gold reward minus the static shares', by user.
        per_objective: Mean gold reward of each wanted objective, by method.
    """

    settings: MixtureStudySettings
    methods: dict[str, MethodResult]
    average: Average
    round_robin: dict[str, float]
    by_user: dict[str, Interval]
    per_objective: dict[str, dict[str, float]]

    @property
    def failures(self) -> tuple[str, ...]:
        """Which targets were missed, each in a sentence."""
        found: list[str] = []
        reached = self.average.ties_out.estimate
        if reached < TARGET:
            found.append(f"The average win rate is {reached:.1%}, not {TARGET:.0%}.")
        static = self.methods["static"].rates
        if static is not None and static.ties_half.estimate <= 0.5:
            found.append("The controller does not beat the best constant shares.")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "seeds": list(self.settings.seeds),
            "n_prompts": self.settings.n_prompts,
            "run": self.settings.run.model_dump(mode="json", exclude={"prompts"}),
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "average": self.average.to_json(),
            "round_robin": self.round_robin,
            "controller_minus_static_by_user": {
                name: one.to_json() for name, one in self.by_user.items()
            },
            "per_objective": self.per_objective,
            "failures": list(self.failures),
        }


def study_mixture(settings: MixtureStudySettings) -> MixtureStudy:
    """Train, answer and judge for every seed."""
    parts = [_seed(settings, seed) for seed in settings.seeds]
    compared = joined([compared_prompts(settings.n_prompts) for _ in settings.seeds])
    return study_of(parts, compared, settings)


def study_of(
    parts: list[dict[str, Answered]], compared: Compared, settings: MixtureStudySettings
) -> MixtureStudy:
    """The findings in judged answers, one mapping of methods per seed."""
    gold = {name: np.concatenate([part[name].gold for part in parts]) for name in parts[0]}
    wanted = {name: wanted_mean(rows, compared.is_wanted) for name, rows in gold.items()}
    won = {
        name: verdicts(gold[OURS], rows, compared.is_wanted)
        for name, rows in gold.items()
        if name != OURS
    }
    methods = {
        name: MethodResult(
            wanted=_interval(wanted[name], compared, name),
            well_formed=float(np.mean(np.concatenate([p[name].is_well_formed for p in parts]))),
            rates=rates_of(won[name], compared) if name in won else None,
            by_seed=_by_seed(won[name], len(parts)) if name in won else (),
        )
        for name in gold
    }
    everyone = (OURS, *RIVALS)
    gap = wanted[OURS] - wanted["static"]
    return MixtureStudy(
        settings=settings,
        methods=methods,
        average=average_of({name: won[name] for name in RIVALS}, compared, OURS),
        round_robin={
            one: float(
                np.mean(
                    [
                        verdicts(gold[one], gold[other], compared.is_wanted).mean()
                        for other in everyone
                        if other != one
                    ]
                )
            )
            for one in everyone
        },
        by_user={
            user.name: bootstrap_interval(
                gap[compared.user == place],
                generator=generator_for(0, "person", user.name),
                clusters=compared.prompt[compared.user == place],
            )
            for place, user in enumerate(USERS)
        },
        per_objective={
            name: {
                objective: float(rows[compared.is_wanted[:, k], k].mean())
                for k, objective in enumerate(OBJECTIVE_NAMES)
            }
            for name, rows in gold.items()
        },
    )


def library_of(settings: MixtureStudySettings, seed: int) -> Library:
    """The seed's library with its controller, built and trained if it is not there."""
    folder = settings.work / f"seed-{seed}"
    build_library(world_run(settings.work, seed=seed), out=folder)
    opened = Library.load(folder)
    if not has_controller(opened.files):
        run = seeded(settings.run, seed)
        with progress_of(f"controller of seed {seed}, updates") as report:
            fit_mixture(opened, run, on_update=report)
        opened = Library.load(folder)
    return opened


def seeded(run: MixtureRun, seed: int) -> MixtureRun:
    """The run with this seed."""
    return run.model_copy(update={"fit": run.fit.model_copy(update={"seed": seed})})


def curves_of(settings: MixtureStudySettings, seed: int) -> list[dict[str, Any]]:
    """The training curves of a seed's controller."""
    folder = settings.work / f"seed-{seed}" / TRAINING_FOLDER
    return read_jsonl(folder / CURVES, what="curves file")


def answered(
    work: Path, name: str, method: Entrant, opened: Library, *, n_prompts: int, seed: int
) -> Answered:
    """The method's judged answers to the held-out prompts; read from the work folder if there.

    Args:
        work: Of the study.
        name: Name of the method; the name of the file.
        method: Answers.
        opened: The seed's library.
        n_prompts: Held-out prompts.
        seed: Of the library and the answers.
    """
    prompts = held_out_prompts()[:n_prompts]
    asked = everybody(opened, prompts)
    path = work / "answers" / f"seed-{seed}" / f"{name}.json"
    if path.is_file():
        texts = list(read_json(path)["texts"])
    else:
        texts = method.answers(asked, seed=seed)
        write_json(path, {"texts": texts})
    if len(texts) != len(asked):
        raise InvalidInputError(
            f"The file {str(path)!r} holds {len(texts)} answers, not {len(asked)}; remove it."
        )
    is_well_formed = [
        parse(item.text, text).answer is not None for item, text in zip(asked, texts, strict=True)
    ]
    return Answered(gold_rewards(texts), np.array(is_well_formed))


def _seed(settings: MixtureStudySettings, seed: int) -> dict[str, Answered]:
    opened = library_of(settings, seed)
    run = seeded(settings.run, seed)
    wording = wording_of(opened.manifest, opened.base, prompts=run.fit.prompts, blend=run.fit.blend)
    static = fit_static(opened, run, folder=settings.work / f"static-{seed}")
    trained = load_controller(opened.files.controller_folder)
    methods = {
        OURS: controlled_entrant(opened, wording, ControlledDecoding(trained, opened.base)),
        "static": controlled_entrant(opened, wording, StaticDecoding(static)),
        **rivals(opened, wording),
    }
    _note_shares(settings.work / f"static-{seed}" / "shares.json", static)
    found: dict[str, Answered] = {}
    with progress_of(f"answers of seed {seed}, methods") as report:
        for place, (name, method) in enumerate(methods.items(), start=1):
            found[name] = answered(
                settings.work, name, method, opened, n_prompts=settings.n_prompts, seed=seed
            )
            report(place, len(methods))
    folder = settings.work / f"morl-{seed}"
    if not (folder / "adapter_model.safetensors").is_file():
        asked = fair_share(opened, everybody(opened, train_prompts()))
        train_morl(opened, wording, asked, folder, seed=seed)
    one_for_all = morl_entrant(opened, wording, load_adapter(folder))
    found[MORL] = answered(
        settings.work, MORL, one_for_all, opened, n_prompts=settings.n_prompts, seed=seed
    )
    return {name: found[name] for name in EVERY_METHOD}


def compared_prompts(n_prompts: int) -> Compared:
    """What the answers of `everybody` to so many prompts belong to."""
    is_wanted = np.array(
        [[name in [o.name for o in user.objectives] for name in OBJECTIVE_NAMES] for user in USERS]
    )
    return Compared(
        np.tile(is_wanted, (n_prompts, 1)),
        np.repeat(np.arange(n_prompts), len(USERS)),
        np.tile(np.arange(len(USERS)), n_prompts),
    )


def _note_shares(path: Path, static: StaticController) -> None:
    rows = {
        user.name: static.shares(row).tolist()
        for user, row in zip(USERS, static.combinations, strict=True)
    }
    write_json(path, rows)


def _by_seed(won: Float[ndarray, " comparisons"], n_seeds: int) -> tuple[float, ...]:
    return tuple(float(part[part != 0.5].mean()) for part in np.split(won, n_seeds))


def _interval(values: Float[ndarray, " comparisons"], compared: Compared, name: str) -> Interval:
    return bootstrap_interval(
        values,
        generator=generator_for(0, "wanted", name),
        clusters=compared.prompt,
        second_clusters=compared.user,
    )
