"""Rollouts: the base's own answers, sampled and scored once, labelled for any preference.

Every prompt is answered `num_generations` times by the base, and `num_prompted_generations` times
under each objective's instruction: what the base never says by chance cannot be learned from its
own samples. Rewards come after sampling, because their scales are fitted on the base's answers;
then each anchor's reward is a dot product and no expert needs sampling of its own.

Finished chunks of prompts are appended to a file; after an interruption the rest is sampled again.
Seeds depend on the prompt and the number of the answer alone, so the finished file has the same
bytes as without the interruption.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from pydantic import Field

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import append_jsonl, read_jsonl, write_jsonl
from palate.core.plan import member_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.settings import Settings
from palate.engine.protocol import Engine
from palate.training.anchors import require_rewards

Progress = Callable[[int, int], None]  # (done, of all)
Format = Callable[[str, str], str]  # a prompt and an instruction -> as the base reads them


_SOURCES = ("instruction", "expert")  # left out of a file where they are empty


class RewardScores(Protocol):
    """Several objectives at once, on one scale."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        ...

    def score(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[np.ndarray, "texts objectives"]:
        """`[texts, objectives]` in [0, 1]."""
        ...


@dataclass(frozen=True)
class Rollout:
    """One answer of the base; the fields are the columns of a rollouts file."""

    prompt: str
    completion: str
    tokens: tuple[int, ...]  # with the end token when it ended by itself
    log_prob: float  # as it was sampled, nats
    rewards: tuple[float, ...]  # `[objectives]` in [0, 1]; empty before scoring
    finish: str  # `stop` when it ended by itself, `length` when it was cut
    instruction: str = ""  # the system sentence it was sampled under
    expert: str = ""  # the expert that gave it in an on-policy round


class RolloutSettings(Settings):
    """How the base is sampled."""

    RENAMED = {  # noqa: RUF012  (a ClassVar of the base)
        "n_completions": "num_generations",
        "max_tokens": "max_completion_length",
    }

    num_generations: int = Field(default=8, ge=2)  # answers per prompt; two make a pair
    num_prompted_generations: int = Field(default=0, ge=0)  # further ones, by objective's words
    n_prompts: int = Field(default=0, ge=0)  # use the first so many prompts; 0 uses all
    temperature: float = Field(default=1.0, gt=0)  # one samples the base, which the KL price is to
    max_completion_length: int = Field(default=64, ge=1)  # most tokens of an answer
    chunk_prompts: int = Field(default=16, ge=1)  # prompts sampled and stored at a time


def _unprompted(prompt: str, instruction: str) -> str:
    return f"{instruction}\n\n{prompt}" if instruction else prompt


@dataclass(frozen=True)
class RolloutJob:
    """Everything that determines a rollouts file, but for the base."""

    prompts: tuple[str, ...]  # all different
    settings: RolloutSettings
    seed: int
    instructions: tuple[str, ...] = ()  # of the objectives, all different
    experts: tuple[str, ...] = ()  # that answer instead of the base, in the bank's order

    def __post_init__(self) -> None:
        """Refuse no prompts and prompts that occur twice."""
        if not self.prompts:
            raise InvalidInputError("There are no prompts to sample answers to; give at least one.")
        if len(set(self.prompts)) != len(self.prompts):
            twice = next(prompt for prompt in self.prompts if self.prompts.count(prompt) > 1)
            raise InvalidInputError(
                f"The prompt {twice[:60]!r} occurs more than once; list every prompt once."
            )

    @property
    def places(self) -> list[tuple[str, str, int]]:
        """Instruction, expert and number of every answer to one prompt, in order."""
        n, n_prompted = self.settings.num_generations, self.settings.num_prompted_generations
        if self.experts:
            return [("", name, place) for name in self.experts for place in range(n)]
        own = [("", "", place) for place in range(n)]
        texts = self.instructions
        return own + [(text, "", place) for text in texts for place in range(n_prompted)]


def own_answers(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The answers that the base gave under no instruction: samples of the reference."""
    return [row for row in rollouts if not row.instruction and not row.expert]


def sample_answers(
    engine: Engine,
    job: RolloutJob,
    path: Path,
    *,
    as_read: Format = _unprompted,
    on_progress: Progress | None = None,
) -> list[Rollout]:
    """The job's answers, without rewards; those already in `path` are read, the others sampled.

    The file grows chunk by chunk; `on_progress` hears prompts done and prompts in all.

    Raises:
        FormatError: `path` holds answers to other prompts.
    """
    step = job.settings.chunk_prompts
    rollouts = _finished(path, job)
    for start in range(len(rollouts) // len(job.places), len(job.prompts), step):
        rows = _chunk(engine, job, job.prompts[start : start + step], as_read)
        append_jsonl(path, (_to_json(row) for row in rows))
        rollouts += rows
        if on_progress is not None:
            on_progress(min(start + step, len(job.prompts)), len(job.prompts))
    return rollouts


def score_rollouts(answers: Sequence[Rollout], reward: RewardScores) -> list[Rollout]:
    """The answers with their reward vectors, to six decimals.

    Raises:
        InvalidInputError: a reward is not a number in [0, 1].
    """
    prompts = [row.prompt for row in answers]
    texts = [row.completion for row in answers]
    rewards = np.asarray(reward.score(prompts, texts), dtype=np.float64)
    require_rewards(rewards, objectives=reward.objectives)
    rewards = rewards.round(6)  # further digits say nothing and are a twentieth of a file
    return [
        replace(row, rewards=tuple(values))
        for row, values in zip(answers, rewards.tolist(), strict=True)
    ]


def write_rollouts(path: Path, rows: Sequence[Rollout], *, objectives: Sequence[str]) -> None:
    """Write the scored rollouts as a whole."""
    write_jsonl(path, (_to_json(row, objectives=objectives) for row in rows))


def read_rollouts(path: Path, *, objectives: Sequence[str]) -> list[Rollout]:
    """The rollouts of a finished file.

    Raises:
        InvalidInputError: the file is missing, a row is broken, or a reward is not in [0, 1].
    """
    rows = [
        _from_json(row, objectives=objectives, path=path)
        for row in read_jsonl(path, what="rollouts file")
    ]
    if rows:
        require_rewards(np.array([row.rewards for row in rows]), objectives=objectives)
    return rows


def _finished(path: Path, job: RolloutJob) -> list[Rollout]:
    """The whole chunks of an interrupted run; what follows them is cut off the file."""
    if not path.is_file():
        return []
    rows = [
        _from_json(row, path=path)
        for row in read_jsonl(path, what="rollouts file", is_torn_end_dropped=True)
    ]
    per_prompt, n_chunk = len(job.places), job.settings.chunk_prompts
    n_prompts = len(rows) // per_prompt
    n_whole = n_prompts if n_prompts == len(job.prompts) else n_prompts // n_chunk * n_chunk
    rows = rows[: n_whole * per_prompt]
    expected = [prompt for prompt in job.prompts[:n_whole] for _ in range(per_prompt)]
    if [row.prompt for row in rows] != expected:
        raise FormatError(
            f"The rollouts in {str(path)!r} are for other prompts than those of this job; "
            "remove the file or use another folder."
        )
    write_jsonl(path, (_to_json(row) for row in rows))
    return rows


def _chunk(
    engine: Engine, job: RolloutJob, prompts: Sequence[str], as_read: Format
) -> list[Rollout]:
    settings = job.settings
    sampling = SamplingParams(
        temperature=settings.temperature, max_tokens=settings.max_completion_length
    )
    n_experts = len(job.experts)
    plans = {"": reference_plan(n_experts=n_experts)} | {
        name: member_plan(index=index, n_experts=n_experts)
        for index, name in enumerate(job.experts)
    }
    items = [(prompt, *place) for prompt in prompts for place in job.places]
    completions = engine.generate(
        [
            Request(
                prompt=as_read(prompt, instruction),
                plan=plans[expert],
                sampling=sampling,
                seed=derive_seed(job.seed, "rollout", prompt, *source, place),
            )
            for prompt, instruction, expert, place in items
            for source in [[text for text in (instruction, expert) if text]]
        ]
    )
    return [
        Rollout(
            *(prompt, one.text, one.tokens, float(sum(one.log_probs)), (), one.finish),
            instruction=instruction,
            expert=expert,
        )
        for (prompt, instruction, expert, _), one in zip(items, completions, strict=True)
    ]


def _to_json(row: Rollout, *, objectives: Sequence[str] = ()) -> dict[str, Any]:
    content = {**asdict(row), "rewards": dict(zip(objectives, row.rewards, strict=True))}
    return {key: value for key, value in content.items() if value or key not in _SOURCES}


def _from_json(row: dict[str, Any], *, objectives: Sequence[str] = (), path: Path) -> Rollout:
    try:
        tokens = tuple(row.pop("tokens"))
        rewards = row.pop("rewards")
        return Rollout(**row, tokens=tokens, rewards=tuple(float(rewards[n]) for n in objectives))
    except (KeyError, TypeError) as error:
        raise FormatError(
            f"A row of {str(path)!r} is not a rollout of these objectives ({error!r}); "
            "sample the rollouts anew."
        ) from error
