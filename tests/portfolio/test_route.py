import timeit

import numpy as np
import pytest

from palate.core.errors import InvalidInputError, InvalidPreferenceError
from palate.core.plan import member_plan, output_soup_plan
from palate.core.types import PayoffTable
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.route import Router, router_from_record
from palate.portfolio.terms import Terms
from research.portfolio.exact import exact_payoffs


@pytest.fixture
def record():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.85, 0.85]])
    table = PayoffTable(
        objectives=("a", "b"),
        policies=("p", "q", "r"),
        values=values,
        standard_errors=np.zeros_like(values),
        beta=0.1,
        kl=np.ones(3),
        preferences=np.full_like(values, np.nan),
    )
    return choose(
        exact_payoffs(table), request=PortfolioRequest(size=2), terms=Terms(criterion="additive")
    )


def test_users_are_routed_as_paper_and_pencil_says(record):
    router = router_from_record(record)
    # members are p and r (or q and r by symmetry); r is worth 0.85 to everybody
    assert "r" in record.members
    other = next(name for name in record.members if name != "r")
    own = np.array([0.9, 0.1]) if other == "p" else np.array([0.1, 0.9])
    found = router.route(own)
    assert found.member == other
    assert found.value == pytest.approx(0.9)
    assert found.margin == pytest.approx(0.05)
    assert found.loss == 0.0
    far = router.route(own[::-1].copy())
    assert far.member == "r"
    assert far.loss == pytest.approx(0.05)
    assert found.plan == member_plan(index=record.members.index(other), n_experts=2)
    assert router.plan(own) == found.plan
    assert router.names[router.member(own)] == other


def test_margin_and_loss_are_to_the_best_of_the_others():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]])
    router = Router(
        names=("p", "q", "r"),
        plans=tuple(member_plan(index=k, n_experts=3) for k in range(3)),
        values=values,
        alternatives=np.array([[0.9, 0.9], [0.2, 0.2]]),
    )
    found = router.route(np.array([0.5, 0.5]))  # worth 0.5, 0.5, 0.6
    assert found.member == "r"
    assert found.margin == pytest.approx(0.1)
    assert found.loss == pytest.approx(0.9 - 0.6)
    own = router.route(np.array([0.7, 0.3]))  # worth 0.7, 0.3, 0.6
    assert own.margin == pytest.approx(0.1)
    assert own.loss == pytest.approx(0.2)


def test_nobody_loses_more_than_the_certificate_says(record):
    router = router_from_record(record)
    users = np.random.default_rng(0).dirichlet(np.ones(2), size=300)
    worst = max(router.route(w).loss for w in users)
    assert worst <= record.certified.certificate.additive_gap + 1e-12


def test_an_uncertain_user_is_served_as_their_mean(record):
    router = router_from_record(record)
    draws = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = router.route_uncertain(draws)
    assert found.route.member == "r"
    assert found.expected_loss == pytest.approx(0.15)  # 1 - 0.85 at either end
    assert found.avoidable_loss == pytest.approx(0.075)  # one of p, q is a member
    sure = router.route_uncertain(np.array([[0.5, 0.5]]))
    assert sure.avoidable_loss == 0.0


def test_no_other_member_has_a_larger_expected_value(record):
    router = router_from_record(record)
    rng = np.random.default_rng(1)
    for _ in range(50):
        draws = rng.dirichlet(np.full(2, 0.5), size=7)
        chosen = router.route_uncertain(draws).route.member
        expected = (draws @ router.values.T).mean(axis=0)
        assert expected[router.names.index(chosen)] == pytest.approx(expected.max())


def test_members_run_by_the_plans_they_are_given(record):
    plans = {name: output_soup_plan([0.5, 0.5]) for name in record.members}
    assert router_from_record(record, plans=plans).plan(np.array([0.5, 0.5])) == plans["r"]
    with pytest.raises(InvalidInputError, match="has no plan"):
        router_from_record(record, plans={})


def test_one_member_has_no_second(record):
    alone = choose(
        record.payoffs, request=PortfolioRequest(size=1), terms=Terms(criterion="additive")
    )
    assert router_from_record(alone).route(np.array([0.5, 0.5])).margin == float("inf")


def test_a_plan_takes_microseconds(record):
    router = router_from_record(record)
    preference = np.array([0.3, 0.7])
    seconds = min(timeit.repeat(lambda: router.plan(preference), number=1000, repeat=5)) / 1000
    assert seconds < 100e-6


def test_preferences_off_the_simplex_and_empty_beliefs_are_refused(record):
    router = router_from_record(record)
    with pytest.raises(InvalidPreferenceError):
        router.route(np.array([0.9, 0.9]))
    with pytest.raises(InvalidInputError, match="3 shares for 2 objectives"):
        router.route(np.array([0.2, 0.3, 0.5]))
    with pytest.raises(InvalidInputError, match="at least one"):
        router.route_uncertain(np.zeros((0, 2)))


def test_with_all_listed_policies_as_members_no_loss_is_known(record):
    whole = choose(
        record.payoffs, request=PortfolioRequest(size=3), terms=Terms(criterion="additive")
    )
    router = router_from_record(whole)
    assert router.route(np.array([0.5, 0.5])).loss is None
    uncertain = router.route_uncertain(np.eye(2))
    assert uncertain.expected_loss is None
    assert uncertain.avoidable_loss == pytest.approx(0.15)
