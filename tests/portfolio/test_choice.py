from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.types import PayoffTable
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.selection import Cost
from palate.portfolio.terms import Terms
from research.portfolio.exact import exact_payoffs

VALUES = [[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [0.85, 0.4]]


def payoffs(values=VALUES, errors=None):
    values = np.array(values, dtype=float)
    return exact_payoffs(
        PayoffTable(
            objectives=("help", "safe"),
            policies=tuple("pqrs"[: len(values)]),
            values=values,
            standard_errors=np.zeros_like(values) if errors is None else np.array(errors),
            beta=0.1,
            kl=np.ones(len(values)),
            preferences=np.full_like(values, np.nan),
        )
    )


def test_the_best_member_alone_is_that_of_paper_and_pencil():
    # alone, r loses 0.3 at either end, every other policy more
    record = choose(payoffs(), request=PortfolioRequest(size=1), terms=Terms(criterion="additive"))
    assert record.members == ("r",)
    assert record.certified.certificate.additive_gap == pytest.approx(0.3)
    assert record.selection["least_gap_of_this_size"] == pytest.approx(0.3)


def test_a_tolerance_gives_the_fewest_members():
    record = choose(payoffs(), request=PortfolioRequest(delta=0.31), terms=Terms())
    assert record.members == ("r",)
    record = choose(payoffs(), request=PortfolioRequest(delta=0.05), terms=Terms())
    assert record.certified.certificate.additive_gap <= 0.05 + 1e-9
    assert len(record.members) == 3


def test_a_floor_refuses_members_but_not_the_comparison_with_them():
    terms = Terms(floor=("safe", 0.5), criterion="additive")
    record = choose(payoffs(), request=PortfolioRequest(size=2), terms=terms)
    assert record.members == ("q", "r")
    assert record.refused == ("p", "s")
    # who wants help only could have had p's 1.0 and gets r's 0.7
    assert record.certified.certificate.additive_gap == pytest.approx(0.3)


def test_the_floor_is_in_units_before_the_offset():
    terms = Terms(floor=("safe", 0.5), offset=10.0)
    assert choose(payoffs(), request=PortfolioRequest(size=1), terms=terms).refused == ("p", "s")


def test_the_floor_is_an_absolute_height_and_pays_for_the_common_shift():
    shifted = replace(payoffs(), level_errors=np.array([0.0, 0.05]))  # half-width 0.098
    terms = Terms(floor=("safe", 0.65), criterion="additive")
    assert choose(payoffs(), request=PortfolioRequest(size=1), terms=terms).refused == ("p", "s")
    assert choose(shifted, request=PortfolioRequest(size=1), terms=terms).refused == ("p", "r", "s")


def test_a_mean_over_users_can_want_other_members():
    users = np.array([[0.95, 0.05], [0.9, 0.1]])
    request = PortfolioRequest(size=1, cost=Cost(aim="mean"), users=users)
    assert choose(payoffs(), request=request, terms=Terms()).members == ("p",)


def test_the_certificate_is_computed_on_the_report_table():
    report = payoffs(values=[[0.9, 0.0], [0.0, 1.0], [0.6, 0.6], [0.85, 0.4]])
    record = choose(
        payoffs(),
        request=PortfolioRequest(size=1),
        terms=Terms(criterion="additive"),
        report=report,
    )
    assert record.members == ("r",)
    assert record.certified.certificate.additive_gap == pytest.approx(0.4)
    assert record.selection["chosen_on_other_prompts"]
    with pytest.raises(InvalidInputError, match="policies"):
        choose(
            payoffs(), request=PortfolioRequest(size=1), terms=Terms(), report=payoffs(VALUES[:2])
        )
    other = replace(report, table=replace(report.table, beta=0.2))
    with pytest.raises(InvalidInputError, match="different beta"):
        choose(payoffs(), request=PortfolioRequest(size=1), terms=Terms(), report=other)


def test_noisy_policies_are_chosen_for_what_they_are_worth_at_least():
    values = [[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [0.69, 0.69]]
    errors = np.zeros((4, 2))
    errors[2] = 0.1
    exact, noisy = payoffs(values), payoffs(values, errors)
    terms = Terms(criterion="additive")
    assert choose(exact, request=PortfolioRequest(size=1), terms=terms).members == ("r",)
    assert choose(noisy, request=PortfolioRequest(size=1), terms=terms).members == ("s",)


def test_a_tolerance_below_the_noise_is_not_certifiable():
    noisy = payoffs(errors=np.full((4, 2), 0.05))
    with pytest.raises(NotCertifiedError, match="widen the tolerance"):
        choose(noisy, request=PortfolioRequest(delta=0.01), terms=Terms())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "neither"),
        ({"size": 2, "delta": 0.1}, "both"),
        ({"epsilon": 1.0}, "infeasible"),
        ({"delta": -0.1}, "infeasible"),
    ],
)
def test_requests_for_nothing_or_too_much_are_refused(fields, words):
    with pytest.raises(InvalidInputError, match=words):
        PortfolioRequest(**fields)


def test_more_members_than_policies_that_keep_the_floor_are_refused():
    with pytest.raises(InvalidInputError, match="larger than the 2 policies"):
        choose(payoffs(), request=PortfolioRequest(size=3), terms=Terms(floor=("safe", 0.5)))


def test_values_slightly_below_zero_are_chosen_by_the_additive_gap_and_that_is_said():
    # whoever wants p's weak side only is worth less than nothing with p alone, and so with the rest
    table = payoffs([[1.0, -0.003], [0.4, -0.001], [0.7, -0.002]])
    asked = choose(table, request=PortfolioRequest(size=1), terms=Terms())
    by_amount = choose(table, request=PortfolioRequest(size=1), terms=Terms(criterion="additive"))
    assert asked.members == by_amount.members == ("p",)
    assert asked.selection["criterion"] == "additive"
    assert "chosen by the additive gap" in asked.selection["notes"][0]
    certificate = asked.certified.certificate
    assert certificate.additive_gap == pytest.approx(0.002)
    assert certificate.multiplicative_gap is None
    assert "(-0.003)" in certificate.assumptions[-1]
    moved = choose(table, request=PortfolioRequest(size=1), terms=Terms(offset=0.003))
    assert moved.selection["criterion"] == "multiplicative"
    assert moved.selection["notes"] == []
    assert moved.certified.certificate.multiplicative_gap is not None


def test_a_negative_value_of_one_policy_does_not_take_the_shares_from_others():
    table = payoffs([[1.0, -0.2], [-0.1, 1.0], [0.6, 0.6]])
    record = choose(table, request=PortfolioRequest(size=1), terms=Terms())
    assert record.members == ("r",)
    assert record.selection["criterion"] == "multiplicative"
    assert record.certified.certificate.multiplicative_gap == pytest.approx(0.4)


def test_a_share_tolerance_counts_from_the_lowest_value_where_that_is_negative():
    table = payoffs([[1.0, -0.003], [0.4, -0.001], [0.7, -0.002]])
    record = choose(table, request=PortfolioRequest(epsilon=0.5), terms=Terms())
    # from -0.001 the best is worth 1.001 and 0: b keeps nobody below half of that but the first
    assert "(-0.001)" in record.selection["notes"][0]
    shares = np.linspace(0.0, 1.0, 101)
    users = np.stack([shares, 1.0 - shares], axis=1)
    values = table.table.values
    best = (users @ values.T).max(axis=1)
    worth = (users @ values[record.indices()].T).max(axis=1)
    assert np.all(worth >= best - 0.5 * (best + 0.001) - 1e-9)
