"""Training a controller: sample pairs under it, learn from them, again.

    for every update
        draw prompts and, for each, one of the training combinations
        answer each twice under the controller as it is; the experts run only here
        learn for a few epochs from one number per token and expert

Processes that work together (`accelerate launch`) share the sampling and the steps; all of them
end with the same controller, and the first one writes the files.

Each update appends a line to `curves.jsonl`. Combinations that are held out of training are only
ever measured.

Source:
    MoPE, arXiv 2407.04181; methods mope 5.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from palate.core.errors import InvalidInputError
from palate.core.files import append_jsonl, hash_value, read_jsonl, write_jsonl
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.engine.local import LocalEngine
from palate.mixture.checkpoint import load_checkpoint, save_checkpoint
from palate.mixture.learn import Learned, learn, new_optimizer
from palate.mixture.monitors import Summary, summarise
from palate.mixture.rollout import Judge, Sample, sample
from palate.mixture.settings import FitSettings
from palate.mixture.tensors import Answers
from palate.mixture.wording import Asked, Wording
from palate.models.processes import is_first

CURVES = "curves.jsonl"
CHECKPOINT = "checkpoint"
ANSWERS = "answers"


@dataclass(frozen=True, eq=False)
class Task:
    """What a controller is trained on.

    Attributes:
        engine: Has the controller that is trained under the name `rollout.CONTROLLER`.
        wording: What everybody reads.
        judge: Gives the rewards.
        prompts: Training prompts.
        combinations: Strengths over the experts, one row per training combination.
    """

    engine: LocalEngine
    wording: Wording
    judge: Judge
    prompts: tuple[str, ...]
    combinations: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a task with nothing to ask."""
        if not self.prompts or not self.combinations:
            raise InvalidInputError(
                f"There are {len(self.prompts)} prompts and {len(self.combinations)} combinations "
                "to train on; give at least one of each."
            )

    def key(self, settings: FitSettings) -> str:
        """Hash of what determines a run but for base and adapters."""
        parts = [settings.model_dump(), self.prompts, self.combinations, self.wording.instructions]
        return hash_value(parts)


@dataclass(eq=False)
class Memory:
    """The answers of all updates so far, on disk so that an interrupted run has them.

    Attributes:
        folder: One file per update.
        parts: What the files hold, in order.
    """

    folder: Path
    parts: list[Answers]

    @classmethod
    def of(cls, folder: Path, *, n_updates: int) -> "Memory":
        """What the first so many updates left."""
        return cls(folder, [Answers.load(_part(folder, update)) for update in range(n_updates)])

    def with_part(self, answers: Answers, *, update: int) -> Answers:
        """All answers with these behind them; these are kept."""
        if is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            answers.save(_part(self.folder, update))
        self.parts.append(answers)
        return Answers.joined(self.parts)


def _part(folder: Path, update: int) -> Path:
    return folder / f"{update:04d}.safetensors"


def fit(
    controller: nn.Module,
    task: Task,
    settings: FitSettings,
    *,
    folder: Path,
    on_update: Callable[[int, dict[str, Any]], None] = lambda _update, _row: None,
) -> list[dict[str, Any]]:
    """Train the controller in place; goes on from the folder's checkpoint if there is one.

    Args:
        controller: As new; `outcome` and the task's engine use it.
        task: Experts, judge, prompts, combinations.
        settings: Sizes and rates.
        folder: For `curves.jsonl` and the checkpoint.
        on_update: Called after each update with its number, from one, and its line.

    Returns:
        The curves: one row per update, as in the file.

    Raises:
        FormatError: the folder holds a checkpoint of another run.
    """
    optimizer = new_optimizer(controller, settings)
    key = task.key(settings)
    done = load_checkpoint(folder / CHECKPOINT, controller, optimizer, key=key)
    curves = _curves(folder / CURVES, n_updates=done)
    memory = Memory.of(folder / ANSWERS, n_updates=done) if settings.loss.is_replayed else None
    rates = [group["lr"] for group in new_optimizer(controller, settings).param_groups]
    for update in range(done, settings.n_updates):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1.0 - update / settings.n_updates)
        samples, learned = _update(
            controller, optimizer, task, settings, update=update, memory=memory
        )
        row = _row(update + 1, summarise(samples), learned)
        curves.append(row)
        if is_first():
            append_jsonl(folder / CURVES, [row])
        is_due = (update + 1) % settings.checkpoint_every == 0 or update + 1 == settings.n_updates
        if is_first() and is_due:
            save_checkpoint(
                folder / CHECKPOINT, controller, optimizer, n_updates=update + 1, key=key
            )
        on_update(update + 1, row)
    return curves


def training_asked(task: Task, *, n_pairs: int, generator: np.random.Generator) -> list[Asked]:
    """Prompts and combinations of one update, every one twice in a row."""
    prompts = generator.integers(len(task.prompts), size=n_pairs)
    combinations = generator.integers(len(task.combinations), size=n_pairs)
    asked = [
        Asked(task.prompts[p], task.combinations[c])
        for p, c in zip(prompts.tolist(), combinations.tolist(), strict=True)
    ]
    return [item for item in asked for _ in range(2)]


def _update(
    controller: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    settings: FitSettings,
    *,
    update: int,
    memory: "Memory | None",
) -> tuple[list[Sample], Learned]:
    generator = generator_for(settings.seed, "update", update)
    asked = training_asked(task, n_pairs=settings.n_pairs, generator=generator)
    controller.eval()
    samples = sample(
        task.engine,
        task.wording,
        task.judge,
        asked,
        sampling=SamplingParams(temperature=1.0, max_tokens=settings.max_tokens),
        seed=derive_seed(settings.seed, "answers", update),
    )
    answers = Answers.of(samples, device=next(controller.parameters()).device)
    learned = learn(
        controller,
        optimizer,
        answers if memory is None else memory.with_part(answers, update=update),
        drawn=torch.tensor([one.log_prob for one in samples]),
        settings=settings,
        generator=generator,
    )
    return samples, learned


def _curves(path: Path, *, n_updates: int) -> list[dict[str, Any]]:
    """The lines of the updates that the checkpoint has; later ones are cut off the file."""
    if not path.is_file():
        return []
    rows = read_jsonl(path, what="curves file", is_torn_end_dropped=True)
    kept = [row for row in rows if row["update"] <= n_updates]
    if is_first():
        write_jsonl(path, kept)
    return kept


def _row(update: int, summary: Summary, learned: Learned) -> dict[str, Any]:
    return {"update": update, **summary.to_json(), **asdict(learned)}


def combinations_of(strengths: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """The rows as tuples of numbers."""
    return tuple(tuple(float(value) for value in row) for row in strengths)
