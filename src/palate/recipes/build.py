"""From a run file to a library: sample the base, make rewards, score, train one expert per anchor.

With a section `portfolio` further experts are trained where its certificate asks for them.

Every part is entered into the library when it is whole, under a hash of everything that determines
it. A build that was interrupted, or is run again with other settings, makes only what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from palate.core.errors import InvalidInputError
from palate.experts.anchors import Anchor, make_anchors
from palate.experts.library import Library
from palate.experts.train import deterministic
from palate.recipes.palm_grow import Grown, grow, require_growable
from palate.recipes.reward_sources import held_out_of
from palate.recipes.run_file import RunSettings
from palate.recipes.workshop import open_workshop


@dataclass(frozen=True)
class Built:
    """A finished build.

    Attributes:
        library: With all its experts.
        trained: Experts that this run trained; the others were there.
        seconds: Wall clock of this run.
        portfolio: What was certified, or `None` where none was asked for.
    """

    library: Library
    trained: tuple[str, ...]
    seconds: float
    portfolio: Grown | None = None

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
                    "accuracy": found.accuracy.model_dump(mode="json"),
                    "by_length": found.by_length,
                    "is_above_length": found.is_above_length,
                }
                for name, found in held_out_of(self.library).items()
            },
            "portfolio": None if self.portfolio is None else self.portfolio.to_json(),
            "seconds": round(self.seconds, 1),
        }


def build_library(settings: RunSettings, *, out: Path, only: Sequence[str] | None = None) -> Built:
    """The library of a run file, in the folder `out`; goes on where an earlier build stopped.

    Args:
        settings: Of the run file.
        out: Folder of the library.
        only: Names of the experts to train in this run, as one of several jobs; empty for none,
            which makes rollouts and rewards. Other experts that are there stay. `None` is all.

    Raises:
        InvalidInputError: a setting, a file, a reward or a folder is not as it must be.
        FormatError: the folder holds a library of another base or other objectives.
        NotCertifiedError: a portfolio's slack is given and the table does not carry it.
        MissingExtraError: TRL is of another version.
    """
    start = monotonic()
    anchors = make_anchors(
        settings.anchors, objectives=settings.objective_names, seed=settings.seed
    )
    names = tuple(anchor.name for anchor in anchors)
    if only is not None:
        anchors = _chosen(anchors, only, settings)
    if settings.portfolio is not None:
        require_growable(settings, settings.portfolio)
    with deterministic(n_threads=settings.training.n_threads):
        workshop = open_workshop(settings, out=out)
        missing = [anchor for anchor in anchors if not workshop.has(anchor)]
        for place, anchor in enumerate(missing, start=1):
            workshop.make(anchor, title=f"{place} of {len(missing)}")
        if only is not None:
            return Built(workshop.library, tuple(workshop.trained), monotonic() - start)
        grown = None if settings.portfolio is None else grow(workshop, settings.portfolio)
        asked_for = () if grown is None else grown.experts
        workshop.keep(tuple(dict.fromkeys([*names, *asked_for])))
    return Built(workshop.library, tuple(workshop.trained), monotonic() - start, grown)


def _chosen(
    anchors: tuple[Anchor, ...], only: Sequence[str], settings: RunSettings
) -> tuple[Anchor, ...]:
    """The anchors of these names.

    Raises:
        InvalidInputError: a name is unknown, or a portfolio decides which experts there are.
    """
    if settings.portfolio is not None:
        raise InvalidInputError(
            "A run file with a portfolio trains experts one after another, so its experts are no "
            "independent jobs; leave --only out."
        )
    known = [anchor.name for anchor in anchors]
    strange = [name for name in only if name not in known]
    if strange:
        raise InvalidInputError(
            f"The run file makes no expert {strange[0]!r}; it makes {', '.join(known)}."
        )
    return tuple(anchor for anchor in anchors if anchor.name in only)
