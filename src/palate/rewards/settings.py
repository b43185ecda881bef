"""Settings of rewards: of each trunk and how a run names them, and of a judge that grades."""

import json
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
    """How a light reward is fitted.

    Attributes:
        word_ngrams: Shortest and longest run of words.
        character_ngrams: Shortest and longest run of characters within a word.
        least_texts: Terms in fewer answers are left out.
        word_scale: Size of the word block beside the characters'; larger makes words cheaper.
        dense_scale: The same of lengths and of overlaps. Both defaults were chosen by
            cross-validation on the training pairs of real objectives, see `reports/`.
        with_overlap: Whether words shared with the prompt count.
        ridge: Price of the squared coefficients; `None` chooses from `ridges` by cross-validation.
        ridges: Candidates, from the price under which a block says nothing to nearly none.
    """

    word_ngrams: tuple[int, int] = (1, 2)
    character_ngrams: tuple[int, int] = (2, 5)
    least_texts: int = Field(default=2, ge=1)
    word_scale: float = Field(default=1.5, gt=0)
    dense_scale: float = Field(default=0.3, gt=0)
    with_overlap: bool = True
    ridge: float | None = Field(default=None, gt=0)
    ridges: tuple[float, ...] = (
        *(10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
        *(0.0003, 0.0001, 0.00003, 0.00001),
    )


class EmbeddingSettings(Settings):
    """How an embedding reward is fitted.

    Attributes:
        trunk: `all-minilm-l6-v2`, or the folder or hub id of a sentence embedder.
        max_length: Most tokens of a text; the embedder may allow fewer.
        ridge: Price of the squared coefficients; `None` chooses from `ridges` by cross-validation.
        ridges: Candidates.
    """

    trunk: str = EMBEDDER
    max_length: int = Field(default=256, ge=8)
    ridge: float | None = Field(default=None, gt=0)
    ridges: tuple[float, ...] = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    device: str = "cpu"


class TransformerSettings(Settings):
    """How a transformer reward is trained; the defaults suit a small model on a CPU.

    Attributes:
        trunk: Folder or hub id of a causal model or an encoder.
        num_train_epochs: Passes over the pairs.
        per_device_train_batch_size: Pairs per step.
        learning_rate: Peak of a linear schedule.
        warmup_ratio: Share of steps in which it rises.
        weight_decay: AdamW's.
        max_length: Most tokens of prompt and answer together; the trunk may allow fewer.
    """

    RENAMED = {  # noqa: RUF012  (a ClassVar of the base)
        "epochs": "num_train_epochs",
        "batch_pairs": "per_device_train_batch_size",
        "warmup_fraction": "warmup_ratio",
        "max_tokens": "max_length",
    }

    trunk: str
    revision: str | None = None
    num_train_epochs: int = Field(default=3, ge=1)
    per_device_train_batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_length: int = Field(default=512, ge=8)
    device: str = "cpu"


class GradeSettings(Settings):
    """A judge that grades.

    Attributes:
        base_url: The endpoint's address, which ends in `/v1`.
        model: Name of its model.
        criterion: One sentence on which answers are better.
        max_requests: Most requests with this cache, model and criterion, of all runs together.
        cache: JSONL of replies; made if it does not exist.
    """

    base_url: str
    model: str
    criterion: str = Field(min_length=1)
    max_requests: int = Field(ge=1)
    cache: Path

    @property
    def fingerprint(self) -> str:
        """Hash of what a grade depends on, but for prompt and answer."""
        return hash_value([GRADE_PROTOCOL, self.model, self.criterion])


TrunkSettings = LightSettings | EmbeddingSettings | TransformerSettings


def trunk_settings(trunk: str, *, overrides: Sequence[str] = ()) -> TrunkSettings:
    """The settings of a trunk.

    Args:
        trunk: `light`, `all-minilm-l6-v2`, `embedding:` and the folder or hub id of another
            sentence embedder, or the folder or hub id of a model that is trained whole.
        overrides: `key=value`.

    Raises:
        InvalidInputError: a key or value is not allowed.
    """
    if trunk == LIGHT:
        return load_settings(LightSettings, overrides=overrides)
    is_embedder = trunk == EMBEDDER or trunk.startswith(EMBEDDING)
    named = [f"trunk={json.dumps(trunk.removeprefix(EMBEDDING))}", *overrides]
    return load_settings(EmbeddingSettings if is_embedder else TransformerSettings, overrides=named)
