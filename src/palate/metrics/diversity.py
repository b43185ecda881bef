"""Diversity: how different answers are from one another, and how many experts are in use.

Each function describes one group, such as the answers to one prompt; for an interval take one
number per prompt and `palate.metrics.intervals.bootstrap_interval`. Distinct-n falls with the
number of tokens and self-BLEU rises with the number of texts: compare groups of equal size only.

Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models"
(distinct-n); Zhu et al. 2018, "Texygen" (self-BLEU); Papineni et al. 2002, "BLEU".

Deviation: an n-gram order without a match counts as half a match (Chen and Cherry 2014, smoothing 2
for zero counts only), so that short texts do not all score zero; orders beyond a text are left out.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import entropy

from palate.core.errors import InvalidInputError

Text = Sequence[Hashable]
"""Tokens: words, or token ids."""


def distinct_n(texts: Sequence[Text], *, n: int) -> float:
    """Different n-grams divided by all n-grams of the texts together; NaN without any.

    Raises:
        InvalidInputError: `n` is below one.

    Example:
        >>> distinct_n([["a", "b", "a", "b"]], n=2)
        0.6666666666666666
    """
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for text in texts:
        counts.update(_n_grams(text, n=n))
    total = counts.total()
    return len(counts) / total if total else float("nan")


def self_bleu(texts: Sequence[Text]) -> float:
    """Mean BLEU of every text against all the others: 1 when all are the same.

    Raises:
        InvalidInputError: fewer than two texts, or an empty one.
    """
    if len(texts) < 2 or any(len(text) == 0 for text in texts):
        raise InvalidInputError(
            f"Self-BLEU needs at least two texts that are not empty, not {len(texts)}."
        )
    rest = ([*texts[:index], *texts[index + 1 :]] for index in range(len(texts)))
    return float(
        np.mean([bleu(text, references=others) for text, others in zip(texts, rest, strict=True)])
    )


def bleu(text: Text, *, references: Sequence[Text], max_n: int = 4) -> float:
    """Share of the text's n-grams found in a reference, with a penalty for brevity."""
    logs: list[float] = []
    for n in range(1, min(max_n, len(text)) + 1):
        own = _n_grams(text, n=n)
        most: Counter[tuple[Hashable, ...]] = Counter()
        for reference in references:
            most |= _n_grams(reference, n=n)
        matches = (own & most).total()
        logs.append(float(np.log((matches or 0.5) / own.total())))
    lengths = [len(reference) for reference in references]
    closest = min(lengths, key=lambda length: (abs(length - len(text)), length))
    return float(np.exp(np.mean(logs) + min(0.0, 1.0 - closest / len(text))))


def usage_perplexity(shares: Float[np.ndarray, "answers experts"]) -> float:
    """How many experts are in use, `exp(entropy of the mean shares)`.

    Shares are non-negative; rows are normalised first, and one row is a distribution itself.

    Raises:
        InvalidInputError: a share is negative or not finite, or a row is zero.
    """
    table = np.atleast_2d(np.asarray(shares, dtype=np.float64))
    if not table.size or not np.all(np.isfinite(table)) or table.min() < 0:
        raise InvalidInputError(
            f"The shares of shape {table.shape} must be finite, non-negative and at least one."
        )
    totals = table.sum(axis=1, keepdims=True)
    if np.any(totals == 0):
        raise InvalidInputError("A row of shares is zero; leave answers without an expert out.")
    return float(np.exp(entropy((table / totals).mean(axis=0))))


def pairwise_kl(log_probs: Float[np.ndarray, "policies contexts vocab"]) -> float:
    """Mean KL divergence between two different policies' next-token distributions, in nats.

    Infinite when a policy gives a token no probability that another gives some.

    Raises:
        InvalidInputError: fewer than two policies, or NaN.
    """
    if log_probs.ndim != 3 or len(log_probs) < 2 or np.any(np.isnan(log_probs)):
        raise InvalidInputError(
            f"Log-probabilities of shape {log_probs.shape} do not compare policies; "
            "give [policies, contexts, vocab] with at least two policies and no NaN."
        )
    n_policies, n_contexts, _ = log_probs.shape
    total = 0.0
    for own in log_probs:
        probabilities = np.exp(own)
        with np.errstate(invalid="ignore"):
            terms = np.where(probabilities > 0, probabilities * (own - log_probs), 0.0)
        total += float(terms.sum())
    return total / (n_contexts * n_policies * (n_policies - 1))


def _n_grams(text: Text, *, n: int) -> Counter[tuple[Hashable, ...]]:
    if n < 1:
        raise InvalidInputError(f"An n-gram of {n} tokens does not exist; use one or more.")
    return Counter(tuple(text[start : start + n]) for start in range(len(text) - n + 1))
