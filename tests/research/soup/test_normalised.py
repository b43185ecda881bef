import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief
from palate.soup.states import States, log_softmax, soup_moments
from research.soup.explicit import pool_log_linear
from research.soup.normalised import (
    Comparisons,
    fit_gated,
    fit_normalised,
    log_likelihood,
    margins,
    normalised_loss,
)
from research.soup.trees import policy_from_logits, soup_policy, tilts
from token_problems import random_problem


def _comparisons(draws, *, n=40, n_states=12, vocab=4, n_experts=3):
    """Answers of three tokens each, through states with made-up experts."""
    reference = log_softmax(draws.normal(size=(n_states, vocab)))
    experts = log_softmax(draws.normal(size=(n_experts, n_states, vocab)))
    states = States(reference, np.moveaxis(experts - reference, 0, -1))
    features, visits = np.zeros((n, n_experts)), np.zeros((n, n_states))
    for row in range(n):
        for sign in (1, -1):
            for _ in range(3):
                state, token = draws.integers(n_states), draws.integers(vocab)
                features[row] += sign * states.tilts[state, token]
                visits[row, state] += sign
    labels = draws.choice([0.0, 0.5, 1.0], size=n)
    return Comparisons(features, csr_array(visits), labels, states)


STANDARD = Belief(np.zeros(3), np.eye(3))


def test_the_log_ratio_and_gradient_of_the_case_file(soup_cases):
    tree = soup_cases["tabular_lm"]
    reference = policy_from_logits([np.array(x) for x in tree["reference_logits"]])
    experts = [
        policy_from_logits([np.array(x) for x in tables]) for tables in tree["expert_log_probs"]
    ]
    tokens = tree["sequence"]["tokens"]
    path = [0, tokens[0], 3 * tokens[0] + tokens[1]]
    tables = [tilts(expert, reference=reference) for expert in experts]
    base = np.stack([reference[depth][state] for depth, state in enumerate(path)])
    tilt = np.stack(
        [[table[depth][state] for table in tables] for depth, state in enumerate(path)]
    ).transpose(0, 2, 1)
    ratios = sum(tilt[depth, token] for depth, token in enumerate(tokens))
    assert ratios == pytest.approx(tree["sequence"]["expert_log_ratios"], abs=1e-10)
    # compared with an answer that passes no state at all, so that the margin is G itself
    one = Comparisons(ratios[None], csr_array(np.ones((1, 3))), np.ones(1), States(base, tilt))
    values, slopes = margins(tree["coefficients"], one, scale=1.0)
    assert values[0] == pytest.approx(tree["sequence"]["soup_log_ratio"], abs=1e-10)
    assert slopes[0] == pytest.approx(tree["sequence"]["gradient"], abs=1e-10)


def test_the_gradient_agrees_with_central_differences(generator):
    comparisons = _comparisons(generator)
    prior = Belief(np.array([0.1, -0.2, 0.3]), np.diag([0.5, 1.0, 2.0]))
    scale = 0.4 * 2.5
    lam = generator.normal(size=3)

    def loss(x):
        return normalised_loss(x, comparisons, prior=prior, scale=scale)

    numeric = [(loss(lam + 1e-5 * e)[0] - loss(lam - 1e-5 * e)[0]) / 2e-5 for e in np.eye(3)]
    assert loss(lam)[1] == pytest.approx(numeric, abs=1e-8)


def test_moments_are_those_of_the_pooled_distribution(generator):
    states = _comparisons(generator).states
    lam = np.array([0.7, -1.1, 0.4])
    experts = np.moveaxis(states.tilts, -1, 0) + states.reference
    pooled = pool_log_linear(states.reference, experts, lam)
    log_normaliser, means = soup_moments(lam, states)
    assert log_normaliser == pytest.approx(pooled.log_normaliser, abs=1e-10)
    expected = np.einsum("sv,svk->sk", np.exp(pooled.log_probs), states.tilts)
    assert means == pytest.approx(expected, abs=1e-10)


def test_no_data_returns_the_prior_and_separable_data_stays_finite(generator):
    comparisons = _comparisons(generator)
    prior = Belief(np.array([0.3, 0.1, -0.5]), np.eye(3))
    nothing = comparisons.part(np.arange(0))
    found = fit_normalised(nothing, start=np.zeros(3), prior=prior, scale=1.0)
    assert found == pytest.approx(prior.mean, abs=1e-5)
    separable = Comparisons(
        comparisons.features,
        comparisons.visits,
        (comparisons.features[:, 0] > 0).astype(float),
        comparisons.states,
    )
    found = fit_normalised(separable, start=np.zeros(3), prior=STANDARD, scale=1.0)
    assert np.all(np.isfinite(found))
    assert found[0] > 0


def test_a_duplicated_expert_gets_half_and_a_permuted_bank_permutes(generator):
    comparisons = _comparisons(generator)

    def take(index, variance):
        index = np.array(index)
        states = States(comparisons.states.reference, comparisons.states.tilts[:, :, index])
        part = Comparisons(
            comparisons.features[:, index], comparisons.visits, comparisons.labels, states
        )
        prior = Belief(np.zeros(len(index)), np.diag(np.array(variance)))
        return fit_normalised(part, start=np.zeros(len(index)), prior=prior, scale=1.0)

    alone = take([0, 1, 2], [1.0, 1.0, 1.0])
    # each copy with half the variance: their sum has the prior of the one
    copied = take([0, 1, 2, 2], [1.0, 1.0, 0.5, 0.5])
    assert copied == pytest.approx([alone[0], alone[1], alone[2] / 2, alone[2] / 2], abs=1e-3)
    assert take([2, 0, 1], [1.0, 1.0, 1.0]) == pytest.approx(alone[[2, 0, 1]], abs=1e-3)


def test_stage_two_never_ends_above_its_start(generator):
    comparisons = _comparisons(generator)
    start = generator.normal(size=3)
    found = fit_normalised(comparisons, start=start, prior=STANDARD, scale=3.0)
    before, _ = normalised_loss(start, comparisons, prior=STANDARD, scale=3.0)
    after, slope = normalised_loss(found, comparisons, prior=STANDARD, scale=3.0)
    assert after < before
    assert np.abs(slope).max() < 1e-3


def test_contradictory_duplicates_are_kept_and_lower_the_fit(generator):
    comparisons = _comparisons(generator)
    sure = Comparisons(
        comparisons.features,
        comparisons.visits,
        (comparisons.features[:, 1] > 0).astype(float),
        comparisons.states,
    )
    both = Comparisons(
        np.vstack([sure.features, sure.features[:20]]),
        csr_array(np.vstack([sure.visits.toarray(), sure.visits.toarray()[:20]])),
        np.concatenate([sure.labels, 1 - sure.labels[:20]]),
        sure.states,
    )
    certain = fit_normalised(sure, start=np.zeros(3), prior=STANDARD, scale=1.0)
    doubtful = fit_normalised(both, start=np.zeros(3), prior=STANDARD, scale=1.0)
    assert 0 < doubtful[1] < certain[1]


def test_the_log_likelihood_by_hand(generator):
    comparisons = _comparisons(generator).part(np.arange(2))
    values, _ = margins([0.5, 0.1, -0.3], comparisons, scale=1.0)
    chance = expit(values)
    y = comparisons.labels
    expected = np.mean(y * np.log(chance) + (1 - y) * np.log(1 - chance))
    found = log_likelihood([0.5, 0.1, -0.3], comparisons, scale=1.0)
    assert found == pytest.approx(expected)


def test_stage_two_is_served_only_if_held_out_labels_do_not_suffer(generator):
    comparisons = _comparisons(generator, n=200)
    truth = np.array([1.0, -1.0, 0.5])
    values, _ = margins(truth, comparisons, scale=1.0)
    clear = Comparisons(
        comparisons.features, comparisons.visits, (values > 0).astype(float), comparisons.states
    )
    better = fit_gated(clear, first=lambda _: np.zeros(3), prior=STANDARD, scale=1.0)
    assert better.is_second
    assert better.second_log_likelihood > better.first_log_likelihood
    assert better.coefficients is better.second
    # a prior that is wrong and sure of itself draws stage 2 away from the truth
    wrong = Belief(-truth, 1e-3 * np.eye(3))
    worse = fit_gated(clear, first=lambda _: truth, prior=wrong, scale=1.0)
    assert not worse.is_second
    assert worse.coefficients is worse.first
    with pytest.raises(InvalidInputError, match="leave none"):
        fit_gated(clear.part(np.arange(1)), first=lambda _: truth, prior=STANDARD, scale=1.0)


@pytest.mark.parametrize("n", [3, 23])
def test_folds_are_judged_together_each_comparison_held_out_once(generator, n):
    comparisons = _comparisons(generator, n=n)
    one = generator.normal(size=3)
    used: list[list[int]] = []

    def first(index):
        used.append(index.tolist())
        return one

    judged = fit_gated(comparisons, first=first, prior=STANDARD, scale=1.0)
    *folds, whole = used
    assert whole == list(range(n))
    assert sorted(k for fold in folds for k in set(range(n)) - set(fold)) == whole
    assert len(folds) == min(5, n)
    assert judged.first_log_likelihood == pytest.approx(log_likelihood(one, comparisons, scale=1.0))


def test_a_normalised_fit_finds_the_soup_that_made_the_labels():
    draws = np.random.default_rng(14)
    problem = random_problem(draws, vocab=3, length=2, coefficients=np.array([1.5, -0.5, 0.8]))
    soup = soup_policy(problem.reference, problem.experts, problem.coefficients)
    tables = [tilts(expert, reference=problem.reference) for expert in problem.experts]
    base = np.vstack(problem.reference)
    tilt = np.vstack([np.stack([t[d] for t in tables], axis=-1) for d in range(2)])
    first, second = draws.integers(0, 9, size=(2, 4000))
    log_ratio = tilts(soup, reference=problem.reference)
    sums = (log_ratio[0].ravel()[:, None] + log_ratio[1]).ravel()
    labels = (draws.random(4000) < expit(2 * (sums[first] - sums[second]))).astype(float)
    features = np.zeros((4000, 3))
    visits = np.zeros((4000, 4))
    for sign, answers in ((1, first), (-1, second)):
        top, last = np.divmod(answers, 3)
        features += sign * (tilt[0, top] + tilt[1 + top, last])
        np.add.at(visits, (np.arange(4000), 1 + top), sign)
    comparisons = Comparisons(features, csr_array(visits), labels, States(base, tilt))
    wide = Belief(np.zeros(3), 100 * np.eye(3))
    found = fit_normalised(comparisons, start=np.zeros(3), prior=wide, scale=2.0)
    values, _ = margins(found, comparisons, scale=1.0)
    assert np.corrcoef(values, sums[first] - sums[second])[0, 1] > 0.98


def test_bad_comparisons_are_refused(generator):
    good = _comparisons(generator)
    with pytest.raises(InvalidInputError, match="states, vocab, experts"):
        States(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(InvalidInputError, match="clip tilts"):
        States(np.zeros((1, 2)), np.full((1, 2, 1), np.nan))
    with pytest.raises(InvalidInputError, match="do not fit"):
        Comparisons(good.features[:, :2], good.visits, good.labels, good.states)
    with pytest.raises(InvalidInputError, match="label"):
        Comparisons(good.features, good.visits, good.labels + 1, good.states)
    with pytest.raises(InvalidInputError, match="feature"):
        Comparisons(good.features * np.nan, good.visits, good.labels, good.states)
    with pytest.raises(InvalidCoefficientsError):
        margins([1.0], good, scale=1.0)
