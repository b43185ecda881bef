"""One expert: a LoRA adapter trained for one anchor, through TRL.

Methods:
    dpo         pairs of rollouts, labelled with log-odds `label_gain * (reward gap)`; TRL's DPO
    rebel       the same pairs, the log-ratio gap regressed on the reward gap: no labels to sample
    dpo_human   TRL's DPO on users' own pairs
    grpo        TRL's GRPO: the adapter answers the prompts itself and the reward vector scores it
    spectral    one ridge regression on the unembedding, without gradient steps; see `spectral`

`beta` is the price of a nat of KL in reward units, one number for a whole library, so that `dpo`,
`rebel`, `grpo` and `spectral` aim at the same policy `pi_0 exp(reward / beta)` and soups of experts
mean something. Every expert starts from the same A (and B = 0) and, with sampled
pairs, sees the same pairs in the same order.

Source:
    Spectral Souping, arXiv 2605.20408, section 4.1; REBEL in MoPE, arXiv 2407.04181, section 5.2.

Deviations:
    1. Labels are sampled with a stated gain and TRL is given `label_gain * beta`, so that the
       optimum has the KL price `beta` whatever the gain; the papers' gain and beta are unknown. The
       gain of users' labels is unknown, too; it is taken to be one.
    2. REBEL's reference stays the frozen base, see `palate.training.pair_trainer`.
"""

import os
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from peft import PeftModel
from trl import __version__ as trl_version
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.progress import note
from palate.core.seeds import generator_for
from palate.models.load import Base
from palate.training.grpo import train_grpo
from palate.training.job import (
    UNTRACKED,
    ExpertJob,
    Tracking,
    TrainingData,
    pass_pairs,
    trainer_arguments,
)
from palate.training.pair_trainer import OnLoss, OnStep, PairTrainer, trained_adapter
from palate.training.pairs import (
    Pairs,
    Sequences,
    encode_human_pairs,
    encode_rollouts,
    label_pairs,
    pairs_of_rollouts,
    reference_log_probs,
    sequence_log_probs,
    training_order,
)
from palate.training.placement import lora_config, unembedding
from palate.training.rollouts import Rollout
from palate.training.spectral import SpectralSolver, head_states, joined, spectral_adapter

TRL_MAJOR = 1  # `PairTrainer` replaces methods of TRL 1.16; its tests run against the installed one
_NEEDED = ("_prepare_dataset", "_precompute_ref_logps", "_compute_loss")


def rollout_data(
    base: Base,
    rollouts: Sequence[Rollout],
    *,
    method: str = "rebel",
    folder: Path | None = None,
    seed: int = 0,
) -> TrainingData:
    """What a method needs of the rollouts, ready for any anchor.

    For `spectral` that is the solver over hidden states, else reference log-probabilities; either
    is stored in the folder once it is computed. The seed is the solver's.
    """
    n_base = sum(1 for row in rollouts if not row.expert)  # they stand before later rounds' answers
    sequences = [encode_rollouts(base, part) for part in (rollouts[:n_base], rollouts[n_base:])]
    data = TrainingData(rollouts=rollouts, sequences=sequences[0] + sequences[1])
    if method != "spectral":
        parts = [reference_log_probs(base, part, folder=folder) for part in sequences]
        return replace(data, reference=np.concatenate(parts))
    full = [part for part in sequences if len(part)]
    states = joined(
        [head_states(base, part, folder=folder) for part in full], sizes=[*map(len, full)]
    )
    solver = SpectralSolver(
        states,
        [row.prompt for row in rollouts],
        np.array([row.rewards for row in rollouts]),
        n_vocabulary=unembedding(base.model).get_parameter("weight").shape[0],
        seed=seed,
    )
    return replace(data, solver=solver)


def train_expert(
    base: Base,
    job: ExpertJob,
    data: TrainingData,
    *,
    on_step: OnStep | None = None,
    tracking: Tracking = UNTRACKED,
    on_loss: OnLoss | None = None,
) -> PeftModel:
    """The base with a trained adapter; the given base itself stays as it was.

    `on_step` hears steps done and steps in all, `on_loss` the loss of every pass, but not by
    `grpo`.

    Raises:
        InvalidInputError: the data lack what the method needs, or training diverged.
        MissingExtraError: TRL is of another major version.
    """
    require_trl()
    with deterministic(n_threads=job.training.n_threads):
        if job.training.method == "grpo":
            model = train_grpo(base, job, data, on_step=on_step, tracking=tracking)
        elif job.training.method == "spectral":
            model = _solved(base, job, data)
        else:
            model = _train_pairs(
                base, job, data, on_step=on_step, tracking=tracking, on_loss=on_loss
            )
    _require_finite(model, name=job.anchor.name)
    return model


def tilt_of(
    model: PeftModel,
    sequences: Sequences,
    reference: Float[np.ndarray, " answers"],
    *,
    beta: float,
    on_batch: OnStep | None = None,
) -> Float[np.ndarray, " answers"]:
    """`[answers]`: `beta * log expert/base` of whole answers, in reward units.

    Reference log-probabilities are the base's, in nats; `on_batch` hears answers done and answers
    in all.
    """

    def report(_values: list[float], done: int) -> None:
        if on_batch is not None:
            on_batch(done, len(sequences))

    return beta * (sequence_log_probs(model, sequences, on_batch=report) - reference)


def pair_rows(
    sequences: Sequences,
    pairs: Pairs,
    reference: Float[np.ndarray, " answers"],
    *,
    order: Int[np.ndarray, " steps"],
) -> Dataset:
    """The pairs of this order, in the columns of TRL's preference trainers."""
    first, second = pairs.first[order], pairs.second[order]
    columns: dict[str, Any] = {
        "prompt_ids": [list(sequences.prompts[place]) for place in first],
        "chosen_ids": [list(sequences.answers[place]) for place in first],
        "rejected_ids": [list(sequences.answers[place]) for place in second],
        "ref_chosen_logps": reference[first].tolist(),
        "ref_rejected_logps": reference[second].tolist(),
        "reward_gap": pairs.reward_gaps[order].tolist(),
    }
    return Dataset.from_dict(columns)


def require_trl() -> str:
    """The installed version of TRL.

    Raises:
        MissingExtraError: it is of another major version, or lacks the methods that `PairTrainer`
            replaces.
    """
    lacking = [name for name in _NEEDED if not hasattr(DPOTrainer, name)]
    if int(trl_version.split(".")[0]) != TRL_MAJOR or lacking:
        raise MissingExtraError(
            f"The package trl has version {trl_version}, but palate trains with version "
            f"{TRL_MAJOR}.16; run pip install 'trl==1.16.0'."
        )
    return trl_version


@contextmanager
def deterministic(*, n_threads: int) -> Generator[None]:
    """While in force, equal seeds give equal bytes; afterwards torch is set as it was.

    On a GPU the same holds for one kind of GPU and one version of torch.
    """
    if torch.cuda.is_available():  # cuBLAS is deterministic only with a fixed workspace
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    python_state = random.getstate()
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(n_threads or threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=before)


def _solved(base: Base, job: ExpertJob, data: TrainingData) -> PeftModel:
    """The closed-form expert; what it says of itself is printed."""
    if data.solver is None:
        raise InvalidInputError("The method spectral needs hidden states of the rollouts.")
    reward = job.anchor.scalarise(np.array([row.rewards for row in data.rollouts]))
    expert = data.solver.solve(reward, beta=job.training.beta, rank=job.adapter.r)
    note(
        f"expert {job.anchor.name}: correlation of tilt and reward on prompts left out "
        f"{expert.correlation:.2f}, ridge {expert.ridge:g}, energy kept at rank {job.adapter.r} "
        f"{expert.energy:.2f}"
    )
    return spectral_adapter(base, expert, lora_config(base.model, job.adapter))


def _train_pairs(
    base: Base,
    job: ExpertJob,
    data: TrainingData,
    *,
    on_step: OnStep | None,
    tracking: Tracking,
    on_loss: OnLoss | None,
) -> PeftModel:
    settings = job.training
    n_batches = settings.max_steps * settings.gradient_accumulation_steps
    if settings.method == "dpo_human":
        sequences, pairs = encode_human_pairs(
            base,
            data.human_pairs,
            job.anchor,
            n_pairs=n_batches * pass_pairs(settings),
            max_tokens=settings.max_length,
            seed=job.seed,
        )
        reference = reference_log_probs(base, sequences)
    else:
        sequences, reference = data.sequences, data.reference
        pairs = pairs_of_rollouts(
            data.rollouts,
            job.anchor,
            n_per_prompt=settings.pairs_per_prompt,
            seed=job.seed,
            is_widest=settings.pair_choice == "widest",
        )
    if settings.method == "dpo":
        pairs = label_pairs(
            pairs, gain=settings.label_gain, generator=generator_for(job.seed, "labels")
        )
    order = training_order(
        pairs.lengths(sequences),
        n_batches=n_batches,
        batch=pass_pairs(settings),
        generator=generator_for(job.seed, "order"),
    )
    with tracking.output() as folder:
        trainer = PairTrainer(
            model=deepcopy(base.model),
            args=DPOConfig(
                folder,
                beta=settings.beta * (settings.label_gain if settings.method == "dpo" else 1.0),
                precompute_ref_log_probs=True,
                max_length=None,
                **trainer_arguments(base, job, tracking),
            ),
            train_dataset=pair_rows(sequences, pairs, reference, order=order),
            tokenizer=base.tokenizer,
            peft_config=lora_config(base.model, job.adapter),
            is_rebel=settings.method == "rebel",
        )
        trainer.on_loss = on_loss
        return trained_adapter(trainer, on_step=on_step)


def _require_finite(model: PeftModel, *, name: str) -> None:
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise InvalidInputError(
                f"Training the expert {name!r} diverged: {parameter_name} is not finite; lower "
                "'learning_rate' or raise 'beta'."
            )
