"""How often intervals and regions of coefficients hold a simulated user's coefficients.

Users are drawn from the prior (standard normal), differences of features are normal, and answers
follow Bradley-Terry with the population's gain, or with gains of the users' own: the model that
beliefs assume. Two readings of the same feedback are counted: the posterior, which is what is shown
to users, and the stored belief, a mode with its curvature.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit, ndtri
from scipy.stats import chi2

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback
from palate.metrics.intervals import wilson_interval
from palate.preferences.belief import Learner
from palate.preferences.noise import LOG_SD
from research.command_line import IsJson, Seed, print_result, run, whole_numbers

INTERVAL_LEVEL = 0.95  # of the interval of one coefficient
REGION_LEVEL = 0.9  # of the region of all of them
FEATURE_DEVIATION = 0.7  # about two of three answers to a random pair of 4 coefficients are right
GAIN_SPREADS = {"population's gain": 0.0, "own gains": LOG_SD}


def study_coverage(
    *, n_coefficients: int, comparisons: Sequence[int], n_users: int, seed: int
) -> dict[str, Any]:
    """Shares of coefficients inside their 95 % interval, and of users inside their 90 % region.

    Args:
        n_coefficients: Length of a user's vector.
        comparisons: Numbers of comparisons, each with users of its own.
        n_users: At each of them.
        seed: Random seed of the study.

    Raises:
        InvalidInputError: no comparisons are asked for, or a number is below one.
    """
    if not comparisons or min(comparisons) < 1:
        raise InvalidInputError(
            f"The numbers of comparisons {list(comparisons)} are not all at least 1; give some."
        )
    learner = Learner(Belief(np.zeros(n_coefficients), np.eye(n_coefficients)))
    rows: dict[str, Any] = {}
    for n in comparisons:
        for name, spread in GAIN_SPREADS.items():
            generator = generator_for(seed, "coverage", n_coefficients, n, name)
            users = generator.normal(size=(n_users, n_coefficients))
            shown: list[Belief] = []
            stored: list[Belief] = []
            for user in users:
                history = _history(user, n=n, gain_spread=spread, generator=generator)
                shown.append(learner.posterior(history))
                stored.append(learner.rebuild(history))
            rows[f"after {n}, {name}"] = {
                "shown": _coverage(users, shown),
                "stored": _coverage(users, stored),
            }
    levels = {"interval": INTERVAL_LEVEL, "region": REGION_LEVEL}
    return {"coefficients": n_coefficients, "users": n_users, "levels": levels, **rows}


def _history(
    user: Float[ndarray, " features"], *, n: int, gain_spread: float, generator: np.random.Generator
) -> list[Feedback]:
    gain = np.exp(gain_spread * generator.normal())
    features = FEATURE_DEVIATION * generator.normal(size=(n, len(user)))
    wins = generator.random(n) < expit(gain * features @ user)
    return [
        Feedback("user", "comparison", tuple(row), float(win))
        for row, win in zip(features.tolist(), wins, strict=True)
    ]


def _coverage(
    users: Float[ndarray, "users features"], beliefs: Sequence[Belief]
) -> dict[str, dict[str, float]]:
    away = users - np.array([belief.mean for belief in beliefs])
    covariances = np.array([belief.covariance for belief in beliefs])
    deviations = np.sqrt(np.einsum("uff->uf", covariances))
    half = ndtri(0.5 + INTERVAL_LEVEL / 2) * deviations
    squares = np.einsum("uf,uf->u", away, np.linalg.solve(covariances, away[..., None])[..., 0])
    return {
        "interval": _share(np.abs(away) <= half),
        "region": _share(squares <= chi2.ppf(REGION_LEVEL, users.shape[1])),
    }


def _share(inside: ndarray) -> dict[str, float]:
    """With its interval, users being independent and coefficients of one user not."""
    low, high = wilson_interval(float(inside.mean()) * len(inside), len(inside))
    return {"covered": float(inside.mean()), "low": low, "high": high}


def main(
    *,
    coefficients: Annotated[int, typer.Option(min=1, help="Of each user.")] = 8,
    comparisons: Annotated[str, typer.Option(help="Numbers of comparisons.")] = "10,30,100",
    users: Annotated[int, typer.Option(min=10, help="Simulated users.")] = 2000,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated users: how often regions of coefficients hold the truth."""
    found = study_coverage(
        n_coefficients=coefficients,
        comparisons=whole_numbers(comparisons, what="numbers of comparisons"),
        n_users=users,
        seed=seed,
    )
    print_result(found, is_json=is_json)


if __name__ == "__main__":
    run(main)
