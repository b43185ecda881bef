"""Answers of implicit output soups: the reference proposes tokens, the experts' tilts accept them.

The distribution is the explicit soup's, exactly (`palate.soup.rejection`); what differs is that a
token costs several proposals. They are counted. Every request draws from its own seed, so an answer
does not depend on what else is in the batch.

Source: Spectral Souping, arXiv 2605.20408, implicit rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Row
from palate.core.protocols import Request
from palate.core.seeds import generator_for
from palate.core.types import Completion
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.soup.rejection import rejection_sampler, sample_implicit

_CHUNK = 64  # requests that are decoded in step


@dataclass(eq=False)
class _Open:
    """A request that is being answered: its part of the batch, and what was drawn."""

    request: Request
    rows: list[Row]  # the reference first
    weights: Float[ndarray, " rows"]  # of the log-linear pool
    tokens: list[int]
    log_probs: list[float]
    is_done: bool = False


class ImplicitEngine:
    """Draws the tokens of log-linear plans by rejection.

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

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted; a fallback counts as none."""
        return (self.n_tokens - self.n_fallbacks) / max(self.n_proposals, 1)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            InvalidInputError: a plan is neither one row nor a log-linear pool of rows that read the
                request's prompt.
        """
        return [
            answer
            for start in range(0, len(requests), _CHUNK)
            for answer in self._chunk(requests[start : start + _CHUNK])
        ]

    def _chunk(self, requests: Sequence[Request]) -> list[Completion]:
        some = [_opened(request) for request in requests]
        owner = [place for place, one in enumerate(some) for _ in one.rows]
        coefficients = [row.coefficients for one in some for row in one.rows]
        prompts = [encode_prompt(self.base, request.prompt) for request in requests]
        width = max(map(len, prompts))
        filler = int(str(self.base.tokenizer.pad_token_id or 0))
        device = self.base.device
        ids = torch.tensor([[filler] * (width - len(row)) + row for row in prompts])[owner]
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])[owner]
        cache: Any = None
        for step in range(max(request.sampling.max_tokens for request in requests)):
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            with self.bank.applied(coefficients):
                output = self.base.model(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    position_ids=positions.to(device),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            cache = output.past_key_values
            log_probs = torch.log_softmax(output.logits[:, -1].double(), dim=-1).cpu().numpy()
            start = 0
            for one in some:
                own = log_probs[start : start + len(one.rows)]
                start += len(one.rows)
                if not one.is_done:
                    self._draw(one, own, step=step)
            if all(one.is_done for one in some):
                break
            last = [filler if one.is_done else one.tokens[-1] for one in some]
            ids = torch.tensor([[last[place]] for place in owner])
            mask = torch.cat([mask, mask.new_ones(len(owner), 1)], dim=1)
        return [self._completion(one) for one in some]

    def _draw(self, one: _Open, log_probs: Float[ndarray, "rows vocab"], *, step: int) -> None:
        """One more token, and its log-probability under the soup."""
        reference = log_probs[0]
        tilt = one.weights @ log_probs - reference
        sampling = one.request.sampling
        found = sample_implicit(
            rejection_sampler(reference, tilt, temperature=sampling.temperature),
            n_draws=1,
            generator=generator_for(one.request.seed, "implicit", step),
        )
        self.n_proposals += int(found.n_proposals[0])
        self.n_fallbacks += found.n_fallbacks
        self.n_tokens += 1
        token = int(found.tokens[0])
        pooled = reference + tilt
        one.tokens.append(token)
        one.log_probs.append(float(pooled[token] - np.logaddexp.reduce(pooled)))
        one.is_done = len(one.tokens) >= sampling.max_tokens or token in self.base.stop_ids

    def _completion(self, one: _Open) -> Completion:
        is_ended = bool(one.tokens) and one.tokens[-1] in self.base.stop_ids
        kept = one.tokens[:-1] if is_ended else one.tokens
        return Completion(
            prompt=one.request.prompt,
            text=str(self.base.tokenizer.decode(kept, skip_special_tokens=True)),
            tokens=tuple(one.tokens),
            log_probs=tuple(one.log_probs),
            finish="stop" if is_ended else "length",
        )


def _opened(request: Request) -> _Open:
    rows, weights = implicit_rows(request.plan)
    return _Open(request, rows, weights, tokens=[], log_probs=[])


def implicit_rows(plan: Plan) -> tuple[list[Row], Float[ndarray, " rows"]]:
    """The plan's rows with the reference first, and the log-linear weight of each.

    The reference proposes even where it has no weight, as in soups whose coefficients sum to one.

    Raises:
        InvalidInputError: the plan is neither one row nor a log-linear pool of rows that read the
            request's prompt.
    """
    normal = plan.normal_form()
    is_fixed = normal.pool.kind in ("single", "log_linear") and normal.pool.controller is None
    if not is_fixed or any(row.context is not None for row in normal.rows):
        raise InvalidInputError(
            "An implicit soup needs one row or a log-linear pool with fixed coefficients, whose "
            "rows read the request's prompt; give a soup's plan."
        )
    reference = Row((0.0,) * normal.n_experts)
    weights = {reference: 0.0}
    weights |= zip(normal.rows, normal.pool.coefficients or (1.0,), strict=True)
    return list(weights), np.array(list(weights.values()))
