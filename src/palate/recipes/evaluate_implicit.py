"""Answers of the implicit output soup: the reference proposes, the experts accept or refuse.

The distribution is the explicit soup's, exactly; what differs is that a token costs several
proposals. They are counted.

Source: Spectral Souping, arXiv 2605.20408, implicit rule, as in `palate.soup.rejection`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request
from palate.core.seeds import generator_for
from palate.core.types import Completion
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.soup.rejection import rejection_sampler, sample_implicit

_CHUNK = 64  # requests that are decoded in step


class ImplicitEngine:
    """Draws the tokens of output soups by rejection.

    Attributes:
        base: Proposes.
        bank: The experts, who accept.
        n_proposals: Of all tokens drawn so far.
        n_fallbacks: Tokens that reached the cap and were taken from the explicit soup.
        n_tokens: Drawn so far.
    """

    def __init__(self, base: Base, bank: AdapterBank) -> None:
        """Keep the parts."""
        self.base = base
        self.bank = bank
        self.n_proposals = 0
        self.n_fallbacks = 0
        self.n_tokens = 0

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            InvalidInputError: a plan is not log-linear with one row of the reference.
        """
        return [
            answer
            for start in range(0, len(requests), _CHUNK)
            for answer in self._chunk(requests[start : start + _CHUNK])
        ]

    def _chunk(self, requests: Sequence[Request]) -> list[Completion]:
        plans = [request.plan.normal_form() for request in requests]
        owner = [place for place, plan in enumerate(plans) for _ in plan.rows]
        coefficients = [row.coefficients for plan in plans for row in plan.rows]
        prompts = [encode_prompt(self.base, request.prompt) for request in requests]
        width = max(map(len, prompts))
        filler = int(str(self.base.tokenizer.pad_token_id or 0))
        ids = torch.full((len(requests), width), filler)
        mask = torch.zeros_like(ids)
        for place, prompt in enumerate(prompts):
            ids[place, width - len(prompt) :] = torch.tensor(prompt)
            mask[place, width - len(prompt) :] = 1
        ids, mask = ids[owner], mask[owner]
        drawn: list[list[int]] = [[] for _ in requests]
        log_probs: list[list[float]] = [[] for _ in requests]
        is_done = [False] * len(requests)
        cache: Any = None
        for step in range(max(request.sampling.max_tokens for request in requests)):
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            with self.bank.applied(coefficients):
                output = self.base.model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            cache = output.past_key_values
            own = torch.log_softmax(output.logits[:, -1].float(), dim=-1).double()
            chosen = [filler] * len(requests)
            start = 0
            for place, (request, plan) in enumerate(zip(requests, plans, strict=True)):
                rows = own[start : start + len(plan.rows)]
                start += len(plan.rows)
                if is_done[place]:
                    continue
                token, log_prob = self._propose(request, plan, rows, step=step)
                chosen[place] = token
                drawn[place].append(token)
                log_probs[place].append(log_prob)
                is_full = len(drawn[place]) >= request.sampling.max_tokens
                is_done[place] = is_full or token in self.base.stop_ids
            if all(is_done):
                break
            ids = torch.tensor([[chosen[place]] for place in owner])
            mask = torch.cat([mask, mask.new_ones(len(owner), 1)], dim=1)
        return [
            self._completion(request, tokens, values)
            for request, tokens, values in zip(requests, drawn, log_probs, strict=True)
        ]

    def _propose(
        self, request: Request, plan: Plan, log_probs: Float[Tensor, "rows vocab"], *, step: int
    ) -> tuple[int, float]:
        """A token, and its log-probability under the soup."""
        reference, tilt = tilt_of(plan, log_probs.numpy())
        sampler = rejection_sampler(reference, tilt, temperature=request.sampling.temperature)
        generator = generator_for(request.seed, "implicit", step)
        found = sample_implicit(sampler, n_draws=1, generator=generator)
        self.n_proposals += int(found.n_proposals[0])
        self.n_fallbacks += found.n_fallbacks
        self.n_tokens += 1
        token = int(found.tokens[0])
        pooled = reference + tilt
        return token, float(pooled[token] - np.logaddexp.reduce(pooled))

    def _completion(
        self, request: Request, tokens: Sequence[int], log_probs: Sequence[float]
    ) -> Completion:
        is_ended = bool(tokens) and tokens[-1] in self.base.stop_ids
        kept = tokens[:-1] if is_ended else tokens
        text = str(self.base.tokenizer.decode(list(kept), skip_special_tokens=True))
        return Completion(
            prompt=request.prompt,
            text=text,
            tokens=tuple(tokens),
            log_probs=tuple(log_probs),
            finish="stop" if is_ended else "length",
        )


def tilt_of(
    plan: Plan, log_probs: Float[np.ndarray, "rows vocab"]
) -> tuple[Float[np.ndarray, " vocab"], Float[np.ndarray, " vocab"]]:
    """The reference's log-probabilities, and `sum_k lambda_k (log p_k - log p_0)`.

    Raises:
        InvalidInputError: the plan is not log-linear with one row of the reference.
    """
    is_reference = [not any(row.coefficients) for row in plan.rows]
    if plan.pool.kind != "log_linear" or sum(is_reference) != 1:
        raise InvalidInputError(
            "An implicit soup needs a log-linear plan with one row of the reference; give "
            "coefficients that do not sum to one."
        )
    reference = log_probs[is_reference.index(True)]
    tilt = np.zeros_like(reference)
    for row, coefficient, skip in zip(log_probs, plan.pool.coefficients, is_reference, strict=True):
        if not skip:
            tilt += coefficient * (row - reference)
    return reference, tilt
