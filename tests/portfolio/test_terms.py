from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Payoffs, exact_payoffs
from palate.portfolio.terms import Terms, admissible, compare, require_non_negative

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
    assert "one nobody made may be better" in found.caveats[0]


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
    assert np.all(found.lower < np.array(VALUES))
    assert found.level.tolist() == [0.0, 0.0]


def test_the_floor_is_kept_at_the_lower_end_of_the_interval():
    terms = Terms(floor=("safe", 0.6))
    known = payoffs()
    assert admissible(known, lower=known.table.values, terms=terms) == [1, 2]
    assert admissible(known, lower=known.table.values - 0.05, terms=terms) == [1]
    with pytest.raises(NotCertifiedError, match="No policy keeps safe"):
        admissible(known, lower=known.table.values - 0.5, terms=terms)
    with pytest.raises(InvalidInputError, match="unknown objective 'kind'"):
        admissible(known, lower=known.table.values, terms=Terms(floor=("kind", 0.1)))


def test_a_negative_value_asks_for_an_offset():
    with pytest.raises(InvalidInputError, match=r"offset of at least 0\.25"):
        require_non_negative(payoffs(values=[[0.9, -0.25], [0.2, 0.8], [0.6, 0.6]]))


@pytest.mark.parametrize("change", [{"confidence": 1.0}, {"slack": -0.1}, {"offset": float("inf")}])
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
