"""The study of soups: who its users are, how they vote, and how shares are reported."""

import numpy as np
import pytest

from palate.core.types import Belief
from palate.soup.states import States, log_softmax
from research.soup.candidates import N_CANDIDATES, Candidates
from research.soup.fit import (
    StudyBasis,
    best_single_experts,
    fit_users,
    make_basis,
    select_places,
    serve_users,
)
from research.soup.library import (
    N_BASIS,
    N_ROLLOUT_PROMPTS,
    basis_anchors,
    development_prompts,
    development_users,
    feedback_prompts,
    reported_users,
    training_preferences,
)
from research.soup.pool import AnswerPool, Votes, simulate_votes
from research.soup.report import failures, findings, render
from research.soup.rivals import instructions, wanted_poles
from research.soup.study_users import N_EXPERTS
from research.world.objectives import OBJECTIVE_NAMES
from research.world.prompts import held_out_prompts, train_prompts

BETA = 0.1


def _pool(generator: np.random.Generator, n_prompts: int = 60) -> tuple[AnswerPool, np.ndarray]:
    """Answers whose log-ratios are the anchors' rewards over beta: perfect experts."""
    gold = generator.random((4 * n_prompts, 6))
    anchors = np.array([anchor.direction for anchor in basis_anchors(seed=0)])
    return (
        AnswerPool(
            tuple(f"prompt {k // 4}" for k in range(len(gold))),
            tuple(f"answer {k}" for k in range(len(gold))),
            np.arange(len(gold)) // 4,
            gold,
            gold @ anchors.T / BETA,
        ),
        anchors,
    )


def _basis(generator: np.random.Generator, pool: AnswerPool) -> StudyBasis:
    reference = log_softmax(generator.normal(size=(40, 8)))
    states = States(reference, generator.normal(size=(40, 8, N_BASIS)))
    order = select_places(states)
    assert sorted(order) == list(range(N_BASIS))
    anchors = basis_anchors(seed=0)
    return make_basis(pool, states, anchors, places=order[:N_EXPERTS], beta=BETA, seed=0)


def test_groups_of_users_differ_and_half_of_each_is_signed():
    users = np.array([user.direction for user in reported_users(seed=0)])
    others = (
        np.array([user.direction for user in development_users(seed=0)]),
        training_preferences(seed=0),
        np.array([user.direction for user in reported_users(seed=1)]),
    )
    assert np.abs(users).sum(axis=1) == pytest.approx(np.ones(len(users)))
    assert list((users < 0).any(axis=1)) == [False, True] * (len(users) // 2)
    for other in others:
        assert np.abs(users[:, None] - other[None]).sum(axis=2).min() > 1e-3
    assert np.array_equal(users, np.array([user.direction for user in reported_users(seed=0)]))


def test_no_prompt_serves_two_purposes():
    trained = set(train_prompts()[:N_ROLLOUT_PROMPTS])
    assert not trained & set(development_prompts())
    assert not set(train_prompts()) & set(held_out_prompts())
    assert set(feedback_prompts()) <= trained


def test_the_wanted_poles_are_the_clear_axes_net_of_their_opposites():
    preference = np.array(
        [0.5, 0.1, 0.0, 0.3, 0.05, 0.05]
    )  # elementary +.4, informative +.3, style 0
    assert [pole.name for pole in wanted_poles(preference)] == ["elementary", "informative"]
    assert [pole.name for pole in wanted_poles(-preference)] == ["expert", "concise"]
    assert instructions(preference[None]) == [
        "Use simple words that a child knows. Tell me many facts."
    ]


def test_users_vote_on_two_answers_to_one_prompt_by_their_utility():
    generator = np.random.default_rng(0)
    pool, _ = _pool(generator)
    preferences = np.array([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, -1.0]])
    votes = simulate_votes(pool, preferences, n_comparisons=400, generator=generator)
    assert np.array_equal(pool.prompt_index[votes.first], pool.prompt_index[votes.second])
    assert np.all(votes.first != votes.second)
    for user, preference in enumerate(preferences):
        gaps = (pool.gold[votes.first[user]] - pool.gold[votes.second[user]]) @ preference
        expected = 1 / (1 + np.exp(-10 * gaps))
        assert votes.labels[user].mean() == pytest.approx(expected.mean(), abs=0.06)
        sure = np.abs(gaps) > 0.6
        assert np.array_equal(votes.labels[user][sure], (gaps[sure] > 0).astype(float))
    assert np.array_equal(votes.of_first(7).labels, votes.labels[:, :7])


def test_perfect_experts_give_back_the_users_utility_and_the_prior_helps_at_few_votes():
    generator = np.random.default_rng(1)
    pool, anchors = _pool(generator)
    basis = _basis(generator, pool)
    preferences = training_preferences(seed=5)[:30]
    votes = simulate_votes(pool, preferences, n_comparisons=200, generator=generator)

    def agreement(own: StudyBasis, n: int) -> float:
        beliefs = fit_users(own, votes, n_comparisons=n)
        wanted = (
            anchors[list(own.places)].T
            @ np.array([own.soup.unscaled(belief).mean for belief in beliefs]).T
        )
        rewards, utility = pool.gold @ wanted, pool.gold @ preferences.T
        return float(
            np.mean(
                [np.corrcoef(rewards[:, p], utility[:, p])[0, 1] for p in range(len(preferences))]
            )
        )

    assert agreement(basis, 200) > 0.95
    assert agreement(basis, 10) > agreement(basis.with_plain_prior(), 10)
    assert agreement(basis, 200) > agreement(basis, 10)


def test_soups_keep_their_budget_and_nobody_who_said_nothing_gets_one():
    generator = np.random.default_rng(2)
    pool, _ = _pool(generator)
    basis = _basis(generator, pool)
    width = len(basis.places)
    silent = Belief(basis.soup.prior.mean, basis.soup.prior.covariance, 0)
    loud = Belief(50 * np.ones(width), np.eye(width), 100)
    quiet, strong = serve_users(basis, [silent, loud], method="soup")
    assert not any(quiet.plan.rows[0].coefficients)
    assert strong.kl == pytest.approx(basis.soup.settings.budget, rel=1e-6)


def test_the_best_single_expert_is_the_one_whose_reward_is_the_users():
    generator = np.random.default_rng(3)
    pool, anchors = _pool(generator)
    basis = _basis(generator, pool)
    preferences = anchors[list(basis.places)]
    votes = simulate_votes(pool, preferences, n_comparisons=600, generator=generator)
    picked = best_single_experts(basis, votes, n_comparisons=600)
    axes = [k for k, place in enumerate(basis.places) if place < len(OBJECTIVE_NAMES)]
    assert [picked[k] for k in axes] == axes


def test_best_of_n_takes_the_chosen_candidates():
    shape = (2, N_CANDIDATES)
    texts = [[f"{q}-{c}" for c in range(shape[1])] for q in range(2)]
    gold = np.arange(2 * N_CANDIDATES * 6).reshape(*shape, 6) / 100
    candidates = Candidates(texts, gold, np.ones(shape, bool), np.zeros((*shape, 3)))
    cell = candidates.picked(np.array([[1, 0], [7, 3]]))
    assert cell.texts == [["0-1", "1-0"], ["0-7", "1-3"]]
    assert np.array_equal(cell.gold[1, 1], gold[1, 3])


def _row(method: str, utility: list[float], *, prior: str = "", n: int = -1, seed: int = 0):
    return {
        "seed": seed,
        "way": method,
        "prior": prior,
        "n": n,
        "n_prompts": 4,
        "utility": utility,
        "base": [0.1, 0.2],
        "ceiling": [0.5, 0.4],
        "raised_ceiling": [0.7, 0.4],
        "kl_per_token": 0.02,
        "kl_per_answer": [1.0, 1.0],
        "well_formed": 1.0,
    }


def test_shares_are_sums_of_gains_over_users_of_all_seeds():
    rows = [
        _row("parameter soup", [0.4, 0.3], prior="prior", n=100),
        _row("parameter soup", [0.5, 0.2], prior="prior", n=100, seed=1),
        _row("prompting", [0.5, 0.5]),
    ]
    soup, oracle = findings(rows)
    assert soup["gain"]["estimate"] == pytest.approx((0.3 + 0.1 + 0.4 + 0.0) / 1.2)
    assert soup["gain_at_budget"]["estimate"] == pytest.approx(0.8 / 1.6)
    assert soup["raw"]["estimate"] == pytest.approx(1.4 / 1.8)
    assert (soup["n_users"], soup["worst"]) == (4, pytest.approx(0.0))
    assert oracle["gain"]["estimate"] == pytest.approx(0.7 / 0.6)
    missed = failures([soup, oracle])
    assert len(missed) == 2
    assert "after 100 votes reaches 66.7%, not 90%" in missed[0]
    assert "prompting reaches 116.7%" in missed[1]
    text = render([soup, oracle], {}, command="python -m research.soup.study")
    assert "| parameter soup | population | 67 [" in text
    assert "Missed: " in text


def test_votes_are_kept_apart_by_user():
    votes = Votes(np.array([[0], [1]]), np.array([[1], [0]]), np.array([[1.0], [0.0]]))
    features = np.array([[1.0, 2.0], [0.0, 5.0]])
    assert np.array_equal(votes.differences(features)[:, 0], [[1.0, -3.0], [-1.0, 3.0]])
