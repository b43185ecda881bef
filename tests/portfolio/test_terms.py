from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Payoffs, normal_quantile
from palate.portfolio.terms import Terms, admissible, compare
from research.portfolio.exact import exact_payoffs

VALUES = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.6]]


def payoffs(values=VALUES, preferences=((1, 0), (0, 1), (0.5, 0.5)), **more) -> Payoffs:
    values = np.array(values, dtype=float)
    known = exact_payoffs(
        PayoffTable(
            objectives=("help", "safe"),
            policies=("p", "q", "r"),
            values=values,
            standard_errors=more.pop("errors", np.zeros_like(values)),
            beta=0.1,
            kl=np.ones(3),
            preferences=np.array(preferences, dtype=float),
        )
    )
    return replace(known, **more)


def test_without_optimum_or_slack_only_the_table_is_compared():
    found = compare(payoffs(), Terms())
    assert found.kind == "candidate-relative"
    assert found.ceiling is None
    assert found.caveats == (
        "Losses are relative to the 3 listed policies; a policy outside the list may be better.",
    )


def test_slack_makes_the_comparison_worst_case():
    found = compare(payoffs(), Terms(slack=0.02))
    assert found.kind == "worst-case"
    assert np.max(found.ceiling @ [1.0, 0.0]) == pytest.approx(0.92)
    assert np.max(found.ceiling @ [0.5, 0.5]) == pytest.approx(0.62)


def test_slack_without_every_unit_vector_is_not_certifiable():
    with pytest.raises(NotCertifiedError, match="unit vector"):
        compare(payoffs(preferences=((1, 0), (0.5, 0.5), (0.4, 0.6))), Terms(slack=0.0))


def test_listed_optima_bound_every_policy():
    optima = {
        "optimum_preferences": np.array([[1.0, 0.0], [0.0, 1.0]]),
        "optimum_values": np.array([0.95, 0.85]),
    }
    found = compare(payoffs(**optima), Terms())
    assert found.kind == "worst-case"
    assert found.ceiling.tolist() == [[0.95, 0.85]]


def test_optima_that_do_not_span_need_the_range_of_rewards():
    optimum = {
        "optimum_preferences": np.array([[0.5, 0.5]]),
        "optimum_values": np.array([0.65]),
    }
    assert compare(payoffs(**optimum), Terms()).kind == "candidate-relative"
    found = compare(payoffs(**optimum, reward_range=(0.0, 1.0)), Terms())
    assert found.kind == "worst-case"
    assert np.max(found.ceiling @ [0.5, 0.5]) == pytest.approx(0.65)
    assert np.max(found.ceiling @ [1.0, 0.0]) == pytest.approx(1.0)


def test_an_optimum_below_what_a_policy_is_worth_is_refused():
    optima = {
        "optimum_preferences": np.array([[1.0, 0.0], [0.0, 1.0]]),
        "optimum_values": np.array([0.85, 0.85]),
    }
    with pytest.raises(InvalidInputError, match="below what policy 'p' is worth"):
        compare(payoffs(**optima), Terms())


def test_listed_optima_pay_for_the_common_shift_of_sampled_values():
    optima = {
        "optimum_preferences": np.eye(2),
        "optimum_values": np.array([0.95, 0.85]),
        "level_errors": np.array([0.01, 0.01]),
    }
    found = compare(payoffs(**optima), Terms(confidence=0.9))
    width = normal_quantile(confidence=0.9, n_intervals=2) * 0.01
    assert found.ceiling == pytest.approx(np.array([[0.95, 0.85]]) + width)
    assert np.array_equal(found.lower, np.array(VALUES))


def test_the_range_of_rewards_pays_for_the_common_shift_and_a_slack_does_not():
    # the heights of policies move with the shift; "no reward exceeds 1" does not
    known = payoffs(
        preferences=((1, 0), (0.4, 0.6), (0.5, 0.5)),
        level_errors=np.array([0.1, 0.1]),
        reward_range=(0.0, 1.0),
    )
    found = compare(known, Terms(slack=0.02, confidence=0.9))
    width = normal_quantile(confidence=0.9, n_intervals=2) * 0.1
    assert np.max(found.ceiling @ [0.0, 1.0]) == pytest.approx(1.0 + width)
    assert np.max(found.ceiling @ [1.0, 0.0]) == pytest.approx(0.92)
    assert np.max(found.ceiling @ [0.5, 0.5]) == pytest.approx(0.62)


def test_the_floor_is_kept_at_the_lower_end_of_the_interval():
    terms = Terms(floor=("safe", 0.6))
    known = payoffs()
    assert admissible(known, lower=known.table.values, terms=terms) == [1, 2]
    assert admissible(known, lower=known.table.values - 0.05, terms=terms) == [1]
    with pytest.raises(NotCertifiedError, match="No policy keeps safe"):
        admissible(known, lower=known.table.values - 0.5, terms=terms)
    with pytest.raises(InvalidInputError, match="unknown objective 'kind'"):
        admissible(known, lower=known.table.values, terms=Terms(floor=("kind", 0.1)))


@pytest.mark.parametrize(
    "change",
    [{"confidence": 1.0}, {"slack": -0.1}, {"slack": "some"}, {"offset": float("inf")}],
)
def test_terms_out_of_range_are_refused(change):
    with pytest.raises(InvalidInputError):
        Terms(**change)


def test_a_ceiling_of_too_many_pieces_uses_the_objectives_alone_and_says_so():
    rng = np.random.default_rng(0)
    d = 14
    preferences = np.vstack([np.eye(d), rng.dirichlet(np.ones(d), size=30)])
    values = rng.random((len(preferences), d)) * 0.1 + preferences
    known = exact_payoffs(
        PayoffTable(
            objectives=tuple(f"o{i}" for i in range(d)),
            policies=tuple(f"p{k}" for k in range(len(values))),
            values=values,
            standard_errors=np.zeros_like(values),
            beta=0.1,
            kl=np.ones(len(values)),
            preferences=preferences,
        )
    )
    found = compare(known, Terms(slack=1.0))
    assert found.ceiling.shape == (1, d)
    assert "objectives alone" in found.caveats[-1]


def test_a_gap_of_another_name_is_refused():
    with pytest.raises(InvalidInputError, match="additive or multiplicative"):
        Terms(criterion="relative")


def listed(slacks, confidence=0.975, **more):
    return payoffs(slacks=np.array(slacks), slack_confidence=confidence, **more)


def test_slacks_in_the_table_bound_every_policy_at_its_own_preference():
    found = compare(listed([0.02, 0.03, 0.05]), Terms(slack="listed"))
    assert found.kind == "worst-case"
    assert np.max(found.ceiling @ [1.0, 0.0]) == pytest.approx(0.92)
    assert np.max(found.ceiling @ [0.0, 1.0]) == pytest.approx(0.83)
    assert "within the table's slacks (at most 0.05)" in " ".join(found.caveats)


def test_slacks_and_values_share_the_doubt_that_is_allowed():
    noisy = listed([0.02, 0.03, 0.05], errors=np.full((3, 2), 0.01))
    found = compare(noisy, Terms(slack="listed", confidence=0.95))
    # slacks fail in one world of 40, values may do so in another
    half = normal_quantile(confidence=0.975, n_intervals=6) * 0.01
    assert found.lower == pytest.approx(np.array(VALUES) - half)
    assert found.confidence == 0.95
    exact = compare(listed([0.02, 0.03, 0.05]), Terms(slack="listed", confidence=0.95))
    assert exact.confidence == 0.975


def test_slacks_that_are_less_sure_than_the_certificate_are_not_used():
    found = compare(listed([0.02, 0.03, 0.05], 0.9), Terms(slack="listed", confidence=0.95))
    assert found.kind == "candidate-relative"
    assert "confidence 0.9 only" in " ".join(found.caveats)


@pytest.mark.parametrize("slacks", [[0.02, np.nan, 0.05], [np.nan] * 3, None])
def test_slacks_that_do_not_reach_every_objective_leave_the_listed_policies(slacks):
    known = payoffs() if slacks is None else listed(slacks)
    found = compare(known, Terms(slack="listed"))
    assert found.kind == "candidate-relative"
    assert not any("slack" in sentence for sentence in found.caveats)


def test_a_slack_that_is_given_goes_before_those_in_the_table():
    found = compare(listed([0.02, 0.03, 0.05]), Terms(slack=0.1))
    assert np.max(found.ceiling @ [1.0, 0.0]) == pytest.approx(1.0)
    assert compare(listed([0.02, 0.03, 0.05]), Terms()).kind == "candidate-relative"
