"""The reward card: what a reward measures, how well, on which scale, from which data.

It is written beside the model as `card.json`. A reward without calibration has no scale and is
refused wherever numbers in [0, 1] are needed.
"""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import AliasChoices, Field

from palate.core.files import read_versioned, write_versioned
from palate.core.settings import Settings
from palate.rewards.held_out import HeldOut
from palate.rewards.pairs import PairSet
from palate.rewards.scale import Scale

KIND, VERSION = "palate-reward", 1
FILE = "card.json"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Trunk = Literal["light", "embedding", "transformer"]


class Statistics(Settings):
    """Number, mean, standard deviation and quantiles (share of texts below) of raw scores."""

    n: int
    mean: float
    sd: float
    quantiles: dict[str, float]


class Data(Settings):
    """A set of pairs: file name, numbers of pairs and groups, hash of the objective and pairs."""

    source: str
    n: int
    n_groups: int
    hash: str


class RewardCard(Settings):
    """What is known of a learned reward."""

    objective: str  # name of what it measures
    trunk: Trunk  # `light`, `embedding` or `transformer`
    direction: Literal["higher is better"] = "higher is better"
    held_out: HeldOut  # accuracy on pairs it has not seen, beside the length baselines
    length_coefficients: tuple[float, float]  # of the baseline: log characters and log words
    raw: Statistics  # raw scores of the validation answers
    calibration: Scale | None = None  # the scale to [0, 1], or `None` when none was fitted
    calibration_raw: Statistics | None = None  # of the base rollouts that the scale was fitted on
    train: Data  # pairs it was fitted on
    validation: Data  # pairs it was measured on
    settings: dict[str, object]  # the trunk's, as given
    # whether scores are multiplied by the share of an answer's words in whole sentences
    whole_sentences: bool = False
    on_topic: bool = False  # whether answers without a content word of the prompt score 0
    selected: dict[str, float] = Field(  # by cross-validation; "chosen" in earlier cards
        default_factory=dict, validation_alias=AliasChoices("selected", "chosen")
    )
    seed: int  # random seed of the fit
    model_hash: str  # hash of everything a raw score depends on
    versions: dict[str, str]  # versions of the packages that fitted it


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


def statistics_of(raw: Float[np.ndarray, " texts"]) -> Statistics:
    """Mean, standard deviation and quantiles of raw scores."""
    quantiles = np.quantile(raw, QUANTILES)
    return Statistics(
        n=len(raw),
        mean=float(raw.mean()),
        sd=float(raw.std()),
        quantiles=dict(zip(map(str, QUANTILES), quantiles.tolist(), strict=True)),
    )


def data_of(pairs: PairSet) -> Data:
    """The set as it stands in the card."""
    n_groups = len(set(pairs.groups))
    return Data(source=pairs.source, n=len(pairs), n_groups=n_groups, hash=pairs.fingerprint)


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in ("palate", "numpy", *packages):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
