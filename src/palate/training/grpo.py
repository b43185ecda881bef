"""Training on the adapter's own answers, through TRL's GRPO trainer.

Each objective is one reward function and the anchor's direction gives TRL's reward coefficients.
The constant by which a signed direction differs from `Anchor.scalarise` cancels in group means.

Deviations from TRL's defaults:
    1. Advantages are not divided by the group's standard deviation, and every token has the same
       share of the loss, so that `beta` is a KL price in reward units as in the other methods.
    2. No telemetry is sent.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from datasets import Dataset
from peft import PeftModel
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from palate.core.errors import InvalidInputError
from palate.models.chat import encode_prompt, format_messages
from palate.models.load import Base
from palate.rewards.texts import messages_of
from palate.training.job import UNTRACKED, ExpertJob, Tracking, TrainingData, trainer_arguments
from palate.training.pair_trainer import OnStep, trained_adapter
from palate.training.placement import lora_config
from palate.training.rollouts import RewardScores

RewardFunction = Callable[..., list[float | None]]


class QuietGRPOTrainer(GRPOTrainer):
    """TRL's trainer, sending nothing."""

    def _send_telemetry(self) -> None:
        return


def train_grpo(
    base: Base,
    job: ExpertJob,
    data: TrainingData,
    *,
    on_step: OnStep | None = None,
    tracking: Tracking = UNTRACKED,
) -> PeftModel:
    """The base with an adapter trained on its own answers.

    Raises:
        InvalidInputError: prompts or reward are missing, the adapter is on the unembedding, or a
            step's answers are no whole number of groups.
    """
    settings = job.training
    if not data.prompts or data.reward is None:
        raise InvalidInputError("The method 'grpo' needs prompts and rewards; give both.")
    if job.adapter.adapts_head:
        raise InvalidInputError(
            "The method 'grpo' cannot train an adapter on the unembedding (TRL reads that matrix "
            "directly); use method 'rebel' or 'dpo', or other target_modules."
        )
    n_answers = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    if n_answers % settings.num_generations:
        raise InvalidInputError(
            f"The method 'grpo' takes {n_answers} answers a step, which is no multiple of "
            f"num_generations={settings.num_generations}; make it one."
        )
    as_written = {prompt_to_tokenize(base, prompt): prompt for prompt in data.prompts}
    with tracking.output() as folder:
        model: Any = deepcopy(base.model)
        trainer = QuietGRPOTrainer(
            model=model,
            reward_funcs=[*reward_functions(data.reward, as_written=as_written)],
            args=GRPOConfig(
                folder,
                beta=settings.beta,
                reward_weights=list(job.anchor.direction),
                num_generations=settings.num_generations,
                max_completion_length=settings.max_completion_length,
                temperature=1.0,
                scale_rewards="none",
                loss_type="dr_grpo",
                **trainer_arguments(base, job, tracking),
            ),
            train_dataset=Dataset.from_list([{"prompt": text} for text in as_written]),
            processing_class=base.tokenizer,
            peft_config=lora_config(base.model, job.adapter),
        )
        return trained_adapter(trainer, on_step=on_step)


def prompt_to_tokenize(base: Base, prompt: str) -> str:
    """The formatted prompt, without a beginning token that the tokenizer adds by itself."""
    text = format_messages(base, messages_of(prompt))
    bare = text.removeprefix(str(base.tokenizer.bos_token or ""))
    return bare if list(base.tokenizer(bare)["input_ids"]) == encode_prompt(base, text) else text


def reward_functions(reward: RewardScores, *, as_written: dict[str, str]) -> list[RewardFunction]:
    """One of TRL's reward functions per objective; they share one scoring of a batch.

    `as_written` has the user's prompt by the formatted prompt.
    """
    last: dict[tuple[str, ...], Any] = {}

    def scores(prompts: Sequence[str], completions: Sequence[str]) -> Any:
        key = (*prompts, *completions)
        if key not in last:
            last.clear()
            last[key] = reward.score([as_written[text] for text in prompts], list(completions))
        return last[key]

    def function(column: int, name: str) -> RewardFunction:
        def score(
            prompts: Sequence[str], completions: Sequence[str], **_named: Any
        ) -> list[float | None]:
            return scores(prompts, completions)[:, column].tolist()

        score.__name__ = name
        return score

    return [function(column, name) for column, name in enumerate(reward.objectives)]
