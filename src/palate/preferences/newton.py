"""Newton's method for logistic posteriors: many users at once, from any start to the mode.

Along a step that changes margin i by `d_i`, its logistic curvature `s_i` grows at most to
`min(s_i exp(|d_i|), 1/4)`. With `delta` the curvature along the step where it starts and `bound`
the largest it can so become, a step of length `t < 2 delta / bound` is sure to lower the
objective. Where `1.8 delta / bound` is 1 or more the whole step is taken; elsewhere the length at
which the objective is lowest, so that it falls with every step and the steps lead to the mode.

Margins of hundreds bend the objective in corners, along which Newton's steps are too many. Users
who have not settled after some rounds follow a path instead: `temperature * softplus(margin /
temperature)` rounds the corners off, and the temperature falls to 1 as the steps become short.

Source: Bach 2010, "Self-concordant analysis for logistic regression" (growth of the curvature);
Boehning & Lindsay 1988 (the bound 1/4); Nocedal & Wright 2006, chapters 3 (line search) and 11
(continuation).
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import expit

SAFE_LENGTH = 1.8  # of a step, in units of delta / bound; below 2
MAX_ROUNDS = 200
WARM_FROM = 10  # rounds before a user's corners are rounded off; at most 28 more in 10,000 logs
COOLING = 0.25  # factor of the temperature
SEARCH_ROUNDS = 30
NARROW = 0.1  # part of a step's length that a search leaves open
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
    Bool[ndarray, " users"],
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
        lines = _Lines(margins, moved, z[active], step, y, c, warmth)
        z[active] -= _step_length(lines, curvature)[:, None] * step
        hessian[active] = active_hessian
        moving = np.maximum(_largest(moved), _largest(step)) > tolerance
        moving |= warmth > 1.0
        is_short = _largest(moved) < 4.0 * warmth
        warmth = np.where(is_short, np.maximum(1.0, COOLING * warmth), warmth)[moving]
        active = active[moving]
        if not active.size:
            break
        if not moving.all():
            x, b, y, c = x[moving], b[moving], y[moving], c[moving]
    is_settled = ~np.isin(np.arange(n_users), active)
    objective = _objective(features, offsets, labels, discounts, z)
    return z, np.linalg.inv(hessian), objective, is_settled


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


@dataclass(frozen=True, eq=False)
class _Lines:
    """The objectives of users along a Newton step: margins fall by `moved`, `z` by `step`."""

    margins: Float[ndarray, "users comparisons"]
    moved: Float[ndarray, "users comparisons"]
    z: Float[ndarray, "users features"]
    step: Float[ndarray, "users features"]
    labels: Float[ndarray, "users comparisons"]
    discounts: Float[ndarray, "users comparisons"]
    warmth: Float[ndarray, " users"]

    def of(self, users: Bool[ndarray, " users"]) -> "_Lines":
        """Those of some users."""
        return _Lines(*(getattr(self, part.name)[users] for part in fields(self)))

    def lowest(self) -> Float[ndarray, " users"]:
        """Where the objective is lowest between 0 and 1, nearly, and lower than at 0."""
        own, pull = (np.einsum("pf,pf->p", self.step, end) for end in (self.step, self.z))
        low, high = np.zeros(len(own)), np.ones(len(own))
        length = high
        for turn in range(SEARCH_ROUNDS):
            margins = (self.margins - length[:, None] * self.moved) / self.warmth[:, None]
            win = expit(margins)
            missed = self.discounts * (win - self.labels) * self.moved
            slope = length * own - pull - missed.sum(axis=1)
            bend = self.discounts * win * (1.0 - win) * self.moved**2 / self.warmth[:, None]
            low, high = np.where(slope <= 0, length, low), np.where(slope > 0, length, high)
            if (high - low <= NARROW * high).all():
                break
            newton = length - slope / (own + bend.sum(axis=1))
            is_inside = (newton > low) & (newton < high) & (turn % 3 < 2)
            length = np.where(is_inside, newton, 0.5 * (low + high))
        return np.where(low > 0, low, np.minimum(length, high))


def _step_length(
    lines: _Lines, curvature: Float[ndarray, "users comparisons"]
) -> Float[ndarray, " users"]:
    """Share of each Newton step that is taken (module docstring)."""
    warmth = lines.warmth[:, None]
    squares, scaled = lines.moved**2, np.abs(lines.moved) / warmth
    own = np.einsum("pf,pf->p", lines.step, lines.step) + 1e-300  # the prior's curvature
    growth = np.exp(np.minimum(scaled, 50.0))
    largest = np.minimum(curvature * growth, 0.25 * lines.discounts / warmth)
    delta = np.einsum("pn,pn->p", squares, curvature) + own
    bound = np.einsum("pn,pn->p", squares, largest) + own
    length = np.minimum(1.0, SAFE_LENGTH * delta / bound)
    is_long = length < 1.0
    if is_long.any():
        length[is_long] = lines.of(is_long).lowest()
    return length


def _largest(values: Float[ndarray, "users entries"]) -> Float[ndarray, " users"]:
    return np.abs(values).max(axis=1, initial=0.0)
