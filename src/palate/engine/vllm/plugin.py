"""The part of palate that vLLM loads: pools the rows of a group inside its sampler.

Entry point `vllm.logits_processors` (V1 model runner), found by vLLM once palate is installed in
its environment with `pip install --no-deps`. The work is done in `palate.engine.vllm.groups`;
nothing else of palate but its errors is imported. docs/engines.md says how to start the server.
"""

from typing import Any

import torch
from vllm.logger import init_logger  # pyright: ignore[reportMissingImports]
from vllm.v1.sample.logits_processor import (  # pyright: ignore[reportMissingImports]
    BatchUpdate,
    LogitsProcessor,
)
from vllm.v1.sample.logits_processor.builtin import (  # pyright: ignore[reportMissingImports]
    process_dict_updates,
)

from palate.core.errors import InvalidInputError
from palate.engine.vllm.groups import GUARD, GroupMixer, GroupRow, GroupTag

LOGGER = init_logger("vllm.palate")  # vLLM shows its own loggers only


class GroupedRows(LogitsProcessor):  # pyright: ignore[reportUntypedBaseClass]
    """Makes all rows of a group take one token of their pooled distribution, or ends them all."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse sampling that a group does not support (answered with 400)."""
        tag = GroupTag.from_xargs(sampling_params.extra_args)
        if tag is None:
            return
        given = sampling_params
        rules = {
            "temperature must be 0, since the group samples": given.temperature == 0,
            "n must be 1": given.n == 1,
            "stop_token_ids must hold palate_abort": tag.abort in (given.stop_token_ids or ()),
            "min_tokens must be 0": not given.min_tokens,
            "penalties are not known to groups": given.repetition_penalty == 1
            and given.presence_penalty == 0
            and given.frequency_penalty == 0,
            "logit_bias must guard palate_abort": given.logit_bias == {tag.abort: GUARD},
            "rules on tokens are not known to groups": not (
                given.bad_words
                or given.allowed_token_ids
                or given.structured_outputs
                or given.min_p
            ),
        }
        for sentence, holds in rules.items():
            if not holds:
                raise InvalidInputError(f"A row of a palate group is refused: {sentence}.")

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: FBT001 - vLLM's
        """Start with no rows.

        With chunked prefill a long prompt takes part in steps before its end, and a logits
        processor cannot see that; so groups are pooled only where it is off. And rows must list
        their own log-probabilities, not those after the group's token was forced.
        """
        del device, is_pin_memory
        scheduler, refusal = vllm_config.scheduler_config, ""
        if scheduler.enable_chunked_prefill or scheduler.long_prefill_token_threshold > 0:
            refusal = (
                "prompts are read in chunks; start the server with --no-enable-chunked-prefill"
            )
        elif vllm_config.model_config.logprobs_mode != "raw_logprobs":
            refusal = "lists do not hold raw log-probabilities; leave --logprobs-mode out"
        self._mixer = GroupMixer(refusal=refusal, warn=LOGGER.warning)

    def is_argmax_invariant(self) -> bool:
        """No: greedy tokens change, too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow who joins, leaves and moves."""
        process_dict_updates(self._mixer.rows, batch_update, _row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """The batch's logits `[rows, vocab]` with groups pooled."""
        return self._mixer.apply(logits) if self._mixer.rows else logits


def _row(params: Any, prompt: list[int] | None, tokens: list[int]) -> GroupRow | None:
    del prompt
    tag = GroupTag.from_xargs(params.extra_args)
    return None if tag is None else GroupRow(tag, tokens)
