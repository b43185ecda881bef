"""The preference head finds factors that were planted in features, and none where none are."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from palate.core.errors import InvalidInputError
from research.preferences.factors import fit_coefficients
from research.preferences.head import Regression, fit_head

N_USERS, N_TEXTS, N_FEATURES, N_UNSEEN = 150, 70, 6, 20


def planted(*, n_factors: int, noise: float = 0.3, seed: int = 0):
    """Votes on texts whose offsets and loadings are linear in their features, exactly."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(N_TEXTS, N_FEATURES)) / np.sqrt(N_FEATURES)
    offset = features @ generator.normal(size=N_FEATURES) + 0.2
    loadings = features @ generator.normal(size=(N_FEATURES, n_factors))
    coefficients = generator.normal(size=(N_USERS, n_factors))
    expected = offset + coefficients @ loadings.T
    votes = expected + noise * generator.normal(size=expected.shape)
    votes[generator.random(votes.shape) < 0.3] = np.nan
    return features, expected, votes


def test_planted_factors_predict_texts_that_nobody_judged() -> None:
    features, expected, votes = planted(n_factors=2)
    judged, unseen = slice(0, N_TEXTS - N_UNSEEN), slice(N_TEXTS - N_UNSEEN, None)
    head = fit_head(
        votes[:100, judged], features[judged], rank=4, generator=np.random.default_rng(1)
    )
    assert head.share > 0.9
    assert head.noise == pytest.approx(0.3**2, rel=0.5)
    items = head.items(features[unseen])
    assert np.abs(items.offset - expected[:, unseen].mean(axis=0)).max() < 0.5
    shown = votes[100:, judged].copy()
    shown[:, 12:] = np.nan  # about eight votes of each new user
    own, _ = fit_coefficients(head.judged, shown)
    truth = expected[100:, unseen]
    left = ((items.predict(own) - truth) ** 2).mean() / ((items.offset - truth) ** 2).mean()
    assert left < 0.1
    alone, _ = fit_coefficients(head.left_out, shown)  # as if nobody else had judged those texts
    left = ((items.predict(alone) - truth) ** 2).mean() / ((items.offset - truth) ** 2).mean()
    assert left < 0.15


def test_without_votes_a_user_is_the_population() -> None:
    features, _, votes = planted(n_factors=2)
    head = fit_head(votes, features, generator=np.random.default_rng(1))
    items = head.items(features[:3])
    own, covariance = fit_coefficients(items, np.full((1, 3), np.nan))
    assert np.array_equal(items.predict(own)[0], items.offset)
    assert np.allclose(covariance[0], np.eye(6))


def test_nothing_personal_is_made_of_features_that_say_nothing() -> None:
    _, _, votes = planted(n_factors=2)
    shares, sizes = [], []
    for seed in range(1, 6):  # 0 drew the features that were planted
        features = np.random.default_rng(seed).normal(size=(N_TEXTS, N_FEATURES))
        head = fit_head(votes, features, generator=np.random.default_rng(1))
        shares.append(head.share)
        by_text = head.items(features).loadings
        sizes.append((by_text**2).sum() / (head.judged.loadings**2).sum())
    assert np.mean(np.array(shares) == 0.0) >= 0.6  # the others are found by chance
    assert np.mean(sizes) < 0.05


def test_nothing_personal_is_made_of_users_who_want_the_same() -> None:
    features, _, votes = planted(n_factors=0)
    head = fit_head(votes, features, generator=np.random.default_rng(1))
    items = head.items(features)
    means, _ = fit_coefficients(items, votes)
    assert np.abs(items.predict(means) - items.offset).max() < 0.1


def test_a_text_left_out_is_predicted_as_by_a_fit_without_it() -> None:
    generator = np.random.default_rng(3)
    features, weights = generator.normal(size=(9, 4)), generator.uniform(0.2, 3.0, size=9)
    values = generator.normal(size=(9, 2))
    regression = Regression(features, weights)
    for ridge in (0.03, 5.0):
        left_out = regression.left_out(values, ridge)
        whole = Ridge(alpha=ridge).fit(features, values, sample_weight=weights / weights.mean())
        assert np.allclose(regression.line(values, ridge)(features), whole.predict(features))
        for row in range(9):
            rest = np.delete(np.arange(9), row)
            fit = Ridge(alpha=ridge).fit(
                features[rest], values[rest], sample_weight=weights[rest] / weights.mean()
            )
            assert np.allclose(fit.predict(features[[row]])[0], left_out[row])


def test_what_cannot_be_fitted_is_refused() -> None:
    generator = np.random.default_rng(0)
    votes = np.zeros((4, 5))
    for features, sentence in (
        (np.zeros((4, 2)), "disagree"),
        (np.full((5, 2), np.nan), "not finite"),
    ):
        with pytest.raises(InvalidInputError, match=sentence):
            fit_head(votes, features, generator=generator)
    with pytest.raises(InvalidInputError, match="at least 3 texts"):
        fit_head(votes[:, :2], np.zeros((2, 2)), generator=generator)
    with pytest.raises(InvalidInputError, match="0 votes"):
        fit_head(np.full((4, 5), np.nan), np.zeros((5, 2)), generator=generator)
