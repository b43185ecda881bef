"""Which way is taken, and why: what `auto` weighs, what was learned, and the floor in every way."""

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from palate.core.errors import InvalidInputError
from palate.core.types import PayoffTable
from palate.portfolio.certificate import certify
from palate.portfolio.payoffs import exact_payoffs
from palate.portfolio.record import Record
from palate.portfolio.route import router_from_record
from palate.portfolio.terms import Terms
from palate.recipes.opened import Opened, open_library
from palate.recipes.palm_policy import Policy
from palate.recipes.palm_route import LibraryPortfolio
from palate.recipes.serve import assemble
from palate.recipes.serve_ways import LibraryWays
from palate.serve.app import make_app
from palate.serve.floor import Floor
from palate.serve.settings import ServeSettings
from palate.serve.ways import Wanted
from palate.serve.wire.palate import Way

NAMES = ("kind", "short", "plain")
VALUES = np.array([[0.9, 0.2, 0.3], [0.1, 0.8, 0.3], [0.2, 0.3, 0.7]])


@pytest.fixture(scope="module")
def bare(tiny_library: Path) -> Opened:
    return open_library(tiny_library)


@pytest.fixture(scope="module")
def certified(tiny_library: Path) -> Opened:
    """The tiny library with a portfolio of two of its experts, known exactly."""
    opened = open_library(tiny_library)
    table = PayoffTable(NAMES, NAMES, VALUES, np.zeros((3, 3)), beta=0.1, kl=np.zeros(3))
    payoffs, terms = exact_payoffs(table), Terms()
    record = Record(
        payoffs, NAMES[:2], (), terms, {}, certify(payoffs, members=[0, 1], terms=terms)
    )
    policies = {
        name: Policy(name, "expert", tuple(float(n == name) for n in NAMES), {name: 1.0})
        for name in NAMES[:2]
    }
    plans = {name: policy.plan(NAMES) for name, policy in policies.items()}
    opened.__dict__["portfolio"] = LibraryPortfolio(
        record, router_from_record(record, plans=plans), policies
    )
    return opened


def ways(opened: Opened, *, floor: Floor | None = None, tolerance: float = 0.05) -> LibraryWays:
    return LibraryWays(opened, None, floor, tolerance)


def test_the_certified_loss_stands_in_the_answers_headers(
    certified: Opened, tmp_path: Path
) -> None:
    served = assemble(certified, ServeSettings(), database=f"sqlite:///{tmp_path}/people.db")
    talk = {"model": "palate", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 2}
    wish = {"preference": {"plain": 1.0}, "way": "portfolio"}
    with TestClient(make_app(served)) as client:
        found = client.post("/v1/chat/completions", json={**talk, "palate": wish})
    assert found.headers["x-palate-way"] == "portfolio"
    # of what plain wants its own expert, left out, has 0.7 and the best member 0.3
    assert found.headers["x-palate-certified-loss"] == "0.4"


def test_auto_takes_the_portfolio_where_its_certified_loss_is_small(certified: Opened) -> None:
    found = ways(certified).decide("Why", Wanted("auto", {"kind": 1.0}))
    assert found.way == "portfolio"
    assert found.coefficients == {"kind": 1.0}
    assert found.certified_loss == pytest.approx(0.0, abs=1e-9)
    assert "within 0.05" in found.why


def test_auto_takes_a_soup_where_the_portfolio_could_cost_too_much(certified: Opened) -> None:
    # by hand: plain alone is worth 0.7 of policy plain, but 0.3 of either member
    found = ways(certified).decide("Why", Wanted("auto", {"plain": 1.0}))
    assert found.way == "soup"
    assert "0.400" in found.why
    patient = ways(certified, tolerance=0.4).decide("Why", Wanted("auto", {"plain": 1.0}))
    assert patient.way == "portfolio"
    assert patient.certified_loss == pytest.approx(0.4)


def test_of_nobody_known_the_member_that_costs_the_worst_off_least_serves(
    certified: Opened,
) -> None:
    # by hand, largest loss over corners: kind max(0, 0.6, 0.4) = 0.6, short max(0.8, 0, 0.4) = 0.8
    found = ways(certified).decide("Why", Wanted("auto"))
    assert (found.way, found.coefficients) == ("portfolio", {"kind": 1.0})
    assert found.certified_loss == pytest.approx(0.6)
    assert "0.600" in found.why


def test_without_a_portfolio_nothing_is_certified(bare: Opened) -> None:
    assert ways(bare).decide("Why", Wanted("auto")).way == "base"
    found = ways(bare).decide("Why", Wanted("auto", {"plain": 1.0}))
    assert (found.way, found.certified_loss) == ("soup", None)
    assert ways(bare).portfolio() is None
    with pytest.raises(InvalidInputError, match=r"no portfolio\.json"):
        ways(bare).certified(np.array([[1.0, 0.0, 0.0]]))


def test_what_was_learned_is_served_as_a_soup_and_as_its_preference_elsewhere(
    certified: Opened,
) -> None:
    learned = {
        "coefficients": {"kind": 0.4, "short": 0.1},
        "preference": {"kind": 0.8, "short": 0.2},
    }
    soup = ways(certified).decide("Why", Wanted("auto", **learned, is_learned=True))
    assert soup.way == "soup"
    assert soup.plan.rows[0].coefficients == (0.4, 0.1, 0.0)
    member = ways(certified).decide("Why", Wanted("portfolio", **learned, is_learned=True))
    assert member.coefficients == {"kind": 1.0}
    mixed = ways(certified).decide("Why", Wanted("mixture", **learned, is_learned=True))
    assert mixed.coefficients == pytest.approx({"kind": 0.8, "short": 0.2})


@pytest.mark.parametrize("way", ["auto", "base", "portfolio", "soup", "output-soup", "mixture"])
def test_the_floor_holds_in_every_way(certified: Opened, way: Way) -> None:
    floored = ways(certified, floor=Floor("plain", 2, 0.3))
    found = floored.decide("Why", Wanted(way, {"kind": 1.0}))
    assert found.coefficients["plain"] >= 0.3
    assert "safety floor" in found.why
    if found.plan.pool.kind == "single":
        assert found.plan.rows[0].coefficients[2] >= 0.3
    else:
        rows = zip(found.plan.rows, found.plan.pool.coefficients, strict=True)
        assert sum(c for row, c in rows if row.coefficients == (0, 0, 1)) >= 0.3 - 1e-12


def test_certified_losses_are_the_best_policys_worth_less_the_members(certified: Opened) -> None:
    points = np.random.default_rng(0).dirichlet(np.ones(3), size=50)
    for point, found in zip(points, ways(certified).certified(points), strict=True):
        worth = VALUES @ point
        assert found.value == pytest.approx(worth[:2].max())
        assert found.member == NAMES[int(worth[:2].argmax())]
        assert found.loss >= worth.max() - worth[:2].max() - 1e-9
        assert found.margin == pytest.approx(abs(worth[0] - worth[1]))
