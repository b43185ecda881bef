from dataclasses import replace

import numpy as np
import pytest

from palate.core.types import PayoffTable
from palate.portfolio.certificate import certify
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.everybody import Stakes, best_members
from palate.portfolio.payoffs import Payoffs
from palate.portfolio.terms import Terms, compare

SHAPES = [(seed, 2 + seed % 3, 4 + seed % 5) for seed in range(50)]


def table_of(seed: int, n_objectives: int, n_policies: int, *, error: float = 0.1) -> Payoffs:
    rng = np.random.default_rng(seed)
    preferences = rng.dirichlet(np.ones(n_objectives), size=n_policies)
    preferences[:n_objectives] = np.eye(n_objectives)
    values = preferences / np.linalg.norm(preferences, axis=1, keepdims=True)
    values = values + rng.normal(scale=0.1, size=values.shape)
    table = PayoffTable(
        objectives=tuple(f"o{k}" for k in range(n_objectives)),
        policies=tuple(f"p{k}" for k in range(n_policies)),
        values=values,
        standard_errors=error * rng.random(values.shape) ** 3,
        beta=0.1,
        kl=np.ones(n_policies),
        preferences=preferences,
    )
    return Payoffs(table, np.full(n_objectives, 0.02), np.zeros((0, n_objectives)), np.zeros(0))


def gaps(
    payoffs: Payoffs, terms: Terms, *, report: Payoffs | None = None, last: int
) -> list[float]:
    found = [
        choose(
            payoffs, request=PortfolioRequest(size=size), terms=terms, report=report
        ).certified.certificate
        for size in range(1, last + 1)
    ]
    if terms.criterion == "additive":
        return [one.additive_gap for one in found]
    return [1.0 if one.multiplicative_gap is None else one.multiplicative_gap for one in found]


def falls(numbers: list[float]) -> bool:
    return bool(np.all(np.diff(numbers) <= 1e-12))


@pytest.mark.parametrize(("seed", "n_objectives", "n_policies"), SHAPES)
def test_a_larger_portfolio_is_never_certified_worse(seed, n_objectives, n_policies):
    payoffs = table_of(seed, n_objectives, n_policies)
    terms = Terms(criterion="additive")
    assert falls(gaps(payoffs, terms, last=n_policies - 1))
    whole = choose(payoffs, request=PortfolioRequest(size=n_policies), terms=terms)
    assert whole.certified.certificate.additive_gap is None  # the curve ends before the table


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_falls_for_shares_for_a_ceiling_and_on_other_prompts(seed):
    payoffs, report = table_of(seed, 3, 6), table_of(seed, 3, 6, error=0.2)
    report = replace(
        report,
        table=replace(
            report.table,
            values=report.table.values + np.random.default_rng(seed).normal(scale=0.1, size=(6, 3)),
        ),
    )
    assert falls(gaps(payoffs, Terms(offset=1.0), last=5))
    assert falls(gaps(payoffs, Terms(criterion="additive", slack=0.1), last=6))
    assert falls(gaps(payoffs, Terms(criterion="additive"), report=report, last=5))


def test_the_choice_by_estimates_alone_can_be_certified_worse_with_a_member_more():
    # why every size also tries the smaller portfolio plus one policy
    payoffs = table_of(6, 2, 5)
    comparison = compare(payoffs, Terms())
    estimates = (comparison.bounds.lower + comparison.bounds.upper) / 2.0
    stakes = Stakes(values=comparison.lower, rows=estimates)
    alone = [
        certify(payoffs, members=best_members(stakes, size=size).members, terms=Terms())
        for size in range(1, 5)
    ]
    assert not falls([one.certificate.additive_gap for one in alone])
