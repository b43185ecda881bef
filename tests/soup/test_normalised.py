import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief
from palate.soup.normalised import (
    Comparisons,
    Fold,
    Margin,
    States,
    fit_normalised,
    fold_masks,
    gate,
    log_likelihood,
    margins,
    normalised_loss,
    soup_moments,
)
from palate.soup.pool import log_softmax, pool_log_linear
from palate.soup.trees import policy_from_logits, soup_policy, tilts
from soup.problems import random_problem


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
    values, slopes = margins(tree["coefficients"], one, margin=Margin(beta=1.0))
    assert values[0] == pytest.approx(tree["sequence"]["soup_log_ratio"], abs=1e-10)
    assert slopes[0] == pytest.approx(tree["sequence"]["gradient"], abs=1e-10)


@pytest.mark.parametrize("is_normalised", [False, True])
def test_the_gradient_agrees_with_central_differences(generator, is_normalised):
    comparisons = _comparisons(generator)
    prior = Belief(np.array([0.1, -0.2, 0.3]), np.diag([0.5, 1.0, 2.0]))
    margin = Margin(beta=0.4, gain=2.5, is_normalised=is_normalised)
    discounts = generator.random(40)
    lam = generator.normal(size=3)

    def loss(x):
        return normalised_loss(x, comparisons, prior=prior, margin=margin, discounts=discounts)

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


def test_the_linear_margin_is_the_dot_product_and_the_fit_its_logistic_optimum(generator):
    comparisons = _comparisons(generator)
    margin = Margin(beta=0.5, gain=2.0, is_normalised=False)
    found = fit_normalised(comparisons, start=np.zeros(3), prior=STANDARD, margin=margin)
    values = comparisons.features @ found
    residual = comparisons.features.T @ (expit(values) - comparisons.labels) + found
    assert np.abs(residual).max() < 1e-4


def test_two_starts_and_any_order_give_the_same_linear_fit(generator):
    comparisons = _comparisons(generator)
    margin = Margin(beta=0.5, is_normalised=False)
    one = fit_normalised(comparisons, start=np.zeros(3), prior=STANDARD, margin=margin)
    shuffled = comparisons.part(generator.permutation(40))
    two = fit_normalised(shuffled, start=np.full(3, 3.0), prior=STANDARD, margin=margin)
    assert one == pytest.approx(two, abs=1e-4)


@pytest.mark.parametrize("is_normalised", [False, True])
def test_no_data_returns_the_prior_and_separable_data_stays_finite(generator, is_normalised):
    margin = Margin(beta=1.0, is_normalised=is_normalised)
    comparisons = _comparisons(generator)
    prior = Belief(np.array([0.3, 0.1, -0.5]), np.eye(3))
    nothing = comparisons.part(np.zeros(40, dtype=bool))
    found = fit_normalised(nothing, start=np.zeros(3), prior=prior, margin=margin)
    assert found == pytest.approx(prior.mean, abs=1e-5)
    separable = Comparisons(
        comparisons.features,
        comparisons.visits,
        (comparisons.features[:, 0] > 0).astype(float),
        comparisons.states,
    )
    found = fit_normalised(separable, start=np.zeros(3), prior=STANDARD, margin=margin)
    assert np.all(np.isfinite(found))
    assert found[0] > 0


@pytest.mark.parametrize("is_normalised", [False, True])
def test_a_duplicated_expert_gets_half_and_a_permuted_bank_permutes(generator, is_normalised):
    margin = Margin(beta=1.0, is_normalised=is_normalised)
    comparisons = _comparisons(generator)

    def take(index, variance):
        index = np.array(index)
        states = States(comparisons.states.reference, comparisons.states.tilts[:, :, index])
        part = Comparisons(
            comparisons.features[:, index], comparisons.visits, comparisons.labels, states
        )
        prior = Belief(np.zeros(len(index)), np.diag(np.array(variance)))
        return fit_normalised(part, start=np.zeros(len(index)), prior=prior, margin=margin)

    alone = take([0, 1, 2], [1.0, 1.0, 1.0])
    # each copy with half the variance: their sum has the prior of the one
    copied = take([0, 1, 2, 2], [1.0, 1.0, 0.5, 0.5])
    assert copied == pytest.approx([alone[0], alone[1], alone[2] / 2, alone[2] / 2], abs=1e-3)
    assert take([2, 0, 1], [1.0, 1.0, 1.0]) == pytest.approx(alone[[2, 0, 1]], abs=1e-3)


def test_stage_two_never_ends_above_its_start(generator):
    comparisons = _comparisons(generator)
    margin = Margin(beta=1.0, gain=3.0)
    start = generator.normal(size=3)
    found = fit_normalised(comparisons, start=start, prior=STANDARD, margin=margin)
    before, _ = normalised_loss(start, comparisons, prior=STANDARD, margin=margin)
    after, slope = normalised_loss(found, comparisons, prior=STANDARD, margin=margin)
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
    margin = Margin(beta=1.0)
    certain = fit_normalised(sure, start=np.zeros(3), prior=STANDARD, margin=margin)
    doubtful = fit_normalised(both, start=np.zeros(3), prior=STANDARD, margin=margin)
    assert 0 < doubtful[1] < certain[1]


def test_the_log_likelihood_by_hand(generator):
    comparisons = _comparisons(generator).part(np.arange(2))
    values, _ = margins([0.5, 0.1, -0.3], comparisons, margin=Margin(beta=1.0))
    chance = expit(values)
    y = comparisons.labels
    expected = np.mean(y * np.log(chance) + (1 - y) * np.log(1 - chance))
    found = log_likelihood([0.5, 0.1, -0.3], comparisons, margin=Margin(beta=1.0))
    assert found == pytest.approx(expected)


def test_the_gate_keeps_stage_two_only_if_held_out_labels_do_not_suffer(generator):
    comparisons = _comparisons(generator, n=200)
    margin = Margin(beta=1.0)
    truth = np.array([1.0, -1.0, 0.5])
    values, _ = margins(truth, comparisons, margin=margin)
    held_out = Comparisons(
        comparisons.features, comparisons.visits, (values > 0).astype(float), comparisons.states
    )
    better = gate([Fold(np.zeros(3), truth, held_out)], margin=margin)
    assert better.is_second
    assert better.second_log_likelihood > better.first_log_likelihood
    assert better.n == 200
    worse = gate([Fold(truth, -truth, held_out)], margin=margin)
    assert not worse.is_second
    assert gate([Fold(truth, truth, held_out)], margin=margin).is_second
    nothing = Fold(truth, truth, held_out.part(np.arange(0)))
    with pytest.raises(InvalidInputError, match="held out"):
        gate([nothing], margin=margin)


def test_folds_are_judged_together_each_comparison_once(generator):
    comparisons = _comparisons(generator, n=23)
    margin = Margin(beta=1.0)
    one, two = generator.normal(size=(2, 3))
    masks = fold_masks(23, n_folds=5)
    assert np.sum(masks, axis=0).tolist() == [1] * 23
    folds = [Fold(one, two, comparisons.part(mask)) for mask in masks]
    judged = gate(folds, margin=margin)
    assert judged.n == 23
    assert judged.first_log_likelihood == pytest.approx(
        log_likelihood(one, comparisons, margin=margin)
    )
    assert judged.second_log_likelihood == pytest.approx(
        log_likelihood(two, comparisons, margin=margin)
    )
    assert len(fold_masks(3)) == 3


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
    found = fit_normalised(
        comparisons, start=np.zeros(3), prior=wide, margin=Margin(beta=1.0, gain=2.0)
    )
    values, _ = margins(found, comparisons, margin=Margin(beta=1.0))
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
        margins([1.0], good, margin=Margin(beta=1.0))
