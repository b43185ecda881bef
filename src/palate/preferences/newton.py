"""Newton's method for logistic posteriors: many users at once, from any start to the mode.

Where a step moves margins by less than one half, their curvature grows by less than two thirds and
the whole step lowers the objective. A longer step is halved until the objective still falls at its
end, so that it is lower there. Margins of hundreds bend the objective in corners, along which such
steps are too many: users who have not settled after some rounds follow a path, on which
`temperature * softplus(margin / temperature)` rounds the corners off and the temperature falls to
1 as the steps become short.

Source: Bach 2010, "Self-concordant analysis for logistic regression" (growth of the curvature);
Nocedal & Wright 2006, chapters 3 (line search) and 11 (continuation).
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

MAX_ROUNDS = 200
WARM_FROM = 10  # rounds before a user's corners are rounded off
COOLING = 0.25  # factor of the temperature
SHORT = 4.0  # a step that moves margins by less, in temperatures, lets the temperature fall
MAX_HALVINGS = 60


def fit_whitened(
    features: Float[np.ndarray, "users comparisons features"],
    offsets: Float[np.ndarray, "users comparisons"],
    labels: Float[np.ndarray, "users comparisons"],
    *,
    discounts: Float[np.ndarray, "users comparisons"],
    tolerance: float = 1e-9,
) -> tuple[
    Float[np.ndarray, "users features"],
    Float[np.ndarray, "users features features"],
    Float[np.ndarray, " users"],
    Bool[np.ndarray, " users"],
]:
    """Mode, inverse curvature and objective under a standard normal prior, and whether it settled.

    The margin of a comparison is `offset + feature . z`. After 200 rounds the best so far is
    returned.
    """
    n_users, _, n_features = features.shape
    z = np.zeros((n_users, n_features))
    hessian = np.empty((n_users, n_features, n_features))
    active, warmth = np.arange(n_users), np.ones(n_users)
    x, b, y, c = features, offsets, labels, discounts
    for turn in range(MAX_ROUNDS):
        margins = b + (x @ z[active, :, None])[..., 0]
        if turn == WARM_FROM:
            warmth = np.maximum(1.0, _largest(margins))
        probability = expit(margins / warmth[:, None])
        curvature = c * probability * (1.0 - probability) / warmth[:, None]
        active_hessian = np.matmul((x * curvature[..., None]).transpose(0, 2, 1), x)
        active_hessian += np.eye(n_features)
        slope = np.matmul((c * (probability - y))[:, None, :], x)[:, 0] + z[active]
        step = np.linalg.solve(active_hessian, slope[..., None])[..., 0]
        moved = (x @ step[..., None])[..., 0]
        length = np.ones(len(active))
        for _ in range(MAX_HALVINGS):
            ahead = expit((margins - length[:, None] * moved) / warmth[:, None])
            fall = ((z[active] - length[:, None] * step) * step).sum(axis=1)
            fall += (c * (ahead - y) * moved).sum(axis=1)
            is_far = (fall < 0) & (length * _largest(moved) > 0.5 * warmth)
            if not is_far.any():
                break
            length = np.where(is_far, 0.5 * length, length)
        z[active] -= length[:, None] * step
        hessian[active] = active_hessian
        moving = np.maximum(_largest(moved), _largest(step)) > tolerance
        moving |= warmth > 1.0
        is_short = _largest(moved) < SHORT * warmth
        warmth = np.where(is_short, np.maximum(1.0, COOLING * warmth), warmth)[moving]
        active = active[moving]
        if not active.size:
            break
        if not moving.all():
            x, b, y, c = x[moving], b[moving], y[moving], c[moving]
    is_settled = ~np.isin(np.arange(n_users), active)
    loss = softplus_loss(offsets + (features @ z[..., None])[..., 0], labels)
    objective = (discounts * loss).sum(axis=1) + 0.5 * np.einsum("pf,pf->p", z, z)
    return z, np.linalg.inv(hessian), objective, is_settled


def solve_margin(
    before: Float[np.ndarray, " users"],
    variance: Float[np.ndarray, " users"],
    labels: Float[np.ndarray, " users"],
) -> Float[np.ndarray, " users"]:
    """The root `a` of `a - before + variance (sigmoid(a) - label)`, within about 1e-10.

    Newton within a bracket, halved where Newton strays or runs in a circle.
    """
    low = before + variance * (labels - 1.0)
    high = before + variance * labels
    # one step with the largest curvature, which never overshoots
    margin = before + variance * (labels - expit(before)) / (1.0 + 0.25 * variance)
    last_move = high - low
    for _ in range(MAX_ROUNDS):
        probability = expit(margin)
        value = before - margin + variance * (labels - probability)
        move = value / (1.0 + variance * probability * (1.0 - probability))
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
    margin: float | Float[np.ndarray, "*shape"], variance: float | Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Probability of winning under a normal margin (MacKay 1992), elementwise."""
    return expit(np.asarray(margin) / np.sqrt(1.0 + np.pi * np.asarray(variance) / 8.0))


def softplus_loss(
    margins: Float[np.ndarray, "*shape"], labels: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """`label softplus(-m) + (1 - label) softplus(m)`: nats paid for a label, elementwise."""
    return np.logaddexp(0.0, margins) - labels * margins


def _largest(values: Float[np.ndarray, "users entries"]) -> Float[np.ndarray, " users"]:
    return np.abs(values).max(axis=1, initial=0.0)
