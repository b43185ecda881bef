"""The small world's base: make it from nothing, and measure it.

Source of the design: `research/world/README.md`.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import write_folder_atomic, write_text_atomic
from palate.core.progress import progress_of
from palate.models.load import load_base
from research.world.card import model_card
from research.world.measurement import Measurement, measure
from research.world.pretrain import Pretrained, PretrainSettings, pretrain
from research.world.topics import TOPICS


@dataclass(frozen=True)
class WorldTrained:
    """A base that was made and measured.

    Attributes:
        folder: Where it is.
        n_parameters: Of the model; tied ones count once.
        train_seconds: Wall clock of tokenizer and training.
        loss: Mean of the last hundred steps, nats per answer token.
        measurement: On held-out prompts.
    """

    folder: Path
    n_parameters: int
    train_seconds: float
    loss: float
    measurement: Measurement

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {
            "folder": str(self.folder),
            "parameters": self.n_parameters,
            "train_seconds": round(self.train_seconds, 1),
            "loss": self.loss,
            "measurement": self.measurement.to_json(),
        }


def train_world(settings: PretrainSettings, *, out: Path, n_answers: int = 500) -> WorldTrained:
    """Make a base with its tokenizer and model card in the folder `out`.

    Raises:
        InvalidInputError: the folder exists.
    """
    if out.exists():
        raise InvalidInputError(f"The folder {str(out)!r} exists; give a new one.")
    start = time.monotonic()
    trained = _train(settings)
    seconds = time.monotonic() - start
    write_folder_atomic(out, trained.save)
    outcome = WorldTrained(
        folder=out,
        n_parameters=trained.model.num_parameters(),
        train_seconds=seconds,
        loss=sum(trained.losses[-100:]) / len(trained.losses[-100:]),
        measurement=measure_world(out, n_answers=n_answers, seed=settings.seed),
    )
    card = model_card(
        settings,
        n_topics=len(TOPICS),
        seconds=seconds,
        loss=outcome.loss,
        found=outcome.measurement,
    )
    write_text_atomic(out / "README.md", card)
    return outcome


def measure_world(folder: Path, *, n_answers: int, seed: int) -> Measurement:
    """Measure the base in a folder on held-out prompts.

    Raises:
        InvalidInputError: there is no such folder, or no answer is asked for.
        FormatError: it holds no causal language model with a tokenizer.
    """
    if n_answers < 1:
        raise InvalidInputError(f"{n_answers} answers cannot be measured; ask for at least one.")
    base = load_base(folder)
    with progress_of("measure the base") as report:
        return measure(base.model, base.tokenizer, n_answers=n_answers, seed=seed, on_batch=report)


def _train(settings: PretrainSettings) -> Pretrained:
    with progress_of("train the base") as report:
        return pretrain(settings, on_step=lambda step, _loss: report(step, settings.steps))
