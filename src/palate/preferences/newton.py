"""Newton's method for logistic posteriors: many users at once, descending at every step.

Along a step that changes margin i by `d_i`, its logistic curvature `s_i` grows at most to
`min(s_i exp(|d_i|), 1/4)`. With `delta` the curvature along the step where it starts and `bound`
the largest it can so become, a step of length `t < 2 delta / bound` is sure to lower the
objective, so no line search is needed: the length is `min(1, 1.8 delta / bound)`.

Source: Bach 2010, "Self-concordant analysis for logistic regression" (growth of the curvature);
Boehning & Lindsay 1988 (the bound 1/4).
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import NotConvergedError

SAFE_LENGTH = 1.8  # of a step, in units of delta / bound; below 2
MAX_ROUNDS = 200
PLAIN_ROUNDS = 4
MARGIN_MOVE = 1e-5  # a Newton step this short leaves an error below half its square


def fit_whitened(
    features: Float[ndarray, "users comparisons features"],
    offsets: Float[ndarray, "users comparisons"],
    labels: Float[ndarray, "users comparisons"],
    *,
    discounts: Float[ndarray, "users comparisons"],
    tolerance: float = 1e-9,
) -> tuple[
    Float[ndarray, "users features"],
    Float[ndarray, "users features features"],
    Float[ndarray, " users"],
]:
    """Mode, inverse curvature and objective under a standard normal prior.

    The margin of a comparison is `offset + feature . z`.

    Raises:
        NotConvergedError: more than 200 rounds.
    """
    n_users, _, n_features = features.shape
    z = np.zeros((n_users, n_features))
    hessian = np.empty((n_users, n_features, n_features))
    active = np.arange(n_users)
    x, b, y, c = features, offsets, labels, discounts
    for _ in range(MAX_ROUNDS):
        margins = b + (x @ z[active, :, None])[..., 0]
        probability = expit(margins)
        curvature = c * probability * (1.0 - probability)
        active_hessian = np.matmul((x * curvature[..., None]).transpose(0, 2, 1), x)
        active_hessian += np.eye(n_features)
        slope = np.matmul((c * (probability - y))[:, None, :], x)[:, 0] + z[active]
        step = np.linalg.solve(active_hessian, slope[..., None])[..., 0]
        moved = (x @ step[..., None])[..., 0]
        z[active] -= _step_length(moved, step, c, curvature)[:, None] * step
        hessian[active] = active_hessian
        moving = np.maximum(_largest(moved), _largest(step)) > tolerance
        if not moving.any():
            return z, np.linalg.inv(hessian), _objective(features, offsets, labels, discounts, z)
        if not moving.all():
            active = active[moving]
            x, b, y, c = x[moving], b[moving], y[moving], c[moving]
    raise NotConvergedError(
        f"The fit of {active.size} users did not settle within {MAX_ROUNDS} rounds; "
        "scale the features to a standard deviation of about one.",
        last=z,
    )


def solve_margin(
    before: Float[ndarray, " users"],
    variance: Float[ndarray, " users"],
    labels: Float[ndarray, " users"],
) -> Float[ndarray, " users"]:
    """The root `a` of `a - before + variance (sigmoid(a) - label)`, within about 1e-10.

    One step with the largest curvature, which never overshoots, and a few Newton steps settle
    almost everybody; the others are bracketed.
    """
    margin = before + variance * (labels - expit(before)) / (1.0 + 0.25 * variance)
    move = np.empty(0)
    for _ in range(PLAIN_ROUNDS):
        move = _newton_move(margin, before, variance, labels)
        margin = margin + move
    rest = np.flatnonzero(~(np.abs(move) <= MARGIN_MOVE))
    if rest.size:
        margin[rest] = _bracketed_margin(before[rest], variance[rest], labels[rest])
    return margin


def _newton_move(
    margin: Float[ndarray, " users"],
    before: Float[ndarray, " users"],
    variance: Float[ndarray, " users"],
    labels: Float[ndarray, " users"],
) -> Float[ndarray, " users"]:
    probability = expit(margin)
    value = before - margin + variance * (labels - probability)
    return value / (1.0 + variance * probability * (1.0 - probability))


def _bracketed_margin(
    before: Float[ndarray, " users"],
    variance: Float[ndarray, " users"],
    labels: Float[ndarray, " users"],
) -> Float[ndarray, " users"]:
    """`solve_margin` by Newton within a bracket, halved where Newton strays or runs in a circle."""
    low = before + variance * (labels - 1.0)
    high = before + variance * labels
    margin = before + variance * (labels - 0.5)
    last_move = high - low
    for _ in range(MAX_ROUNDS):
        move = _newton_move(margin, before, variance, labels)
        low = np.where(move > 0, margin, low)
        high = np.where(move > 0, high, margin)
        is_safe = (margin + move > low) & (margin + move < high)
        is_safe &= np.abs(move) <= 0.5 * last_move
        is_safe |= np.abs(move) <= 1e-9 * (1.0 + np.abs(margin))  # settled; others may go on
        move = np.where(is_safe, move, 0.5 * (low + high) - margin)
        last_move = np.abs(move)
        margin = margin + move
        if (last_move <= 1e-10 * (1.0 + np.abs(margin))).all():
            break
    return margin


def moderate(
    margin: float | Float[ndarray, "*shape"], variance: float | Float[ndarray, "*shape"]
) -> Float[ndarray, "*shape"]:
    """Probability of winning under a normal margin (MacKay 1992), elementwise."""
    return expit(np.asarray(margin) / np.sqrt(1.0 + np.pi * np.asarray(variance) / 8.0))


def softplus_loss(
    margins: Float[ndarray, "*shape"], labels: Float[ndarray, "*shape"]
) -> Float[ndarray, "*shape"]:
    """`label softplus(-m) + (1 - label) softplus(m)`: nats paid for a label, elementwise."""
    return np.logaddexp(0.0, margins) - labels * margins


def _objective(
    features: Float[ndarray, "users comparisons features"],
    offsets: Float[ndarray, "users comparisons"],
    labels: Float[ndarray, "users comparisons"],
    discounts: Float[ndarray, "users comparisons"],
    z: Float[ndarray, "users features"],
) -> Float[ndarray, " users"]:
    margins = offsets + (features @ z[..., None])[..., 0]
    loss = (discounts * softplus_loss(margins, labels)).sum(axis=1)
    return loss + 0.5 * np.einsum("pf,pf->p", z, z)


def _step_length(
    moved: Float[ndarray, "users comparisons"],
    step: Float[ndarray, "users features"],
    discounts: Float[ndarray, "users comparisons"],
    curvature: Float[ndarray, "users comparisons"],
) -> Float[ndarray, " users"]:
    """Share of each Newton step that is sure to lower the objective (module docstring)."""
    squares = moved * moved
    own = np.einsum("pf,pf->p", step, step) + 1e-300  # the prior's curvature along the step
    growth = np.exp(np.minimum(np.abs(moved), 50.0))
    largest = np.minimum(curvature * growth, 0.25 * discounts)
    delta = np.einsum("pn,pn->p", squares, curvature) + own
    bound = np.einsum("pn,pn->p", squares, largest) + own
    return np.minimum(1.0, SAFE_LENGTH * delta / bound)


def _largest(values: Float[ndarray, "users entries"]) -> Float[ndarray, " users"]:
    return np.abs(values).max(axis=1, initial=0.0)
