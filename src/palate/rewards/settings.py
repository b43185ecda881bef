"""Settings of rewards: of each trunk and how a run names them, and of a judge that grades."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from palate.core.files import hash_value
from palate.core.settings import Settings, load_settings

LIGHT = "light"
EMBEDDER = "all-minilm-l6-v2"  # the one that needs no marker
EMBEDDING = "embedding:"  # marks any other sentence embedder
GRADE_PROTOCOL = 1  # to be raised when a judge is asked for a grade in other words


class LightSettings(Settings):
    """How a light reward is fitted."""

    word_ngrams: tuple[int, int] = (1, 2)  # shortest and longest run of words
    character_ngrams: tuple[int, int] = (2, 5)  # shortest and longest run of characters in a word
    least_texts: int = Field(default=2, ge=1)  # terms in fewer answers are left out
    word_scale: float = Field(default=1.5, gt=0)  # beside characters; larger makes words cheaper
    # of lengths and of overlaps. Both were cross-validated on real training pairs, see `reports/`
    dense_scale: float = Field(default=0.3, gt=0)
    with_overlap: bool = True  # whether words shared with the prompt count
    ridge: float | None = Field(default=None, gt=0)  # `None` selects it by cross-validation
    # candidates, from the price under which a block says nothing to nearly none
    ridges: tuple[float, ...] = (
        *(10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
        *(0.0003, 0.0001, 0.00003, 0.00001),
    )


class EmbeddingSettings(Settings):
    """How an embedding reward is fitted."""

    trunk: str = EMBEDDER  # `all-minilm-l6-v2`, or the folder or hub id of a sentence embedder
    max_length: int = Field(default=256, ge=8)  # most tokens; the embedder may allow fewer
    ridge: float | None = Field(default=None, gt=0)  # `None` selects it by cross-validation
    ridges: tuple[float, ...] = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    device: str = "cpu"


class TransformerSettings(Settings):
    """How a transformer reward is trained; the defaults suit a small model on a CPU."""

    RENAMED = {  # noqa: RUF012  (a ClassVar of the base)
        "epochs": "num_train_epochs",
        "batch_pairs": "per_device_train_batch_size",
        "warmup_fraction": "warmup_ratio",
        "max_tokens": "max_length",
    }

    trunk: str  # folder or hub id of a causal model or an encoder
    revision: str | None = None
    num_train_epochs: int = Field(default=3, ge=1)  # passes over the pairs
    per_device_train_batch_size: int = Field(default=16, ge=1)  # pairs per step
    learning_rate: float = Field(default=5e-4, gt=0)  # peak of a linear schedule
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)  # share of steps in which it rises
    weight_decay: float = Field(default=0.01, ge=0)  # AdamW's
    max_length: int = Field(default=512, ge=8)  # of prompt and answer; the trunk may allow fewer
    device: str = "cpu"


class GradeSettings(Settings):
    """A judge that grades."""

    base_url: str  # the endpoint's address, which ends in `/v1`
    model: str  # name of its model
    criterion: str = Field(min_length=1)  # one sentence on which answers are better
    max_requests: int = Field(ge=1)  # of all runs with this cache, model and criterion together
    cache: Path  # JSONL of replies; made if it does not exist

    @property
    def fingerprint(self) -> str:
        """Hash of what a grade depends on, but for prompt and answer."""
        return hash_value([GRADE_PROTOCOL, self.model, self.criterion])


TrunkSettings = LightSettings | EmbeddingSettings | TransformerSettings


def trunk_settings(trunk: str, *, overrides: Sequence[str] = ()) -> TrunkSettings:
    """The settings of a trunk, with overrides `key=value`; InvalidInputError where one is wrong.

    It is `light`, `all-minilm-l6-v2`, `embedding:` and the folder or hub id of another sentence
    embedder, or the folder or hub id of a model that is trained whole.
    """
    if trunk == LIGHT:
        return load_settings(LightSettings, overrides=overrides)
    is_embedder = trunk == EMBEDDER or trunk.startswith(EMBEDDING)
    kind = EmbeddingSettings if is_embedder else TransformerSettings
    named = {"trunk": trunk.removeprefix(EMBEDDING)}
    return load_settings(kind, named, overrides=overrides)
