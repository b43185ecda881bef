"""Random logs of users, up to the absurd: the learner must take every one and reach the mode.

Features have standard deviations from 0.1 to 25 and the population's gain lies between 0.1 and 5,
so margins reach thousands. Users follow a vector, answer at random, contradict themselves on three
pairs, or give ties and probabilities; a third also rates; half are believed to change.

The distance to the mode is `sqrt(g' S g)` with the gradient `g` of the negative log posterior and
the belief's covariance `S`: about how many posterior standard deviations the mean is off.
"""

from collections import Counter
from typing import Annotated, Any, Literal, cast

import numpy as np
import typer
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import CheckFailedError, PalateError
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.preferences.drift import change_discounts, steady_discounts
from palate.preferences.settings import LearningSettings
from research.command_line import IsJson, Seed, print_result, run

TOLERANCE = 1e-6  # posterior standard deviations
LEARNED_EVERY = 10  # logs; such a log is also learned item by item
KINDS = ("follows", "random", "contradicts", "ties")
Drift = Literal["none", "steady", "adaptive"]


def random_log(generator: np.random.Generator) -> tuple[Learner, list[Feedback]]:
    """A learner with settings at random, and a log for it."""
    n_features, n_items = (int(generator.integers(1, top)) for top in (9, 61))
    sd, gain = (float(np.exp(generator.uniform(*np.log(ends)))) for ends in ((0.1, 25), (0.1, 5)))
    kind, has_ratings = generator.choice(KINDS), generator.random() < 1 / 3
    user, pairs = generator.normal(size=n_features), sd * generator.normal(size=(3, n_features))
    log: list[Feedback] = []
    for number in range(n_items):
        feature = sd * generator.normal(size=n_features)
        label = float(generator.integers(2))
        if kind == "follows":
            label = float(feature @ user > 0)
        elif kind == "contradicts":
            feature = pairs[generator.integers(3)]
        elif kind == "ties":
            label = float(generator.choice([0.5, generator.random()]))
        is_rating = has_ratings and generator.random() < 0.3
        if is_rating:
            label = float(generator.normal() * generator.choice([1.0, 10.0, 100.0]))
        log.append(
            Feedback(
                user="u",
                kind="rating" if is_rating else "comparison",
                features=tuple(feature.tolist()),
                label=label,
                group=str(generator.integers(3)),
                key=str(number),
            )
        )
    drift = cast(Drift, generator.choice(["none", "none", "steady", "adaptive"]))
    settings = LearningSettings(gain=gain, drift=drift)
    return Learner(Belief(np.zeros(n_features), np.eye(n_features)), settings), log


def missed_by(learner: Learner, log: list[Feedback], belief: Belief) -> float | None:
    """Distance of a refitted belief to the mode, posterior standard deviations.

    `None` for ratings together with drift, whose discounts are within the learner.
    """
    pairs = [item for item in log if item.kind == "comparison"]
    ratings, settings = [item for item in log if item.kind == "rating"], learner.settings
    if ratings and settings.drift != "none":
        return None
    prior = learner.refit(ratings)
    features = np.array([item.features for item in pairs]).reshape(-1, len(belief.mean))
    labels, discounts = np.array([item.label for item in pairs]), np.ones(len(pairs))
    if settings.drift == "steady":
        discounts = steady_discounts(len(pairs), factor=settings.forgetting)
    if settings.drift == "adaptive":
        discounts = change_discounts(
            features, labels, prior=prior, gain=settings.gain, hazard=settings.hazard
        )
    wins: ndarray = expit(belief.gain * features @ belief.mean)
    gradient = belief.gain * features.T @ (discounts * (wins - labels))
    gradient += np.linalg.solve(prior.covariance, belief.mean - prior.mean)
    return float(np.sqrt(gradient @ belief.covariance @ gradient))


def learned_apart(learner: Learner, log: list[Feedback]) -> float:
    """Largest difference of the belief learned item by item to the one rebuilt from the log."""
    belief, rebuilt = learner.start, learner.rebuild(log)
    for position, item in enumerate(log):
        belief = learner.learn(belief, item, earlier=lambda end=position: log[:end])
    ours, theirs = (np.append(one.covariance, one.mean) for one in (belief, rebuilt))
    return float(np.abs(ours - theirs).max())


def try_logs(n_logs: int, *, seed: int = 0) -> dict[str, Any]:
    """How many logs were refused, how many beliefs did not settle, and the largest distances."""
    counts: Counter[str] = Counter()
    refusals: list[str] = []
    largest = apart = 0.0
    for number in range(n_logs):
        learner, log = random_log(generator_for(seed, "log", number))
        try:
            belief, shown = learner.refit(log), learner.posterior(log)
            if number % LEARNED_EVERY == 0:
                counts["learned"] += 1
                apart = max(apart, learned_apart(learner, log))
        except (PalateError, ArithmeticError, np.linalg.LinAlgError) as error:
            refusals.append(f"log {number}: {error}")
            continue
        counts["not settled"] += not belief.is_converged
        counts["posteriors not settled"] += not shown.is_converged
        distance = missed_by(learner, log, belief)
        if distance is not None:
            counts["checked"] += 1
            largest = max(largest, distance)
    return {
        "n_logs": n_logs,
        "n_refused": len(refusals),
        "n_not_settled": counts["not settled"],
        "n_posteriors_not_settled": counts["posteriors not settled"],
        "n_checked": counts["checked"],
        "largest_distance": largest,
        "n_learned_item_by_item": counts["learned"],
        "largest_difference_to_rebuilt": apart,
        "refusals": refusals[:10],
    }


def main(
    *,
    logs: Annotated[int, typer.Option(min=1, help="Number of logs.")] = 10_000,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Random logs, up to the absurd: none may be refused, and every fit must reach its mode."""
    found = try_logs(logs, seed=seed)
    print_result(found, is_json=is_json)
    distance = max(found["largest_distance"], found["largest_difference_to_rebuilt"])
    if found["n_refused"] or found["n_not_settled"] or distance > TOLERANCE:
        raise CheckFailedError("A log was refused, or a fit did not reach its mode.")


if __name__ == "__main__":
    run(main)
