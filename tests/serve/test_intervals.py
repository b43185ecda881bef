"""Intervals over HTTP hold the truth of simulated users as often as they say."""

import sys

import numpy as np
import pytest
from scipy.special import expit
from starlette.testclient import TestClient

from palate.core.types import Feedback
from palate.preferences.comparisons import require_root
from palate.preferences.noise import LOG_SD
from palate.serve.auth import OPEN
from palate.store.rows import lock_user, write_feedback
from store_steps import append_all

LEAST, MOST = 0.93, 0.97  # share of 95 % intervals that may hold the truth
COUNTS = (5, 20, 60)


def taught(
    client: TestClient, *, n_users: int, n_comparisons: int, gain_sd: float
) -> dict[str, np.ndarray]:
    """True coefficients by name of users of the prior, whose feedback is in the database.

    Differences of features are those of two independent answers; labels follow Bradley-Terry with
    the learner's gain, times a factor of the user's own.
    """
    served = client.app.state.served
    learner = served.believer.learner
    generator = np.random.default_rng([n_comparisons, int(100 * gain_sd)])
    scales = np.sqrt(2.0) * served.library.soups.basis.feature_scales
    prior, root = learner.prior, require_root(learner.prior.covariance)
    truth: dict[str, np.ndarray] = {}
    items: list[Feedback] = []
    for place in range(n_users):
        name = f"p{n_comparisons}-{gain_sd:.1f}-{place}"
        truth[name] = prior.mean + root @ generator.normal(size=len(root))
        gain = learner.settings.gain * np.exp(gain_sd * generator.normal())
        features = scales * generator.normal(size=(n_comparisons, len(scales)))
        wins = generator.random(n_comparisons) < expit(gain * features @ truth[name])
        items += [
            Feedback(name, "comparison", tuple(row), float(win), key=str(number))
            for number, (row, win) in enumerate(zip(features.tolist(), wins, strict=True))
        ]
    with served.database.writing() as connection:  # beliefs are rebuilt when they are read
        for item in items:
            number = lock_user(connection, tenant=OPEN.tenant, name=item.user)
            write_feedback(connection, number, item)
    return truth


def hits(client: TestClient, truth: dict[str, np.ndarray]) -> np.ndarray:
    """`[users, experts]`, whether the interval that is shown holds the true coefficient."""
    rows: list[list[bool]] = []
    for name, coefficients in truth.items():
        shown = client.get(f"/v1/users/{name}").json()["belief"]["experts"]
        pairs = zip(shown, coefficients, strict=True)
        rows.append([row["low"] <= value <= row["high"] for row, value in pairs])
    return np.array(rows)


def stored_hits(client: TestClient, truth: dict[str, np.ndarray]) -> np.ndarray:
    """The same of the belief that is stored, a mode with its curvature."""
    store = client.app.state.served.store(OPEN.tenant)
    rows: list[np.ndarray] = []
    for name, coefficients in truth.items():
        belief = store.belief(name)
        half = 1.96 * np.sqrt(np.diag(belief.covariance))
        rows.append(np.abs(coefficients - belief.mean) <= half)
    return np.array(rows)


def test_intervals_that_are_shown_cover_where_those_of_the_stored_belief_do_not(
    web: TestClient,
) -> None:
    shown: list[np.ndarray] = []
    stored: list[np.ndarray] = []
    for n in COUNTS:
        truth = taught(web, n_users=200, n_comparisons=n, gain_sd=0.0)
        shown.append(hits(web, truth))
        stored.append(stored_hits(web, truth))
        # 600 coefficients: 2.5 standard errors are 2.3 points
        assert LEAST - 0.01 <= shown[-1].mean() <= MOST + 0.01
    assert LEAST <= np.concatenate(shown).mean() <= MOST
    assert stored[-1].mean() < 0.9


@pytest.mark.study
@pytest.mark.slow
@pytest.mark.parametrize(("n_comparisons", "gain_sd"), [(5, LOG_SD), (20, 0.0), (60, LOG_SD)])
def test_600_simulated_users_find_themselves_in_19_of_20_intervals(
    web: TestClient, n_comparisons: int, gain_sd: float
) -> None:
    truth = taught(web, n_users=600, n_comparisons=n_comparisons, gain_sd=gain_sd)
    shown, stored = hits(web, truth), stored_hits(web, truth)
    sys.stdout.write(  # shown by pytest -s
        f"after {n_comparisons} comparisons, own gains spread by {gain_sd:.2f}: shown "
        f"{shown.mean():.1%}, stored {stored.mean():.1%} of {shown.size} coefficients\n"
    )
    assert LEAST <= shown.mean() <= MOST


def test_what_is_shown_is_of_the_feedback_that_counts(web: TestClient) -> None:
    served = web.app.state.served
    store = served.store(OPEN.tenant)
    append_all(
        store, [Feedback("vi", "comparison", (1.0, 0.5, -1.0), 1.0, key=str(k)) for k in range(3)]
    )
    first = web.get("/v1/users/vi").json()["belief"]
    posterior = served.believer.learner.posterior(store.history("vi"))
    assert [row["mean"] for row in first["experts"]] == pytest.approx(posterior.mean)
    belief = store.belief("vi")

    more = [*store.history("vi"), Feedback("vi", "comparison", (9.0, 9.0, 9.0), 0.0)]
    later = served.believer.out(
        belief, more, learner=served.believer.learner
    )  # the log grew after the belief was read
    assert later == first
    web.post("/v1/users/vi/reset", json={})
    start = served.believer.learner.start
    afresh = web.get("/v1/users/vi").json()["belief"]
    assert [row["mean"] for row in afresh["experts"]] == pytest.approx(start.mean)
    half = 1.96 * np.sqrt(np.diag(start.covariance))
    assert [row["high"] for row in afresh["experts"]] == pytest.approx(start.mean + half, rel=1e-3)
