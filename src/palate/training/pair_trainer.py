"""DPO and REBEL on pairs of answers, through TRL's DPO trainer.

`PairTrainer` is TRL's `DPOTrainer` on token ids and reference log-probabilities instead of text, so
that the sampled tokens are trained on and the reference is computed once for all experts. Its
losses take the log-ratio gap `log pi(y)/pi_0(y) - log pi(y')/pi_0(y')` of two answers to one
prompt, summed over tokens including the end token, in nats.

Source:
    DPO: arXiv 2305.18290, equation 7. REBEL: arXiv 2404.16767, algorithm 1, as in MoPE, 2407.04181.

Deviations from the papers and from TRL:
    1. REBEL writes `((1/eta) gap - (r - r'))^2` and moves `pi_0` along with the policy; ours has
       `beta = 1/eta` and keeps `pi_0` at the frozen base, so that its optimum is
       `pi_0 exp(r / beta)` and not a step on the way.
    2. Data is already tokenized, has its reference log-probabilities and stands in the order of
       training: two preparing methods return it unchanged, and the sampler is sequential.
    3. The loss is computed here from log-ratio gaps. For DPO it equals TRL's own (a test compares
       them), which on a CPU takes four times as long for its metrics.
    4. TRL refuses an adapter on the unembedding because its own loss uses that matrix directly.
       This one uses the model's logits, so such an adapter is added after TRL's constructor.
    5. No telemetry is sent.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.data import SequentialSampler
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from palate.core.errors import InvalidInputError
from palate.rewards.transformer import report_steps

_STATES = "checkpoint-*/trainer_state.json"
OnStep = Callable[[int, int], None]  # (optimizer steps done, of all)
OnLoss = Callable[[Tensor], None]  # the loss of one pass, on this process's share of the batch


def dpo_loss(log_ratio_gaps: Float[Tensor, " pairs"], *, beta: float) -> Float[Tensor, ""]:
    """Mean of `-log sigmoid(beta * gap)`, the gap being chosen minus rejected.

    It is log 2 for the untrained adapter. At its optimum `beta * gap` is the log-odds of a label.
    """
    return -functional.logsigmoid(beta * log_ratio_gaps).mean()


def rebel_loss(
    log_ratio_gaps: Float[Tensor, " pairs"], reward_gaps: Float[Tensor, " pairs"], *, beta: float
) -> Float[Tensor, ""]:
    """Mean of `(beta * gap - reward gap)^2`, in squared reward units.

    Gaps are first answer minus second; `beta` is in reward units per nat. It is zero for the
    untrained adapter when rewards tie, and does not change when the two answers are swapped.
    """
    return (beta * log_ratio_gaps - reward_gaps).square().mean()


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

        The model is changed, so give a copy. `args` have `precompute_ref_log_probs`, whose values
        the data, columns of `train.pair_rows`, already holds, and the adapter's seed. `is_rebel`
        regresses on reward gaps instead of classifying the chosen answer.
        """
        head = model.get_output_embeddings()
        targets = peft_config.target_modules or ()
        is_on_head = any(one is head and name in targets for name, one in model.named_modules())
        self._is_rebel = is_rebel
        self.on_loss: OnLoss | None = None
        super().__init__(
            model=model,
            args=args,
            data_collator=PairCollator(tokenizer.pad_token_id),
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


class PairCollator(DataCollatorForPreference):
    """TRL's batch `[first answers; second answers]`, padded on the right, with the reward gaps."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch of these rows; `reward_gaps` is `[pairs]`, the others `[2 pairs, seq]`."""
        gaps = torch.tensor([row["reward_gap"] for row in examples])
        return {**super().torch_call(examples), "reward_gaps": gaps}


def completion_log_probs(
    model: Any,
    *,
    input_ids: Float[Tensor, "sequences seq"],
    attention_mask: Float[Tensor, "sequences seq"],
    completion_mask: Float[Tensor, "sequences seq"],
) -> Float[Tensor, " sequences"]:
    """Log-probability of each sequence's completion, in nats, in float32; padded on the right."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    mask = completion_mask[:, 1:].bool()
    rows = logits[:, :-1][mask].float()  # [completion tokens, vocab]: prompts cost nothing
    own_logits = rows.gather(1, input_ids[:, 1:][mask].unsqueeze(1)).squeeze(1)
    per_token = own_logits - rows.logsumexp(dim=1)
    owner = torch.nonzero(mask)[:, 0]
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
    """The trained parameters, `[out, in]` by name, from all processes' shards; `None` without any.

    All processes must call it at once.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not any(isinstance(value, DTensor) for value in trained.values()):
        return None
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in trained.items()
    }


def trained_adapter(trainer: Any, *, on_step: OnStep | None) -> PeftModel:
    """The trainer's model after training, in evaluation mode; goes on from its last checkpoint."""
    report_steps(trainer, on_step)
    trainer.train(resume_from_checkpoint=last_checkpoint(Path(trainer.args.output_dir)))
    trainer.model.eval()
    return trainer.model


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint of most steps that was written whole; its state is the last file written."""
    states = {int(path.parent.name.rpartition("-")[2]): path for path in folder.glob(_STATES)}
    for n_steps in sorted(states, reverse=True):
        with suppress(json.JSONDecodeError):
            json.loads(states[n_steps].read_text())
            return str(states[n_steps].parent)
    return None
