"""A user's update and a million refits, against scikit-learn and L-BFGS.

Contestants take turns in one run. The gates come first: refits, batched and one user's from the
log, must equal the exact posterior mode (L-BFGS run to convergence). How far one-comparison updates
alone come from the mode after 20 pairs is printed too; they are exact for each comparison but not
for all together, which is why a `Learner` refits from the log. The adverse case is one user at a
time, without a batch.

Times of the million refits are given as wall and as processor seconds of the one process, since
neighbours on a shared machine lengthen the first.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from rich.console import Console
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, SGDClassifier

from benchmarks.timing import Timing, race
from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.seeds import generator_for
from palate.core.settings import Settings, load_settings
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.preferences.bradley_terry import fit_batch, update, update_batch
from palate.preferences.newton import softplus_loss
from palate.preferences.settings import LearningSettings
from research.command_line import IsJson, Overrides, run

GATE = 1e-3  # largest difference of a posterior mean from the exact mode
BLOCK = 100_000  # users of the million that are made and refitted at a time
TOLERANCE = 3e-2  # of the batched refits: the last step moved no margin by more


class BeliefBenchSettings(Settings):
    """How much is timed.

    Attributes:
        n_features: Entries of a user's vector.
        n_pairs: Comparisons of each user.
        n_batched: Users updated at once.
        n_refitted: Users refitted at once.
        n_alone: Users for the one-by-one alternatives.
        n_repeats: Times that each is timed.
        seed: Of users and answers.
    """

    n_features: int = Field(default=8, ge=1)
    n_pairs: int = Field(default=20, ge=1)
    n_batched: int = Field(default=20_000, ge=1)
    n_refitted: int = Field(default=1_000_000, ge=1)
    n_alone: int = Field(default=20, ge=2)
    n_repeats: int = Field(default=15, ge=1)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Users:
    features: Float[ndarray, "users comparisons features"]
    labels: Float[ndarray, "users comparisons"]


def bench_belief(settings: BeliefBenchSettings | None = None) -> dict[str, Any]:
    """Gates, ratios and the million refits.

    Raises:
        CheckFailedError: a gate does not hold.
    """
    chosen = settings or BeliefBenchSettings()
    prior = Belief(np.zeros(chosen.n_features), np.eye(chosen.n_features))
    gates = _gates(chosen, prior)
    return {
        "kind": "bench-belief",
        "settings": chosen.model_dump(),
        "gate": {"limit": GATE, **gates},
        "update": _race_updates(chosen, prior),
        "refit": _race_refits(chosen, prior),
        "many": _many_refits(chosen, prior),
    }


def _gates(chosen: BeliefBenchSettings, prior: Belief) -> dict[str, float]:
    users = _draw(chosen, chosen.n_alone, "gate")
    batch = fit_batch(users.features, users.labels, prior=prior, tolerance=TOLERANCE)
    learner = Learner(prior, settings=LearningSettings(is_gain_fitted=False))
    result = {"batched_refit": 0.0, "belief_of_learner": 0.0, "updates_alone": 0.0}
    for user in range(chosen.n_alone):
        x, y = users.features[user], users.labels[user]
        exact = _exact_mode(x, y)
        belief = prior
        for feature, label in zip(x, y, strict=True):
            belief = update(belief, feature, label)
        history = [
            Feedback("p", "comparison", tuple(feature.tolist()), float(label))
            for feature, label in zip(x, y, strict=True)
        ]
        for name, mean in (
            ("batched_refit", batch.mean[user]),
            ("belief_of_learner", learner.rebuild(history).mean),
            ("updates_alone", belief.mean),
        ):
            result[name] = max(result[name], float(np.abs(mean - exact).max()))
    for name in ("batched_refit", "belief_of_learner"):
        if result[name] > GATE:
            raise CheckFailedError(
                f"The {name} is {result[name]:.1e} from the exact mode, above {GATE:.0e}."
            )
    return result


def _race_updates(chosen: BeliefBenchSettings, prior: Belief) -> dict[str, Any]:
    users = _draw(chosen, chosen.n_batched, "update")
    means = np.tile(prior.mean, (chosen.n_batched, 1))
    covariances = np.tile(prior.covariance, (chosen.n_batched, 1, 1))
    out = np.empty_like(means), np.empty_like(covariances)
    feature, label = users.features[:, 0], users.labels[:, 0]
    peer = SGDClassifier(loss="log_loss", alpha=1.0 / chosen.n_pairs, fit_intercept=False)
    peer.partial_fit(feature[:2], np.array([0, 1]), classes=np.array([0, 1]))
    first = prior

    def alone() -> None:
        for user in range(chosen.n_alone):
            update(first, feature[user], float(label[user]))

    def sklearn() -> None:
        for user in range(chosen.n_alone):
            peer.partial_fit(feature[user : user + 1], label[user : user + 1])

    timings = race(
        {
            "ours, batched": lambda: update_batch(means, covariances, feature, label, out=out),
            "ours, one at a time": alone,
            "scikit-learn partial_fit": sklearn,
        },
        n_repeats=chosen.n_repeats,
    )
    counts = {"ours, batched": chosen.n_batched}
    return _per_user(timings, counts, chosen.n_alone, ours="ours, batched")


def _race_refits(chosen: BeliefBenchSettings, prior: Belief) -> dict[str, Any]:
    users = _draw(chosen, chosen.n_batched, "refit")
    x, y = users.features, users.labels
    mixed = [p for p in range(chosen.n_batched) if 0 < y[p].mean() < 1][: chosen.n_alone]

    def alone() -> None:
        for user in mixed:
            fit_batch(x[user : user + 1], y[user : user + 1], prior=prior)

    def sklearn() -> None:
        for user in mixed:
            LogisticRegression(fit_intercept=False).fit(x[user], y[user])

    def scipy() -> None:
        for user in mixed:
            _minimise(x[user], y[user], tolerance=1e-6)

    timings = race(
        {
            "ours, batched": lambda: fit_batch(x, y, prior=prior, tolerance=TOLERANCE),
            "ours, one at a time": alone,
            "scikit-learn LogisticRegression": sklearn,
            "scipy L-BFGS": scipy,
        },
        n_repeats=chosen.n_repeats,
        n_warm_up=1,
    )
    counts = {"ours, batched": chosen.n_batched}
    return _per_user(timings, counts, len(mixed), ours="ours, batched")


def _many_refits(chosen: BeliefBenchSettings, prior: Belief) -> dict[str, float]:
    wall = processor = 0.0
    left = chosen.n_refitted
    while left:
        size = min(left, BLOCK)
        users = _draw(chosen, size, f"many {left}")
        started = time.perf_counter(), time.process_time()
        fit_batch(users.features, users.labels, prior=prior, tolerance=TOLERANCE)
        wall += time.perf_counter() - started[0]
        processor += time.process_time() - started[1]
        left -= size
    return {
        "n_users": chosen.n_refitted,
        "n_pairs": chosen.n_pairs,
        "wall_seconds": wall,
        "processor_seconds": processor,
    }


def _per_user(
    timings: dict[str, Timing], counts: dict[str, int], n_alone: int, *, ours: str
) -> dict[str, Any]:
    """Microseconds a user, and how many times slower than ours each is."""
    scale = {name: 1e6 / counts.get(name, n_alone) for name in timings}
    median = {name: timing.median_seconds * scale[name] for name, timing in timings.items()}
    return {
        "median_microseconds": median,
        "minimum_microseconds": {
            name: timing.minimum_seconds * scale[name] for name, timing in timings.items()
        },
        "times_slower_than_ours": {name: value / median[ours] for name, value in median.items()},
        "times_slower_than_ours_by_minimum": {
            name: timings[name].minimum_seconds
            * scale[name]
            / (timings[ours].minimum_seconds * scale[ours])
            for name in timings
        },
    }


def _draw(chosen: BeliefBenchSettings, n_users: int, name: str) -> _Users:
    generator = generator_for(chosen.seed, "bench belief", name)
    vectors = generator.standard_normal((n_users, chosen.n_features))
    features = generator.standard_normal((n_users, chosen.n_pairs, chosen.n_features))
    chance = expit(np.matmul(features, vectors[..., None])[..., 0])
    return _Users(features, (generator.random(chance.shape) < chance).astype(np.float64))


def _exact_mode(
    x: Float[ndarray, "comparisons features"], y: Float[ndarray, " comparisons"]
) -> Float[ndarray, " features"]:
    return _minimise(x, y, tolerance=1e-12)


def _minimise(
    x: Float[ndarray, "comparisons features"],
    y: Float[ndarray, " comparisons"],
    *,
    tolerance: float,
) -> Float[ndarray, " features"]:
    def loss(vector: Float[ndarray, " features"]) -> tuple[float, Float[ndarray, " features"]]:
        margins = x @ vector
        value = softplus_loss(margins, y).sum() + 0.5 * vector @ vector
        return float(value), x.T @ (expit(margins) - y) + vector

    options = {"gtol": tolerance, "ftol": tolerance * 1e-3, "maxiter": 1000}
    start = np.zeros(x.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x


def main(*, overrides: Overrides = None, is_json: IsJson = False) -> None:
    """One comparison and whole refits of many users, against scikit-learn and L-BFGS."""
    result = bench_belief(load_settings(BeliefBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(result))
        return
    Console().print_json(dump_json(result))


if __name__ == "__main__":
    run(main)
