"""`Library.decide`: which method is taken and why, what was learned, and the floor."""

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.library.library import Library
from palate.methods.table import METHODS, available_methods
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings
from tiny_parts import SharesMethod, save_tiny_offered_library

NAMES = ("kind", "short", "plain")


@pytest.fixture(scope="module")
def bare(tiny_library: Path) -> Library:
    return Library.load(tiny_library)


@pytest.fixture(scope="module")
def certified(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The tiny library with a portfolio of two of its experts, known exactly, and a controller."""
    folder = tmp_path_factory.mktemp("certified") / "library"
    return Library.load(save_tiny_offered_library(tiny_library, folder))


@pytest.fixture(scope="module")
def floored(tiny_floored_library: Path) -> Library:
    """A library of all parts with a safety floor of 0.3 on `plain`, and a method of its own."""
    library = Library.load(tiny_floored_library)
    library.methods["shares"] = SharesMethod()
    return library


def learned(*mean: float) -> Belief:
    return Belief(np.array(mean), 1e-4 * np.eye(3), n_observations=50)


def test_the_certified_loss_stands_in_the_answers_headers(
    certified: Library, tmp_path: Path
) -> None:
    served = assemble(certified, ServeSettings(), database=f"sqlite:///{tmp_path}/users.db")
    talk = {"model": "palate", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 2}
    wish = {"preference": {"plain": 1.0}, "method": "portfolio"}
    with TestClient(make_app(served), base_url="http://localhost") as client:
        found = client.post("/v1/chat/completions", json={**talk, "palate": wish})
    assert found.headers["x-palate-method"] == "portfolio"
    # of what plain wants its own expert, left out, has 0.7 and the best member 0.3
    assert found.headers["x-palate-certified-loss"] == "0.4"


def test_the_portfolio_says_what_its_member_may_cost(certified: Library) -> None:
    found = certified.decide("Why", Known(preference={"kind": 1.0}), method="portfolio")
    assert found.coefficients == {"kind": 1.0}
    assert found.certified_loss == pytest.approx(0.0, abs=1e-9)
    # by hand: plain alone is worth 0.7 of policy plain, but 0.3 of either member
    worse = certified.decide("Why", Known(preference={"plain": 1.0}), method="portfolio")
    assert worse.certified_loss == pytest.approx(0.4)
    assert "0.400" in worse.reason


def test_of_nobody_known_the_member_that_costs_the_worst_off_least_serves(
    certified: Library,
) -> None:
    # by hand, largest loss over corners: kind max(0, 0.6, 0.4) = 0.6, short max(0.8, 0, 0.4) = 0.8
    found = certified.decide("Why")
    assert (found.method, found.coefficients) == ("portfolio", {"kind": 1.0})
    assert found.certified_loss == pytest.approx(0.6)
    assert "0.600" in found.reason


def test_a_certificate_is_not_compared_with_a_utility(certified: Library) -> None:
    for preference in ({"kind": 1.0}, {"plain": 1.0}):  # whether it costs nothing or 0.4
        found = certified.decide("Why", Known(preference=preference))
        assert (found.method, found.certified_loss) == ("prompted-soup", None)
        assert "methods.json" in found.reason


def test_without_a_portfolio_nothing_is_certified(bare: Library) -> None:
    assert bare.decide("Why").method == "base"
    found = bare.decide("Why", Known(preference={"plain": 1.0}))
    assert (found.method, found.certified_loss) == ("prompted-soup", None)
    assert bare.portfolio is None
    with pytest.raises(InvalidInputError, match=r"no portfolio\.json"):
        bare.decide("Why", Known(preference={"plain": 1.0}), method="portfolio")
    with pytest.raises(InvalidInputError, match="no controller"):
        bare.decide("Why", Known(preference={"plain": 1.0}), method="mixture")
    missing = {"portfolio", "mixture", "best-of-n"}  # the last one: there are no rewards
    assert missing == set(METHODS) - set(available_methods(bare))


def test_what_was_learned_is_served_as_a_soup_and_as_its_preference_elsewhere(
    certified: Library,
) -> None:
    known = Known(belief=learned(0.4, 0.1, 0.0))
    served = certified.soups.coefficients(known.belief)
    preference = certified.soups.preference(known.belief)
    soup = certified.decide("Why", known)
    assert soup.method == "prompted-soup"
    assert soup.plan.rows[0].coefficients == pytest.approx(tuple(served.values()))
    assert "learned from the user's feedback" in soup.reason
    member = certified.decide("Why", known, method="portfolio")
    assert member.coefficients == {"kind": 1.0}
    mixed = certified.decide("Why", known, method=SharesMethod())
    shares = {name: share for name, share in preference.items() if share > 0}
    assert mixed.coefficients == pytest.approx(shares)
    controlled = certified.decide("Why", known, method="mixture")
    assert controlled.plan.pool.controller is not None
    assert max(controlled.coefficients, key=controlled.coefficients.get) == "kind"


@pytest.mark.parametrize("method", [*METHODS, "shares"])
def test_the_floor_holds_in_every_method(floored: Library, method: str) -> None:
    known = Known(preference={"kind": 1.0}, instruction="Be kind.")
    found = floored.decide("Why", known, method=method)
    assert found.coefficients["plain"] >= 0.3
    assert "safety floor" in found.reason
    if found.plan.pool.kind == "single":
        assert found.plan.rows[0].coefficients[2] >= 0.3
    elif found.plan.pool.controller is None:
        rows = zip(found.plan.rows, found.plan.pool.coefficients, strict=True)
        assert sum(c for row, c in rows if row.coefficients == (0, 0, 1)) >= 0.3 - 1e-12
    else:  # its decoding keeps the share of the row that is there
        assert any(row.coefficients == (0, 0, 1) for row in found.plan.rows)
        assert floored.controller.decoding.settings.floor.share == pytest.approx(0.3)


def test_a_method_of_ones_own_keeps_the_floor_too(floored: Library) -> None:
    found = floored.decide("Why", Known(preference={"kind": 1.0}), method=SharesMethod("mine"))
    assert found.method == "mine"
    assert found.coefficients == pytest.approx({"kind": 0.7, "plain": 0.3})


def test_certified_losses_are_the_best_policys_worth_less_the_members(certified: Library) -> None:
    values = certified.portfolio.record.payoffs.table.values
    points = np.random.default_rng(0).dirichlet(np.ones(3), size=50)
    for point in points:
        found = certified.portfolio.router.route(point)
        worth = values @ point
        assert found.value == pytest.approx(worth[:2].max())
        assert found.member == NAMES[int(worth[:2].argmax())]
        assert found.loss >= worth.max() - worth[:2].max() - 1e-9
        assert found.margin == pytest.approx(abs(worth[0] - worth[1]))
