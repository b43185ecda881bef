import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.preferences.factors import (
    VoteFactors,
    fit_coefficients,
    fit_factors,
    select_items,
)


def votes_of(
    *, n_users: int = 200, n_items: int = 40, seen: float = 0.5, seed: int = 0, noise: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Votes with gaps, and the expected votes behind them: two factors and offsets."""
    generator = np.random.default_rng(seed)
    expected = generator.normal(size=n_items) + generator.normal(
        size=(n_users, 2)
    ) @ generator.normal(size=(2, n_items))
    votes = expected + noise * generator.normal(size=expected.shape)
    votes[generator.random(votes.shape) > seen] = np.nan
    return votes, expected


def test_the_gaps_of_a_low_rank_table_are_filled() -> None:
    votes, expected = votes_of()
    factors = fit_factors(votes, rank=5, generator=np.random.default_rng(1))
    filled = factors.predict(fit_coefficients(factors, votes)[0])
    error = np.sqrt(((filled - expected) ** 2)[np.isnan(votes)].mean())
    spread = expected.std()
    assert error < 0.25 * spread
    assert np.median(factors.noise) == pytest.approx(0.25, rel=0.3)


def test_factors_the_votes_do_not_carry_are_shrunk_away() -> None:
    factors = fit_factors(votes_of()[0], rank=6, generator=np.random.default_rng(1))
    sizes = np.linalg.svd(factors.loadings, compute_uv=False)
    assert sizes[2] < 0.25 * sizes[1]


def test_votes_without_any_structure_foretell_nothing() -> None:
    generator = np.random.default_rng(2)
    votes = generator.normal(size=(150, 30))
    votes[generator.random(votes.shape) > 0.5] = np.nan
    factors = fit_factors(votes, rank=4, generator=generator)
    moved = factors.predict(fit_coefficients(factors, votes)[0]) - factors.offset
    assert moved.std() < 0.35  # noise has standard deviation 1


def test_a_user_without_votes_has_the_prior() -> None:
    factors = fit_factors(votes_of()[0], rank=3, generator=np.random.default_rng(1))
    means, covariances = fit_coefficients(factors, np.full((1, 40), np.nan))
    assert means[0] == pytest.approx(np.zeros(3))
    assert covariances[0] == pytest.approx(np.eye(3))


def test_coefficients_with_known_items_are_those_of_bayesian_regression() -> None:
    generator = np.random.default_rng(3)
    loadings, offset = generator.normal(size=(6, 2)), generator.normal(size=6)
    noise = generator.uniform(0.2, 1.0, size=6)
    known = VoteFactors(offset, loadings, np.zeros((6, 3, 3)), noise, np.ones(2))
    votes = generator.normal(size=(1, 6))
    votes[0, 4] = np.nan
    seen = np.isfinite(votes[0])
    precision = np.eye(2) + (loadings[seen].T / noise[seen]) @ loadings[seen]
    wanted = np.linalg.solve(
        precision, (loadings[seen].T / noise[seen]) @ (votes[0] - offset)[seen]
    )
    means, covariances = fit_coefficients(known, votes)
    assert means[0] == pytest.approx(wanted)
    assert covariances[0] == pytest.approx(np.linalg.inv(precision))


def test_the_scale_of_votes_does_not_matter() -> None:
    votes, _ = votes_of(n_users=60, n_items=15)
    first = fit_factors(votes, rank=2, generator=np.random.default_rng(1))
    second = fit_factors(10.0 * votes + 50.0, rank=2, generator=np.random.default_rng(1))
    assert second.offset == pytest.approx(10.0 * first.offset + 50.0, abs=1e-6)
    assert second.noise == pytest.approx(100.0 * first.noise, rel=1e-6)


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="0 votes"):
        fit_factors(np.full((3, 2), np.nan), generator=np.random.default_rng(0))


def items_with(loadings: list[list[float]], noise: list[float] | None = None) -> VoteFactors:
    table = np.array(loadings)
    n = len(table)
    variance = np.ones(n) if noise is None else np.array(noise)
    return VoteFactors(
        np.zeros(n),
        table,
        np.zeros((n, table.shape[1] + 1, table.shape[1] + 1)),
        variance,
        np.ones(table.shape[1]),
    )


def test_the_first_question_lowers_the_prediction_error_most() -> None:
    factors = items_with([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.2]])
    order = select_items(factors, np.ones((1, 4), dtype=bool), n_questions=4)
    # by brute force: expected squared error left on all items after each single answer
    left = [
        sum(
            row @ (np.eye(2) - np.outer(item, item) / (item @ item + 1.0)) @ row
            for row in factors.loadings
        )
        for item in factors.loadings
    ]
    assert order[0, 0] == int(np.argmin(left))
    assert order[0, 1] == 1  # the other factor, before the same one again
    assert sorted(order[0].tolist()) == [0, 1, 2, 3]


def test_only_allowed_items_are_asked_and_gaps_are_marked() -> None:
    factors = items_with([[2.0], [1.0], [0.5]])
    allowed = np.array([[False, True, True], [False, False, False]])
    order = select_items(factors, allowed, n_questions=3)
    assert order.tolist() == [[1, 2, -1], [-1, -1, -1]]


def test_noisy_items_are_asked_last() -> None:
    factors = items_with([[1.0], [1.0]], noise=[9.0, 1.0])
    assert select_items(factors, np.ones((1, 2), dtype=bool), n_questions=2).tolist() == [[1, 0]]
