from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable
from palate.portfolio.adaptive import SearchSettings
from palate.portfolio.certificate import NOTHING_KNOWN, certify
from palate.portfolio.gap import mixture_bound
from palate.portfolio.grid import size_bound
from palate.portfolio.payoffs import payoffs_from_measurements, shifted
from palate.portfolio.terms import Terms
from research.portfolio.exact import exact_payoffs, search
from research.portfolio.tabular import TabularOracle, measured


def payoffs(values, **more):
    values = np.array(values, dtype=float)
    return exact_payoffs(
        PayoffTable(
            objectives=tuple("abcd"[: values.shape[1]]),
            policies=tuple(f"p{k}" for k in range(len(values))),
            values=values,
            standard_errors=more.get("errors", np.zeros_like(values)),
            beta=more.get("beta", 0.1),
            kl=np.ones(len(values)),
            preferences=np.full_like(values, np.nan),
        )
    )


def test_the_certificate_of_three_policies_is_that_of_paper_and_pencil():
    # members (1, 0) and (0, 1); (0.7, 0.7) is missed most at (1/2, 1/2): 0.7 - 0.5
    found = certify(payoffs([[1, 0], [0, 1], [0.7, 0.7]]), members=[0, 1], terms=Terms())
    certificate = found.certificate
    assert certificate.additive_gap == pytest.approx(0.2, abs=1e-12)
    assert certificate.multiplicative_gap == pytest.approx(2 / 7, abs=1e-9)
    assert certificate.worst_preference == pytest.approx((0.5, 0.5), abs=1e-9)
    assert certificate.confidence == 1.0
    assert certificate.kind == "candidate-relative"
    assert found.instead.tolist() == [0.7, 0.7]
    proof = mixture_bound(members=found.lower_values, row=found.instead, mixture=found.mixture)
    assert proof == certificate.additive_gap


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_worst_case_certificate_is_never_below_the_true_gap(small_problem, d, seed):
    problem = small_problem(seed, d, 0.05)
    table = search(TabularOracle(problem), SearchSettings(tolerance=0.0, max_calls=d + 4)).payoffs
    members = list(range(0, d + 4, 2))
    found = certify(table, members=members, terms=Terms(slack=0.0, criterion="additive"))
    users = np.random.default_rng(seed).dirichlet(np.ones(d), size=2000)
    best = problem.best_values(users)
    worth = (users @ table.table.values[members].T).max(axis=1)
    assert found.certificate.kind == "worst-case"
    assert np.max(best - worth) <= found.certificate.additive_gap + 1e-9
    if found.certificate.multiplicative_gap is not None:
        assert np.max(1 - worth / best) <= found.certificate.multiplicative_gap + 1e-9


@pytest.mark.parametrize("kind", ["worst-case", "candidate-relative"])
def test_sampled_certificates_hold_in_the_promised_share_of_worlds(small_problem, kind):
    problem = small_problem(0, 3, 0.05)
    oracle = TabularOracle(problem)
    exact = search(oracle, SearchSettings(tolerance=0.0, max_calls=6)).payoffs
    members = [0, 2, 4]
    users = np.random.default_rng(0).dirichlet(np.ones(3), size=3000)
    worth = (users @ exact.table.values[members].T).max(axis=1)
    best = problem.best_values(users)
    if kind == "candidate-relative":
        best = (users @ exact.table.values.T).max(axis=1)
    terms = Terms(confidence=0.9, criterion="additive", slack=0.0 if kind == "worst-case" else None)
    holds, tight = 0, []
    for world in range(200):
        sampled = measured(
            oracle, exact.table.policies, n_prompts=400, generator=np.random.default_rng(world)
        )
        found = certify(
            payoffs_from_measurements(sampled), members=members, terms=terms
        ).certificate
        assert found.confidence == 0.9
        share = found.multiplicative_gap
        holds += (
            np.max(best - worth) <= found.additive_gap
            and share is not None
            and np.max(1 - worth / best) <= share
        )
        tight.append(found.additive_gap)
    assert holds >= 180
    assert np.mean(tight) < 1.0  # not vacuous: values lie in [0, 1]


def test_sampling_error_widens_the_gap():
    exact = payoffs([[1, 0], [0, 1], [0.7, 0.7]])
    noisy = payoffs([[1, 0], [0, 1], [0.7, 0.7]], errors=np.full((3, 2), 0.01))
    wide, narrow = (
        certify(table, members=[0, 1], terms=Terms()).certificate for table in (noisy, exact)
    )
    assert wide.additive_gap > narrow.additive_gap
    assert wide.confidence == 0.95
    assert "6 intervals" in " ".join(wide.assumptions)


def test_an_offset_moves_the_multiplicative_gap_only():
    table = payoffs([[1, 0.2], [0.1, 1], [0.7, 0.7]])
    plain = certify(table, members=[0, 1], terms=Terms()).certificate
    moved = certify(table, members=[0, 1], terms=Terms(offset=3.0)).certificate
    by_hand = certify(shifted(table, 3.0), members=[0, 1], terms=Terms()).certificate
    assert moved.additive_gap == pytest.approx(plain.additive_gap, abs=1e-12)
    assert moved.multiplicative_gap < plain.multiplicative_gap
    assert moved.multiplicative_gap == pytest.approx(by_hand.multiplicative_gap, abs=1e-12)


def test_a_level_error_counts_in_the_multiplicative_gap_only():
    table = payoffs([[1, 0.2], [0.1, 1], [0.7, 0.7]])
    shifted_level = replace(table, level_errors=np.array([0.02, 0.02]))
    plain, wide = (
        certify(given, members=[0, 1], terms=Terms()).certificate
        for given in (table, shifted_level)
    )
    assert wide.additive_gap == pytest.approx(plain.additive_gap, abs=1e-12)
    assert wide.multiplicative_gap > plain.multiplicative_gap


def test_a_listed_optimum_counts_at_its_preference_even_without_a_ceiling():
    table = replace(
        payoffs([[1, 0], [0, 1], [0.6, 0.3]]),
        optimum_preferences=np.array([[0.5, 0.5]]),
        optimum_values=np.array([0.8]),
    )
    found = certify(table, members=[0, 1], terms=Terms()).certificate
    assert found.kind == "candidate-relative"
    assert found.additive_gap == pytest.approx(0.3)
    assert found.multiplicative_gap == pytest.approx(0.375)
    assert found.worst_preference == (0.5, 0.5)


@pytest.mark.parametrize("with_optimum", [False, True])
def test_with_the_whole_table_as_members_nothing_is_known_beyond_it(with_optimum):
    table = payoffs([[1, 0], [0, 1]])
    if with_optimum:  # at one preference: no bound for every user
        table = replace(
            table,
            optimum_preferences=np.array([[0.5, 0.5]]),
            optimum_values=np.array([0.8]),
        )
    found = certify(table, members=[0, 1], terms=Terms())
    certificate = found.certificate
    assert certificate.kind == "candidate-relative"
    assert certificate.additive_gap is None
    assert certificate.multiplicative_gap is None
    assert certificate.worst_preference == ()
    assert found.instead is None
    assert found.mixture is None
    assert found.size_bound is None
    assert NOTHING_KNOWN in certificate.assumptions[-1]
    assert NOTHING_KNOWN == "nothing is known beyond the listed policies"


def test_the_whole_table_has_a_gap_where_all_policies_are_bounded():
    table = replace(
        payoffs([[1, 0], [0, 1]]),
        optimum_preferences=np.eye(2),
        optimum_values=np.array([1.0, 1.0]),
    )
    found = certify(table, members=[0, 1], terms=Terms()).certificate
    assert found.kind == "worst-case"
    assert found.additive_gap == pytest.approx(0.5)


def test_a_gap_to_listed_policies_says_to_how_many():
    found = certify(payoffs([[1, 0], [0, 1], [0.7, 0.7]]), members=[0, 1], terms=Terms())
    assert "relative to the 3 listed policies" in " ".join(found.certificate.assumptions)


def test_no_more_policies_are_enough_than_a_bound_for_all_or_than_were_compared():
    # in general a gap of 0.2 asks for more than three policies, one of 0.9 for less than a hundred
    few = certify(payoffs([[1, 0], [0, 1], [0.7, 0.7]]), members=[0, 1], terms=Terms())
    assert few.size_bound == 3
    many = payoffs([[0.95, 0.95], *[[0.05, 0.05]] * 100])
    large = certify(many, members=[1], terms=Terms())
    assert large.certificate.additive_gap == pytest.approx(0.9)
    assert large.size_bound == size_bound(n_objectives=2, beta=0.1, gap=0.9) < 100


def test_a_missing_reward_stands_as_an_interval():
    values = np.array([[0.9, 0.1], [np.nan, 0.9]])
    base = payoffs([[0.9, 0.1], [0.0, 0.9]])
    table = replace(base, table=replace(base.table, values=values), reward_range=(0.0, 1.0))
    found = certify(table, members=[0], terms=Terms(criterion="additive")).certificate
    # the other policy may be worth up to 1 - 0.1 * 1 nat on the first objective, 0.9 on the second
    assert found.additive_gap == pytest.approx(0.8, abs=1e-12)
    own = certify(table, members=[1], terms=Terms(criterion="additive")).certificate
    assert own.additive_gap == pytest.approx(0.9 + 0.1, abs=1e-12)
    assert "not measured" in " ".join(own.assumptions)


def test_negative_values_have_an_additive_gap_only():
    table = payoffs([[0.5, -0.9], [-0.9, -0.2]])
    for terms in (Terms(), Terms(criterion="additive")):
        found = certify(table, members=[0], terms=terms).certificate
        assert found.additive_gap == pytest.approx(0.7, abs=1e-12)
        assert found.multiplicative_gap is None
        assert found.assumptions[-1] == (
            "There is no multiplicative gap, because the best member may be worth less than "
            "nothing (-0.9) to some user; an offset of 0.9 for all rewards would give one."
        )


def test_too_many_corners_are_said_in_the_assumptions():
    rng = np.random.default_rng(0)
    values = rng.random((30, 16))
    table = exact_payoffs(
        PayoffTable(
            objectives=tuple(f"o{i}" for i in range(16)),
            policies=tuple(f"p{k}" for k in range(30)),
            values=values,
            standard_errors=np.zeros_like(values),
            beta=0.1,
            kl=np.ones(30),
            preferences=np.full_like(values, np.nan),
        )
    )
    found = certify(table, members=list(range(28)), terms=Terms(criterion="additive"))
    assert "linear program per row" in " ".join(found.certificate.assumptions)


@pytest.mark.parametrize("members", [[], [0, 0], [5], [-1]])
def test_members_that_are_not_in_the_table_are_refused(members):
    with pytest.raises(InvalidInputError, match="members"):
        certify(payoffs([[1, 0], [0, 1]]), members=members, terms=Terms())
