"""Sampling of a token from the pooled distribution.

All rules act on the pooled distribution, in this order: repetition penalty, n-gram ban,
temperature, top-k, top-p. One uniform number per token decides by inversion, so a request's answer
depends on its own seed and not on the rest of the batch.
"""

import math
from collections.abc import Sequence, Set

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.core.protocols import SamplingParams
from palate.core.seeds import generator_for


def uniforms(*, seed: int, n_tokens: int) -> Float[np.ndarray, " tokens"]:
    """The numbers that decide the tokens of the request with this seed."""
    return generator_for(seed, "tokens").random(n_tokens)


def has_repetition_rules(sampling: SamplingParams) -> bool:
    """Whether earlier tokens change the distribution of the next one by a rule."""
    return sampling.repetition_penalty != 1.0 or sampling.no_repeat_ngram_size > 0


def is_untruncated(sampling: SamplingParams) -> bool:
    """Whether only the temperature acts on the pooled distribution."""
    return sampling.top_k == 0 and sampling.top_p == 1.0 and not has_repetition_rules(sampling)


def sample_tokens(
    log_probs: Float[Tensor, "requests vocab"],
    *,
    sampling: Sequence[SamplingParams],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    uniform: Float[Tensor, " requests"],
) -> Int[Tensor, " requests"]:
    """One token per request.

    Args:
        log_probs: `[requests, vocab]`, pooled.
        sampling: Settings per request.
        prompts: Token ids of the context, per request; they count for the repetition penalty.
        answers: Token ids sampled so far, per request; they count for both repetition rules.
        uniform: `[requests]`, in [0, 1).
    """
    if len(log_probs) > 1 and log_probs.device.type == "cpu":  # more leave its caches: 5x slower
        rows = zip(log_probs.split(1), sampling, prompts, answers, uniform.split(1), strict=True)
        return torch.cat(
            [
                sample_tokens(one, sampling=[s], prompts=[p], answers=[a], uniform=u)
                for one, s, p, a, u in rows
            ]
        )
    scores = log_probs.double()
    for index, settings in enumerate(sampling):
        if settings.repetition_penalty != 1.0:
            seen = {*prompts[index], *answers[index]}
            _penalise(scores[index], seen, settings.repetition_penalty)
        if settings.no_repeat_ngram_size:
            scores[index, _banned(answers[index], settings.no_repeat_ngram_size)] = -torch.inf
    greedy = scores.argmax(dim=-1)
    heat = torch.tensor([s.temperature for s in sampling], device=scores.device)
    if not bool(heat.any()):
        return greedy
    scores = scores / heat.clamp(min=1e-6).unsqueeze(1)
    if any(s.top_k or s.top_p < 1.0 for s in sampling):
        scores = _truncate(scores, sampling)
    cumulative = torch.softmax(scores, dim=-1).cumsum(dim=-1)
    target = (uniform.to(cumulative) * cumulative[:, -1]).unsqueeze(1)
    sampled = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    sampled = sampled.clamp(max=scores.shape[1] - 1)
    return torch.where(heat > 0, sampled, greedy)


def sampled_log_probs(
    log_probs: Float[Tensor, "requests vocab"],
    tokens: Int[Tensor, " requests"],
    *,
    sampling: Sequence[SamplingParams],
) -> list[float]:
    """`[requests]`: log-probability of each token as it was sampled, nats; NaN where not known.

    Known where only a temperature above zero acts on `log_probs`, `[requests, vocab]`, pooled.
    """
    result = [math.nan] * len(sampling)
    for row, settings in enumerate(sampling):
        if settings.temperature > 0 and is_untruncated(settings):
            scores = log_probs[row].double() / settings.temperature
            result[row] = float(scores[tokens[row]] - scores.logsumexp(dim=0))
    return result


def _penalise(scores: Tensor, seen: Set[int], penalty: float) -> None:
    ids = torch.tensor(sorted(seen), device=scores.device)
    values = scores[ids]
    scores[ids] = torch.where(values < 0, values * penalty, values / penalty)


def _banned(seen: Sequence[int], size: int) -> list[int]:
    if size == 1:
        return sorted(set(seen))
    start = tuple(seen[len(seen) - size + 1 :])
    return [
        seen[i + size - 1]
        for i in range(len(seen) - size + 1)
        if tuple(seen[i : i + size - 1]) == start
    ]


def _truncate(scores: Tensor, sampling: Sequence[SamplingParams]) -> Tensor:
    ordered, order = scores.sort(dim=-1, descending=True)
    n_vocab = scores.shape[1]
    keep_k = torch.tensor([s.top_k or n_vocab for s in sampling], device=scores.device)
    keep_p = torch.tensor([s.top_p for s in sampling], device=scores.device, dtype=scores.dtype)
    rank = torch.arange(n_vocab, device=scores.device)
    ordered = ordered.masked_fill(rank >= keep_k.unsqueeze(1), -torch.inf)
    probs = torch.softmax(ordered, dim=-1)
    before = probs.cumsum(dim=-1) - probs  # mass of the more probable tokens
    ordered = ordered.masked_fill(before >= keep_p.unsqueeze(1), -torch.inf)
    return torch.full_like(scores, -torch.inf).scatter(1, order, ordered)
