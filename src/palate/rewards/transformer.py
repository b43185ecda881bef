"""The transformer trunk: a Bradley-Terry head on any Hugging Face checkpoint, through TRL.

The checkpoint, a causal model or an encoder, gets a head with one output and is trained whole by
TRL's RewardTrainer on `-log sigmoid(chosen - rejected)`. What comes out is a normal Hugging Face
folder of a sequence classifier.

Source: Ouyang et al. 2022, "Training Language Models to Follow Instructions", equation 1, K = 2.
"""

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from palate.core.errors import NotConvergedError
from palate.rewards.classifier import TransformerModel, encode, load_trunk
from palate.rewards.pairs import PairSet
from palate.rewards.settings import TransformerSettings


def fit_transformer(
    pairs: PairSet,
    *,
    settings: TransformerSettings,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> TransformerModel:
    """The reward after training on the pairs.

    The seed is of the head's first parameters and the order of pairs; `on_step` hears steps.

    Raises:
        InvalidInputError: the trunk is not there.
        FormatError: what is there is no model with a tokenizer.
        NotConvergedError: training ended in parameters that are not finite.
    """
    with _seeded(seed), TemporaryDirectory() as scratch:
        model, tokenizer = load_trunk(settings.trunk, revision=settings.revision)
        tokenizer.model_max_length = min(settings.max_length, tokenizer.model_max_length)
        rows = {
            "chosen_ids": [encode(tokenizer, pair.prompt, pair.chosen) for pair in pairs.pairs],
            "rejected_ids": [encode(tokenizer, pair.prompt, pair.rejected) for pair in pairs.pairs],
        }
        trainer = RewardTrainer(
            model=model.to(torch.device(settings.device)),
            args=RewardConfig(output_dir=scratch, **_arguments(settings, seed=seed)),
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
        )
        report_steps(trainer, on_step)
        trainer.train()
    model.eval().requires_grad_(requires_grad=False)
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise NotConvergedError(
                f"The parameter {name!r} is not finite after training; use a smaller learning rate."
            )
    return TransformerModel(model, tokenizer)


def _arguments(settings: TransformerSettings, *, seed: int) -> dict[str, Any]:
    return {
        **settings.model_dump(include={"num_train_epochs", "learning_rate", "weight_decay"}),
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warmup_ratio,  # below one: a share of the steps
        "max_length": None,  # texts are cut already; TRL would leave pairs out
        "seed": seed % 2**32,
        "bf16": False,
        "activation_checkpointing": False,
        "use_cpu": torch.device(settings.device).type == "cpu",
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


@dataclass(eq=False)
class _Steps(TrainerCallback):
    """Reports every step; transformers asks for a subclass here."""

    on_step: Callable[[int, int], None]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, control, kwargs
        self.on_step(state.global_step, state.max_steps)


def report_steps(trainer: Any, on_step: Callable[[int, int], None] | None) -> None:
    """Let one of TRL's trainers tell `on_step` its steps; its own report goes to the log only."""
    trainer.remove_callback(PrinterCallback)
    if on_step is not None:
        trainer.add_callback(_Steps(on_step))


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """TRL draws from the global generators: seed them, and put them back afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
