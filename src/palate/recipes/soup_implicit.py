"""Answers of implicit soups: tokens proposed by the base, accepted by the experts' tilts.

The same distribution as the explicit output soup, drawn another way (`palate.soup.rejection`).
Every row of the soup keeps its own cache; a batch holds several people's requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import one_hot
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.soup.pool import require_coefficients
from palate.soup.rejection import PROPOSALS_CAP, rejection_sampler, sample_implicit


@dataclass(frozen=True, eq=False)
class ImplicitAnswers:
    """Answers and what they cost.

    Attributes:
        texts: `[requests]`.
        tokens: `[requests]`, token ids with the end token where one came.
        n_proposals: Proposals of all tokens together.
        n_fallbacks: Tokens drawn from the explicit soup because the cap was reached.
    """

    texts: list[str]
    tokens: list[tuple[int, ...]]
    n_proposals: int
    n_fallbacks: int

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted; a fallback counts as none."""
        n_tokens = sum(len(row) for row in self.tokens)
        return (n_tokens - self.n_fallbacks) / max(self.n_proposals, 1)


@torch.inference_mode()
def answer_implicitly(
    base: Base,
    experts: Mapping[str, Path],
    prompts: Sequence[str],
    coefficients: Float[ndarray, "requests experts"],
    *,
    max_tokens: int,
    generator: np.random.Generator,
) -> ImplicitAnswers:
    """One answer per request at temperature 1.

    Args:
        base: The base model.
        experts: Adapter folders, in the coefficients' order.
        prompts: `[requests]`, as the base reads them.
        coefficients: `[requests, experts]`, any sign.
        max_tokens: Longest answer.
        generator: Source of proposals and acceptances.

    Raises:
        InvalidInputError: there are no requests, or as many coefficients are missing.
        InvalidCoefficientsError: a coefficient is not finite.
    """
    if not prompts or len(prompts) != len(coefficients):
        raise InvalidInputError(
            f"There are {len(prompts)} prompts and {len(coefficients)} rows of coefficients; give "
            "one row each, and at least one."
        )
    weights = np.stack([require_coefficients(row, n_experts=len(experts)) for row in coefficients])
    active = np.flatnonzero(np.any(weights != 0, axis=0))
    rows = _Rows(base, AdapterBank.load(base, experts), active, prompts)
    try:
        return _drawn(base, rows, weights[:, active], max_tokens=max_tokens, generator=generator)
    finally:
        rows.bank.close()


def _drawn(
    base: Base,
    rows: "_Rows",
    weights: Float[ndarray, "requests active"],
    *,
    max_tokens: int,
    generator: np.random.Generator,
) -> ImplicitAnswers:
    tokens: list[list[int]] = [[] for _ in weights]
    is_open = np.ones(len(weights), dtype=bool)
    n_proposals = n_fallbacks = 0
    filler = int(str(base.tokenizer.pad_token_id or 0))
    drawn = np.full(len(weights), filler)
    for step in range(max_tokens):
        log_probs = rows.read() if step == 0 else rows.advance(drawn)  # [1 + active, requests, v]
        drawn = np.full(len(weights), filler)
        for place in np.flatnonzero(is_open):
            reference = log_probs[0, place]
            tilt = weights[place] @ (log_probs[1:, place] - reference)
            found = sample_implicit(
                rejection_sampler(reference, tilt),
                n_draws=1,
                generator=generator,
                cap=PROPOSALS_CAP,
            )
            token = int(found.tokens[0])
            drawn[place] = token
            tokens[place].append(token)
            n_proposals += int(found.n_proposals[0])
            n_fallbacks += found.n_fallbacks
            is_open[place] = token not in base.stop_ids
        if not is_open.any():
            break
    kept = [tuple(row) for row in tokens]
    texts = [_text(base, row) for row in kept]
    return ImplicitAnswers(texts, kept, n_proposals, n_fallbacks)


class _Rows:
    """The reference and every active expert over one batch of prompts, each with its own cache."""

    def __init__(
        self, base: Base, bank: AdapterBank, active: ndarray, prompts: Sequence[str]
    ) -> None:
        ids = [encode_prompt(base, prompt) for prompt in prompts]
        width = max(len(row) for row in ids)
        filler = int(str(base.tokenizer.pad_token_id or 0))
        self.bank = bank
        self._base = base
        self._ids = torch.tensor([[filler] * (width - len(row)) + row for row in ids])
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        zero = (0.0,) * bank.n_experts
        self._coefficients = [
            zero,
            *(one_hot(index=int(k), n_experts=bank.n_experts) for k in active),
        ]
        self._caches: list[Any] = [None] * len(self._coefficients)

    def read(self) -> Float[ndarray, "rows requests vocab"]:
        """Next-token log-probabilities after the prompts."""
        return self._forward(self._ids)

    def advance(self, tokens: ndarray) -> Float[ndarray, "rows requests vocab"]:
        """The same after one more token each."""
        self._mask = torch.cat([self._mask, torch.ones((len(tokens), 1), dtype=torch.long)], dim=1)
        return self._forward(torch.tensor(tokens).unsqueeze(1))

    def _forward(self, ids: Tensor) -> Float[ndarray, "rows requests vocab"]:
        device = self._base.device
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        found: list[ndarray] = []
        for place, coefficients in enumerate(self._coefficients):
            with self.bank.applied([coefficients] * len(ids)):
                output = self._base.model(
                    input_ids=ids.to(device),
                    attention_mask=self._mask.to(device),
                    position_ids=positions.to(device),
                    past_key_values=self._caches[place],
                    use_cache=True,
                    logits_to_keep=1,
                )
            self._caches[place] = output.past_key_values
            log_probs = torch.log_softmax(output.logits[:, -1].double(), dim=-1)
            found.append(log_probs.cpu().numpy())
        return np.stack(found)


def _text(base: Base, tokens: Sequence[int]) -> str:
    shown = [token for token in tokens if token not in base.stop_ids]
    return str(base.tokenizer.decode(shown, skip_special_tokens=True))
