"""The reward card: what a reward measures, how well, on which scale, from which data.

It is written beside the model as `card.json`. A reward without calibration has no scale and is
refused wherever numbers in [0, 1] are needed.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from palate.core.files import read_versioned, write_versioned
from palate.core.settings import Settings
from palate.rewards.held_out import HeldOut
from palate.rewards.pairs import PairSet
from palate.rewards.scale import Scale

KIND, VERSION = "palate-reward", 1
FILE = "card.json"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Trunk = Literal["light", "transformer"]


class Statistics(Settings):
    """How raw scores lie.

    Attributes:
        n: Texts.
        mean: Of the raw scores.
        sd: Their standard deviation.
        quantiles: Share of texts below, as text, to raw score.
    """

    n: int
    mean: float
    sd: float
    quantiles: dict[str, float]


class Data(Settings):
    """A set of pairs.

    Attributes:
        source: File name.
        n: Pairs.
        n_groups: Groups that were kept on one side of a split.
        hash: Of the objective and all pairs, in order.
    """

    source: str
    n: int
    n_groups: int
    hash: str


class RewardCard(Settings):
    """What is known of a learned reward.

    Attributes:
        objective: Name of what it measures.
        trunk: `light` or `transformer`.
        direction: Which way is better; always higher.
        held_out: Accuracy on pairs it has not seen, beside the length baselines.
        length_coefficients: Of the length-only baseline, for log characters and log words.
        raw: Raw scores of the validation answers.
        calibration: The scale to [0, 1], or `None` when none was fitted.
        calibration_raw: Raw scores of the base rollouts the scale was fitted on.
        train: Pairs it was fitted on.
        validation: Pairs it was measured on.
        settings: Of the trunk, as given.
        chosen: Settings that were left to cross-validation on the training pairs, as chosen.
        seed: Of everything random in the fit.
        model_hash: Of everything a raw score depends on.
        versions: Of the packages that made it.
    """

    objective: str
    trunk: Trunk
    direction: Literal["higher is better"] = "higher is better"
    held_out: HeldOut
    length_coefficients: tuple[float, float]
    raw: Statistics
    calibration: Scale | None = None
    calibration_raw: Statistics | None = None
    train: Data
    validation: Data
    settings: dict[str, object]
    chosen: dict[str, float] = Field(default_factory=dict)
    seed: int
    model_hash: str
    versions: dict[str, str]


def save_card(card: RewardCard, folder: Path) -> None:
    """Write `card.json` into the folder."""
    write_versioned(folder / FILE, kind=KIND, version=VERSION, content=card.model_dump(mode="json"))


def load_card(folder: Path) -> RewardCard:
    """The card of a reward folder.

    Raises:
        InvalidInputError: there is no card, or it is not JSON, or a field is wrong.
        FormatError: it is of another kind or version.
    """
    content = read_versioned(folder / FILE, kind=KIND, version=VERSION)
    del content["kind"], content["schema_version"]
    return RewardCard.checked(content, source=str(folder / FILE))


def statistics_of(raw: Float[ndarray, " texts"]) -> Statistics:
    """Mean, standard deviation and quantiles of raw scores."""
    quantiles = np.quantile(raw, QUANTILES)
    return Statistics(
        n=len(raw),
        mean=float(raw.mean()),
        sd=float(raw.std()),
        quantiles={
            str(share): float(value) for share, value in zip(QUANTILES, quantiles, strict=True)
        },
    )


def data_of(pairs: PairSet) -> Data:
    """The set as it stands in the card."""
    return Data(
        source=pairs.source,
        n=len(pairs),
        n_groups=len(set(pairs.groups)),
        hash=pairs.fingerprint,
    )


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("palate", "numpy", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
