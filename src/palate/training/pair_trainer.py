"""Training on pairs of answers, through TRL's DPO trainer.

`PairTrainer` is TRL's `DPOTrainer` given token ids and reference log-probabilities instead of
text, so that what was sampled is what is trained on and the reference is read once for all experts.

Deviations from TRL:
    1. Data is already tokenized, has its reference log-probabilities and stands in the order of
       training: two preparing methods return it as it is, and it is read in order.
    2. The loss is computed here from log-ratio gaps, for DPO as for REBEL. For DPO it equals TRL's
       own (a test compares them), which on a CPU takes four times as long for its metrics.
    3. TRL refuses an adapter on the unembedding because its own loss reads that matrix directly.
       This one reads the model's logits, so such an adapter is put on after TRL's constructor.
    4. No telemetry is sent.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from palate.core.errors import InvalidInputError
from palate.training.losses import dpo_loss, rebel_loss

OnStep = Callable[[int, int], None]  # (optimizer steps done, of all)
OnLoss = Callable[[Tensor], None]  # the loss of one pass, on this process's share of the batch


class PairTrainer(DPOTrainer):
    """TRL's trainer on prepared pairs; see the module's text."""

    def __init__(
        self,
        *,
        model: Any,
        args: DPOConfig,
        train_dataset: Dataset,
        tokenizer: Any,
        peft_config: LoraConfig,
        is_rebel: bool,
    ) -> None:
        """Put a fresh adapter on the model.

        Args:
            model: The base; it is changed, so give a copy.
            args: With `precompute_ref_log_probs`, whose values the data already holds.
            train_dataset: Columns of `pair_rows`.
            tokenizer: The base's.
            peft_config: The adapter; initialised from `args.seed`.
            is_rebel: Regress on reward gaps instead of classifying the chosen answer.
        """
        head = model.get_output_embeddings()
        targets = peft_config.target_modules or ()
        is_on_head = any(
            module is head and name in targets for name, module in model.named_modules()
        )
        self._is_rebel = is_rebel
        self.on_loss: OnLoss | None = None
        super().__init__(
            model=model,
            args=args,
            data_collator=PairCollator(DataCollatorForPreference(tokenizer.pad_token_id), is_rebel),
            train_dataset=train_dataset,
            processing_class=tokenizer,
            peft_config=None if is_on_head else peft_config,
        )
        require_sharded(self.accelerator)
        if is_on_head:
            torch.manual_seed(args.seed)
            self.model = self.model_wrapped = get_peft_model(model, peft_config)

    def _prepare_dataset(self, dataset: Dataset, *_args: Any, **_named: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_args: Any, **_named: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def _send_telemetry(self) -> None:
        return

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:  # noqa: ARG002, FBT001  TRL's signature
        log_probs = completion_log_probs(
            model,
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            completion_mask=inputs["completion_mask"],
        )
        first, second = log_probs.chunk(2)
        gaps = (first - inputs["ref_chosen_logps"]) - (second - inputs["ref_rejected_logps"])
        if self._is_rebel:
            loss = rebel_loss(gaps, inputs["reward_gaps"], beta=self.beta)
        else:
            loss = dpo_loss(gaps, beta=self.beta)
        if self.on_loss is not None:
            self.on_loss(loss.detach())
        return loss


@dataclass(frozen=True)
class PairCollator:
    """TRL's batch of pairs, with the reward gaps where they are needed."""

    inner: DataCollatorForPreference
    has_reward_gaps: bool

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`[first answers; second answers]`, padded on the right."""
        batch = self.inner(list(examples))
        if self.has_reward_gaps:
            batch["reward_gaps"] = torch.tensor([row["reward_gap"] for row in examples])
        return batch


class StepReport(TrainerCallback):
    """Tells how far training is."""

    def __init__(self, on_step: OnStep) -> None:
        """Keep whom to tell."""
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_named: Any) -> None:  # noqa: ARG002  the library's signature
        """Called by the trainer after every optimizer step."""
        self._on_step(state.global_step, state.max_steps)


def completion_log_probs(
    model: Any,
    *,
    input_ids: Float[Tensor, "sequences seq"],
    attention_mask: Float[Tensor, "sequences seq"],
    completion_mask: Float[Tensor, "sequences seq"],
) -> Float[Tensor, " sequences"]:
    """Log-probability of each sequence's completion tokens given what stands before them, in nats.

    Summed over tokens, in float32; padding is on the right.
    """
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    chosen = completion_mask[:, 1:].bool()
    rows = logits[:, :-1][
        chosen
    ].float()  # [completion tokens, vocab]: prompts and padding cost nothing
    picked = rows.gather(1, input_ids[:, 1:][chosen].unsqueeze(1)).squeeze(1)
    per_token = picked - rows.logsumexp(dim=1)
    owner = torch.nonzero(chosen)[:, 0]
    return per_token.new_zeros(len(input_ids)).index_add(0, owner, per_token)


def require_sharded(accelerator: Any) -> None:
    """Return when the launch asks for no sharding, or gets what it asks for.

    accelerate takes plain data parallelism for FSDP where there are only CPUs, without a word, and
    its first version of FSDP keeps parameters in a form that is not gathered here.

    Raises:
        InvalidInputError: FSDP is asked for and not in force, or in version 1.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    if str(accelerator.distributed_type).rpartition(".")[2] != "FSDP":
        raise InvalidInputError(
            f"The launch asks for FSDP, but accelerate runs {accelerator.distributed_type} on "
            f"{accelerator.device.type} and would shard nothing; use examples/accelerate/ddp.yaml "
            "or ddp-cpu.yaml."
        )
    if not accelerator.is_fsdp2:
        raise InvalidInputError(
            "The launch asks for FSDP in version 1; set fsdp_version to 2, as "
            "examples/accelerate/fsdp.yaml does."
        )


def whole_parameters(model: Any) -> dict[str, Tensor] | None:
    """The trained parameters put together from all processes' shards; `None` where none is.

    All processes must call it at once.
    """
    found = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not any(isinstance(value, DTensor) for value in found.values()):
        return None
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in found.items()
    }


def trained_adapter(trainer: Any) -> PeftModel:
    """Runs the trainer, quietly, and returns its model in evaluation mode."""
    trainer.remove_callback(PrinterCallback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' notes on their own deprecated settings
        trainer.train()
    trainer.model.eval()
    return trainer.model
