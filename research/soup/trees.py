"""Token trees: language models small enough that every answer can be counted.

All answers have the same number of tokens; a prefix of `t` tokens is a *state* of depth `t`, and
states of one depth are numbered with the last token running fastest. A policy is one table of
log-probabilities per depth, `[vocab^t, vocab]`. On such trees soft values, optimal policies and the
error of a soup are exact, so they are what larger models' approximations are measured by.

Source: Spectral Souping, arXiv 2605.20408, setting; soft optimality (S1) as in Levine 2018,
"Reinforcement Learning and Control as Probabilistic Inference".

Deviation: one prompt. Several prompts are several trees.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import logsumexp

from palate.core.errors import InvalidInputError
from palate.soup.basis import tilt_matrix
from palate.soup.states import kl_divergence, log_softmax
from research.soup.explicit import pool_log_linear

Policy = tuple[Float[ndarray, "states vocab"], ...]
"""One table of log-probabilities per depth."""

Values = tuple[Float[ndarray, " states"], ...]
"""One number per state, per depth from 0 to the length of the answers, in reward units."""


def policy_from_logits(logits: Sequence[Float[ndarray, "*prefix vocab"]]) -> Policy:
    """The policy with these logits, one array per depth, prefixes on one or on many axes.

    Raises:
        InvalidInputError: the arrays do not make a tree, or as in `log_softmax`.
    """
    vocab = np.shape(logits[0])[-1]
    tables: list[Float[ndarray, "states vocab"]] = []
    for depth, table in enumerate(logits):
        if np.size(table) != vocab ** (depth + 1):
            raise InvalidInputError(
                f"Depth {depth} has {np.size(table)} logits, but {vocab ** (depth + 1)} are "
                f"needed: {vocab} for each of the {vocab**depth} prefixes."
            )
        tables.append(log_softmax(np.reshape(np.asarray(table, dtype=np.float64), (-1, vocab))))
    return tuple(tables)


def answer_log_probs(policy: Policy) -> Float[ndarray, " answers"]:
    """Log-probability of every whole answer, `[vocab^length]`."""
    return state_log_probs(policy)[-1]


def state_log_probs(policy: Policy) -> Values:
    """Log-probability of reaching every state, from the root to the whole answers."""
    reached = [np.zeros(1)]
    for table in policy:
        reached.append(np.reshape(reached[-1][:, None] + table, -1))
    return tuple(reached)


def soft_values(reference: Policy, returns: Float[ndarray, " answers"], *, beta: float) -> Values:
    """`V(s) = beta log E_{y ~ reference(. | s)} exp(return(y) / beta)`, by backward recursion.

    Args:
        reference: The policy KL is measured to.
        returns: `[vocab^length]`, of whole answers, in reward units.
        beta: Price of one nat of KL.

    Returns:
        Values of every state; the last are the returns themselves.

    Raises:
        InvalidInputError: not one finite return per answer, or beta is not positive.
    """
    _require_returns(reference, returns, beta=beta)
    values = [np.asarray(returns, dtype=np.float64)]
    for table in reversed(reference):
        scores = table + values[-1].reshape(table.shape) / beta
        values.append(beta * np.asarray(logsumexp(scores, axis=1)))
    return tuple(reversed(values))


def optimal_policy(
    reference: Policy, returns: Float[ndarray, " answers"], *, beta: float
) -> Policy:
    """The policy that maximises `E[return] - beta KL(policy || reference)` (S1).

    Raises:
        InvalidInputError: as in `soft_values`.
    """
    return policy_from_values(reference, soft_values(reference, returns, beta=beta), beta=beta)


def policy_from_values(reference: Policy, values: Values, *, beta: float) -> Policy:
    """`reference(a | s) exp((V(s + a) - V(s)) / beta)`, normalised per state."""
    return tuple(
        log_softmax(table + after.reshape(table.shape) / beta)
        for table, after in zip(reference, values[1:], strict=True)
    )


def objective(
    policy: Policy, *, reference: Policy, returns: Float[ndarray, " answers"], beta: float
) -> float:
    """`J = E[return] - beta KL(policy || reference)` over whole answers, in reward units.

    Raises:
        InvalidInputError: as in `soft_values`.
    """
    _require_returns(reference, returns, beta=beta)
    own, base = answer_log_probs(policy), answer_log_probs(reference)
    return float(np.exp(own) @ returns - beta * kl_divergence(own, base))


def tilts(policy: Policy, *, reference: Policy) -> Policy:
    """Tables of `log policy(a | s) - log reference(a | s)`; zero where the reference forbids.

    Raises:
        InvalidInputError: the policy forbids a token that the reference allows: its tilt is not
            finite.
    """
    result: list[Float[ndarray, "states vocab"]] = []
    for own, base in zip(policy, reference, strict=True):
        is_open = ~np.isneginf(base)
        tilt = np.zeros_like(base)
        tilt[is_open] = own[is_open] - base[is_open]
        if not np.all(np.isfinite(tilt)):
            raise InvalidInputError(
                "An expert forbids a token that the reference allows, so its tilt is infinite; "
                "pool its log-probabilities instead."
            )
        result.append(tilt)
    return tuple(result)


def answer_sums(table: Policy) -> Float[ndarray, " answers"]:
    """Sum of a table's entries along every whole answer, such as a tilt's: `[vocab^length]`."""
    return state_log_probs(table)[-1]


def soup_policy(
    reference: Policy, experts: Sequence[Policy], coefficients: Sequence[float] | ndarray
) -> Policy:
    """The explicit output soup, state by state."""
    return tuple(
        pool_log_linear(
            table, np.stack([expert[depth] for expert in experts]), coefficients
        ).log_probs
        for depth, table in enumerate(reference)
    )


def sample_answers(
    policy: Policy, *, n_answers: int, generator: np.random.Generator
) -> Int[ndarray, " answers"]:
    """Indices of whole answers drawn from the policy, with replacement."""
    chances = np.exp(answer_log_probs(policy))
    return generator.choice(len(chances), size=n_answers, p=chances / chances.sum())


def answer_tokens(policy: Policy) -> Int[ndarray, "answers length"]:
    """Tokens of every whole answer, in the order of their indices."""
    vocab = policy[0].shape[1]
    shape = (vocab,) * len(policy)
    return np.stack(np.unravel_index(np.arange(vocab ** len(policy)), shape), axis=1)


def tree_tilt_matrix(
    reference: Policy, policies: Sequence[Policy]
) -> Float[ndarray, "pairs policies"]:
    """The tilt matrix over all states of a token tree, each counted as often as it is reached."""
    tables = [tilts(policy, reference=reference) for policy in policies]
    reached = state_log_probs(reference)
    return np.concatenate(
        [
            tilt_matrix(
                base,
                np.stack([table[depth] for table in tables]),
                state_shares=np.exp(reached[depth]),
            )
            for depth, base in enumerate(reference)
        ]
    )


def _require_returns(policy: Policy, returns: Float[ndarray, " answers"], *, beta: float) -> None:
    n_answers = policy[-1].size
    if np.shape(returns) != (n_answers,) or not np.all(np.isfinite(returns)):
        raise InvalidInputError(
            f"Returns of shape {np.shape(returns)} do not fit; give one finite number for each of "
            f"the {n_answers} answers."
        )
    if not 0 < beta < np.inf:
        raise InvalidInputError(f"The KL price beta={beta} is out of range; use a number above 0.")
