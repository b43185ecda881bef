"""From a run file to a library: sample the base, make rewards, score, train one expert per anchor.

With a section `portfolio` further experts are trained where its certificate asks for them. At the
end the library measures itself: the basis of soups, their strength, and what each method is worth.

Every part is entered into the library when it is whole, under a hash of everything that determines
it. A build that was interrupted, or is run again with other settings, makes only what is missing.
An expert is a function of base, rollouts, rewards, anchor and settings: experts that independent
jobs trained on copies of a library, gathered on processors of one kind, are those of one build.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from palate.build.builder import open_builder
from palate.build.grow import Grown, grow, require_growable
from palate.build.measure import MeasuredLibrary, measure_library
from palate.build.reward_sources import held_out_of
from palate.build.run_file import RunSettings, calibration_prompts, stored_run
from palate.core.errors import FormatError, InvalidInputError
from palate.core.settings import load_settings
from palate.library.folder import MANIFEST, LibraryFolder
from palate.library.library import Library
from palate.rewards.functions import RewardFunction
from palate.training.anchors import Anchor, make_anchors
from palate.training.train import deterministic


@dataclass(frozen=True)
class Built:
    """A finished build."""

    library: LibraryFolder  # the library with all its experts
    trained: tuple[str, ...]  # experts that this run trained; the others were there
    seconds: float  # wall clock of this run
    portfolio: Grown | None = None  # the certified portfolio, where the run file has one
    measured: MeasuredLibrary | None = None  # `None` with `only` and without experts

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        manifest = self.library.manifest
        return {
            "library": str(self.library.folder),
            "base": manifest.base.path,
            "objectives": list(manifest.objective_names),
            "experts": [
                {
                    "name": record.anchor.name,
                    "direction": dict(
                        zip(manifest.objective_names, record.anchor.direction, strict=True)
                    ),
                    "tilt_mean": record.tilt_mean,
                    "tilt_sd": record.tilt_sd,
                    "is_trained_now": record.anchor.name in self.trained,
                }
                for record in manifest.experts
            ],
            "rewards": {
                name: {
                    "accuracy": held_out.accuracy.model_dump(mode="json"),
                    "by_length": held_out.by_length,
                    "is_above_length": held_out.is_above_length,
                }
                for name, held_out in held_out_of(self.library).items()
            },
            "portfolio": None if self.portfolio is None else self.portfolio.to_json(),
            "measured": None if self.measured is None else self.measured.to_json(),
            "seconds": round(self.seconds, 1),
        }


def build(
    run: str | Path | Mapping[str, Any] | RunSettings,
    *,
    output_dir: str | Path,
    reward_funcs: Mapping[str, RewardFunction] | None = None,
    overrides: Sequence[str] = (),
) -> Library:
    """The library of a run file, opened; goes on where an earlier build stopped.

    `reward_funcs` give, by objective, for `(prompts, completions, **columns)` one number for each
    completion, or `None` where the objective does not apply; higher is better, in any unit. These
    objectives need no `reward` in the run file. Overrides are `key=value` for any of its keys.

    Raises:
        InvalidInputError: a setting, a file, a reward or a folder is not as it must be, or a
            function does not give what it must.
        FormatError: the folder holds a library of another base or other objectives.
        NotCertifiedError: a portfolio's slack is given and the table does not carry it.
        MissingExtraError: the packages that train are not installed, or of another version.
    """
    settings = _run_settings(run, overrides=overrides)
    built = build_library(settings, out=Path(output_dir), reward_funcs=reward_funcs)
    functions = built.library.reward_funcs
    return Library.load(
        output_dir, device=settings.device, dtype=settings.dtype, reward_funcs=functions
    )


def build_library(
    settings: RunSettings,
    *,
    out: Path,
    only: Sequence[str] | None = None,
    reward_funcs: Mapping[str, RewardFunction] | None = None,
) -> Built:
    """As `build`, with the settings of a run file and the full record of the build.

    `only` names the experts to train in this run, as one of several jobs; empty for none, which
    makes rollouts and rewards. Other experts that are there stay. `None` is all.
    """
    start = monotonic()
    anchors = make_anchors(
        settings.anchors, objectives=settings.objective_names, seed=settings.seed
    )
    names = tuple(anchor.name for anchor in anchors)
    if only is not None:
        anchors = _selected(anchors, only, settings)
    calibration_prompts(settings)  # refuses what could not be measured after all the training
    if settings.portfolio is not None:
        require_growable(settings, settings.portfolio)
    with deterministic(n_threads=settings.training.n_threads):
        builder = open_builder(settings, out=out, reward_funcs=reward_funcs)
        for number in range(1, settings.training.n_rounds + 1):
            builder.open_round(number, anchors)
            missing = [anchor for anchor in anchors if not builder.has(anchor)]
            for place, anchor in enumerate(missing, start=1):
                builder.make(anchor, title=f"{place} of {len(missing)}")
        if only is not None:
            return Built(builder.library, tuple(builder.trained), monotonic() - start)
        grown = None if settings.portfolio is None else grow(builder, settings.portfolio)
        portfolio_experts = () if grown is None else grown.experts
        builder.keep(tuple(dict.fromkeys([*names, *portfolio_experts])))
        functions = builder.library.reward_funcs
        measured = measure_library(settings, out=out, reward_funcs=functions)
    seconds = monotonic() - start
    return Built(builder.library, tuple(builder.trained), seconds, grown, measured)


def _run_settings(
    run: str | Path | Mapping[str, Any] | RunSettings, *, overrides: Sequence[str]
) -> RunSettings:
    if isinstance(run, RunSettings):
        return stored_run(run.model_dump(mode="json"), overrides=overrides) if overrides else run
    source = Path(run) if isinstance(run, str) else run
    return load_settings(RunSettings, source, overrides=overrides)


def grow_portfolio(
    target: Path, *, out: Path | None = None, overrides: Sequence[str] = ()
) -> Built:
    """Build the target with a portfolio section, its defaults where it has none.

    A library is extended by the run file stored in its folder. Of a run file, `out` is by default
    out/ and the file's name.

    Raises:
        InvalidInputError: a setting, a file, a reward or a folder is not as it must be.
        FormatError: the folder holds a library of another base or other objectives.
    """
    if (target / MANIFEST).is_file():
        settings = stored_settings(LibraryFolder.open(target), overrides=overrides)
        return build_library(settings, out=target)
    settings = load_settings(RunSettings, target, overrides=overrides)
    if settings.portfolio is None:
        settings = load_settings(RunSettings, target, overrides=[*overrides, "portfolio={}"])
    return build_library(settings, out=out or Path("out") / target.stem)


def stored_settings(library: LibraryFolder, *, overrides: Sequence[str] = ()) -> RunSettings:
    """The run file that built the library, with a portfolio section; raises as `stored_run`."""
    config = dict(library.manifest.config)
    return stored_run({**config, "portfolio": config.get("portfolio") or {}}, overrides=overrides)


def _selected(
    anchors: tuple[Anchor, ...], only: Sequence[str], settings: RunSettings
) -> tuple[Anchor, ...]:
    """The anchors of these names; InvalidInputError where one is unknown or a portfolio decides."""
    if settings.portfolio is not None or (only and settings.training.n_rounds > 1):
        raise InvalidInputError(
            "A run file with a portfolio, or with several rounds, trains experts from others' "
            "answers, so they are no independent jobs; leave --only out."
        )
    known = [anchor.name for anchor in anchors]
    strange = [name for name in only if name not in known]
    if strange:
        raise InvalidInputError(
            f"The run file makes no expert {strange[0]!r}; it makes {', '.join(known)}."
        )
    return tuple(anchor for anchor in anchors if anchor.name in only)


def gather_experts(folder: Path, others: Sequence[Path]) -> list[tuple[str, Path]]:
    """Copy every expert that the library lacks; returns names and the folders they came from.

    Raises:
        InvalidInputError: a folder holds no library.
        FormatError: a part is damaged, or a library is of another base, other objectives or
            rollouts, or an expert was made with other settings.
    """
    library = LibraryFolder.open(folder)
    settings = stored_run(library.manifest.config)
    gathered: list[tuple[str, Path]] = []
    for path in others:
        other = LibraryFolder.open(path)
        _require_same(library, other)
        theirs = stored_run(other.manifest.config)
        for record in other.manifest.experts:
            name = record.anchor.name
            if library.has_expert(name, key=record.key):
                continue
            is_alike = theirs.expert_job(record.anchor) == settings.expert_job(record.anchor)
            if name in library.manifest.expert_names or not is_alike:
                raise FormatError(
                    f"The expert {name!r} of {str(path)!r} was made with other settings than those "
                    f"of {str(folder)!r}; train it on a copy of that."
                )
            library = library.with_expert(record, partial(_copy, other.expert_folder(name)))
            gathered.append((name, path))
    anchors = make_anchors(
        settings.anchors, objectives=settings.objective_names, seed=settings.seed
    )
    names = dict.fromkeys([*(anchor.name for anchor in anchors), *library.manifest.expert_names])
    library.with_experts_of(tuple(names))  # in the order of one build
    measure_library(settings, out=folder)
    return gathered


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _require_same(library: LibraryFolder, other: LibraryFolder) -> None:
    library.require_base(other.manifest.base)
    mine, theirs = library.manifest, other.manifest
    same = {
        "objectives": mine.objective_names == theirs.objective_names,
        "rollouts": mine.rollouts == theirs.rollouts,
        "rewards": mine.rewards == theirs.rewards,
        "beta": mine.beta == theirs.beta,
    }
    different = [name for name, holds in same.items() if not holds]
    if different:
        raise FormatError(
            f"The library {str(other.folder)!r} has other {different[0]} than "
            f"{str(library.folder)!r}; train on copies of one prepared library."
        )
