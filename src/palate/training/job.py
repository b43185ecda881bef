"""What determines an expert: the anchor, the adapter's shape, the training settings, the data."""

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from palate.core.errors import MissingExtraError
from palate.core.settings import Settings
from palate.core.types import PreferencePair
from palate.models.load import Base
from palate.models.processes import n_launched
from palate.training.anchors import Anchor
from palate.training.pairs import Sequences
from palate.training.placement import AdapterSettings
from palate.training.rollouts import RewardScores, Rollout

if TYPE_CHECKING:
    from palate.training.spectral import SpectralSolver

LOG_EVERY = 5  # steps between the reports to a tracker
_SAME_NAMES = {  # of settings and TRL's arguments
    *("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "max_grad_norm"),
}


class TrainSettings(Settings):
    """How every expert of a library is trained."""

    RENAMED = {  # noqa: RUF012  (a ClassVar of the base)
        "n_steps": "max_steps",
        "batch_pairs": "per_device_train_batch_size",
        "accumulate": "gradient_accumulation_steps",
        "warmup_fraction": "warmup_ratio",
        "max_tokens": "max_length",
        "n_generations": "num_generations",
        "answer_tokens": "max_completion_length",
    }

    # see `palate.training.train`
    method: Literal["dpo", "rebel", "dpo_human", "grpo", "spectral"] = "rebel"
    beta: float = Field(default=0.1, gt=0)  # reward units per nat of KL
    max_steps: int = Field(default=100, ge=1)  # optimizer steps
    per_device_train_batch_size: int = Field(default=16, ge=1)  # pairs; for `grpo` answers
    gradient_accumulation_steps: int = Field(default=1, ge=1)  # passes of a step
    # AdamW's, after a linear warm-up and before a linear decay to zero
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)  # share of the steps that warm up
    max_grad_norm: float = Field(default=1.0, gt=0)  # gradients are clipped to this length
    pairs_per_prompt: int = Field(default=8, ge=1)  # pairs drawn from each prompt's rollouts
    pair_choice: Literal["sampled", "widest"] = "sampled"  # or those of the largest reward gaps
    label_gain: float = Field(default=10.0, gt=0)  # for `dpo`: log-odds of a label per reward unit
    max_length: int = Field(default=512, ge=2)  # for `dpo_human`: tokens of prompt and answer
    num_generations: int = Field(default=8, ge=2)  # for `grpo`: answers per prompt and step
    max_completion_length: int = Field(default=64, ge=1)  # for `grpo`: most tokens of an answer
    # on-policy rounds: after each but the last, every expert answers `n_round_prompts` prompts, and
    # all experts are trained anew with these answers beside the others
    n_rounds: int = Field(default=1, ge=1)
    n_round_prompts: int = Field(default=100, ge=1)  # see `n_rounds`
    save_steps: int = Field(default=10, ge=0)  # between checkpoints; 0 for none
    n_threads: int = Field(default=0, ge=0)  # a part of what determines the result; 0: torch's own


@dataclass(frozen=True)
class ExpertJob:
    """What determines an expert, besides base and data."""

    anchor: Anchor
    adapter: AdapterSettings
    training: TrainSettings
    seed: int  # common to all experts of a library, so that they start from the same A


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What experts learn from; a method uses the part it needs."""

    rollouts: Sequence[Rollout] = ()  # the base's scored answers, for `dpo` and `rebel`
    sequences: Sequences = field(default_factory=lambda: Sequences((), ()))  # their token ids
    reference: Float[np.ndarray, " rollouts"] = field(default_factory=lambda: np.zeros(0))  # log p
    human_pairs: Mapping[str, Sequence[PreferencePair]] = field(default_factory=dict)  # `dpo_human`
    prompts: Sequence[str] = ()  # for `grpo`
    reward: RewardScores | None = None  # for `grpo`
    solver: "SpectralSolver | None" = None  # for `spectral`


@dataclass(frozen=True)
class Tracking:
    """Where training is reported; it does not change the expert."""

    report_to: str = "none"  # or `tensorboard`, `wandb`, `trackio`
    folder: Path | None = None  # of the tracker's files and of checkpoints; else there are none

    @contextmanager
    def output(self) -> Generator[str]:
        """The trainer's output folder; warnings are off, which are notes of libraries' own."""
        with warnings.catch_warnings(), TemporaryDirectory() as scratch:
            warnings.simplefilter("ignore")  # on their own deprecated settings
            yield scratch if self.folder is None else str(self.folder)


UNTRACKED = Tracking()


def require_tracker(report_to: str) -> None:
    """Return when the tracker's package is installed; MissingExtraError where it is not."""
    if report_to != "none" and find_spec(report_to) is None:
        raise MissingExtraError(
            f"The setting report_to={report_to} needs the package {report_to}; run pip install "
            f"{report_to} or set it to none."
        )


def pass_pairs(settings: TrainSettings) -> int:
    """Pairs of one pass of all processes together."""
    return settings.per_device_train_batch_size * n_launched()


def trainer_arguments(base: Base, job: ExpertJob, tracking: Tracking) -> dict[str, Any]:
    """The arguments that all of TRL's trainers share."""
    settings = job.training
    saves = tracking.folder is not None and settings.save_steps > 0
    return {
        **settings.model_dump(include=_SAME_NAMES),
        "lr_scheduler_type": "linear",
        "warmup_steps": round(settings.warmup_ratio * settings.max_steps),
        "weight_decay": 0.0,
        "seed": job.seed % 2**32,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": base.device.type == "cpu",
        "dataloader_num_workers": 0,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "save_strategy": "steps" if saves else "no",
        "save_steps": settings.save_steps or 1,
        "save_total_limit": 2,
        "logging_strategy": "no" if tracking.report_to == "none" else "steps",
        "logging_steps": LOG_EVERY,
        "run_name": job.anchor.name,
        "report_to": tracking.report_to,
        "disable_tqdm": True,
    }
