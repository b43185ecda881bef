"""What `auto` takes, and what it says of it."""

from pathlib import Path

import numpy as np
import pytest

from palate.core.decision import Known
from palate.core.simplex import lattice
from palate.core.types import Belief
from palate.library.knowledge import belief_draws
from palate.library.library import Library
from palate.library.method_table import MethodRow, MethodTable

NAMES = ("kind", "short", "plain")
POINTS = lattice(n_objectives=3, denominator=1)


def row(method: str, gain: float, *, n: int = 1, passes: float = 1.0) -> MethodRow:
    gains = np.full(3, gain)
    return MethodRow(method, n, passes, gains, np.full(3, 0.01), POINTS * gain)


@pytest.fixture
def library(tiny_full_library: Path) -> Library:
    return Library.load(tiny_full_library)


def with_rows(library: Library, *rows: MethodRow) -> Library:
    table = MethodTable(NAMES, denominator=1, n_prompts=30, rows=rows)
    library.__dict__["method_table"] = table
    return library


TABLE = (
    row("base", 0.0),
    row("prompt", 0.2),
    row("soup", 0.1),
    row("output-soup", 0.5, passes=3.0),
    row("prompted-soup", 0.6, n=4, passes=4.0),
)
KIND = Known(preference={"kind": 1.0})


def test_the_system_prompt_is_taken_where_it_is_worth_most(library: Library) -> None:
    decision = with_rows(library, *TABLE).decide("a", KIND)
    assert (decision.method, decision.n_candidates) == ("prompt", 1)
    assert decision.predicted_utility is not None
    assert decision.predicted_utility.estimate == pytest.approx(0.2)
    assert "soup follows 0.100 behind" in decision.reason


def test_more_passes_buy_other_methods_and_best_of_n(library: Library) -> None:
    measured = with_rows(library, *TABLE)
    known = Known(preference={"kind": 1.0}, max_passes=3.0)
    assert measured.decide("a", known).method == "output-soup"
    known = Known(preference={"kind": 1.0}, max_passes=4.0)
    decision = measured.decide("a", known)
    assert (decision.method, decision.n_candidates) == ("prompted-soup", 4)
    assert decision.ranking == {"kind": 1.0}
    assert "prompted-soup, best of 4," in decision.reason


def test_the_base_is_taken_where_everything_else_harms(library: Library) -> None:
    measured = with_rows(library, row("base", 0.0), row("prompt", -0.1), row("soup", -0.2))
    assert measured.decide("a", KIND).method == "base"


def test_without_a_table_it_says_so_and_takes_the_prompted_soup(tiny_library: Path) -> None:
    decision = Library.load(tiny_library).decide("a", KIND)
    assert decision.method == "prompted-soup"
    assert "not measured (methods.json)" in decision.reason


def test_with_nothing_known_the_choice_is_minimax(library: Library) -> None:
    even = np.full((3, 3), 0.1)
    safe = MethodRow("soup", 1, 1.0, np.full(3, 0.1), np.zeros(3), even)
    bold = MethodRow("prompt", 1, 1.0, np.full(3, 0.2), np.zeros(3), POINTS * 0.2)
    decision = with_rows(library, row("base", 0.0), safe, bold).decide("a")
    assert decision.method == "soup"
    assert "smallest largest regret over all preferences, 0.100" in decision.reason


def test_words_about_no_objective_are_a_prompt(library: Library) -> None:
    decision = library.decide("a", Known(instruction="Use metric units."))
    assert decision.method == "prompt"
    assert library.format(decision.messages) == "Use metric units.\n\na"


def test_words_about_an_objective_are_a_belief_and_a_prompt(library: Library) -> None:
    measured = with_rows(library, row("base", 0.0), row("prompted-soup", 0.2))
    decision = measured.decide("a", Known(instruction="Be brief."))
    assert decision.method == "prompted-soup"
    assert decision.coefficients["short"] > 0.0
    assert "learned from the user's own words" in decision.reason
    assert library.format(decision.messages) == "Be brief.\n\na"


def test_own_words_are_no_prompt_that_was_measured(library: Library) -> None:
    measured = with_rows(library, row("prompt", 0.5), row("prompted-soup", 0.2))
    assert measured.decide("a", KIND).method == "prompt"
    words = measured.decide("a", Known(instruction="Be brief."))
    assert words.method == "prompted-soup"
    both = Known(instruction="Be brief.", preference={"short": 1.0})
    assert measured.decide("a", both).method == "prompt"  # the preference's own row


def test_words_alone_rank_the_best_of_n_by_what_is_read_of_them(library: Library) -> None:
    known = Known(instruction="Be brief.", max_passes=4.0)
    decision = with_rows(library, *TABLE).decide("a", known)
    assert (decision.method, decision.n_candidates) == ("prompted-soup", 4)
    assert decision.learned_ranking["short"] > 0.0
    assert library.generate("a", instruction="Be brief.", max_passes=4.0, seed=1)
    about_nothing = Known(instruction="Use metric units.", max_passes=4.0)
    assert library.decide("a", about_nothing).method == "prompt"


def test_given_coefficients_are_served_as_a_soup(library: Library) -> None:
    decision = library.decide("a", Known(coefficients={"kind": 0.3}))
    assert decision.method == "soup"
    assert decision.coefficients == {"kind": 0.3, "short": 0.0, "plain": 0.0}


def test_a_belief_is_weighed_by_its_draws(library: Library) -> None:
    belief = Belief(np.array([2.0, 0.1, 0.1]), np.eye(3) * 0.01, n_observations=9)
    gains = {"kind": np.array([0.9, 0.0, 0.0]), "other": np.array([0.0, 0.5, 0.5])}
    rows = [
        MethodRow("soup", 1, 1.0, gains["kind"], np.full(3, 0.01), POINTS * 0.1),
        MethodRow("prompt", 1, 1.0, gains["other"], np.full(3, 0.01), POINTS * 0.1),
    ]
    decision = with_rows(library, *rows).decide("a", Known(belief=belief))
    assert decision.method == "soup"
    draws = belief_draws(belief, anchors=library.anchors)
    np.testing.assert_allclose(draws.sum(axis=1), 1.0)
    assert draws[:, 0].mean() > 0.8
    np.testing.assert_array_equal(draws, belief_draws(belief, anchors=library.anchors))


def test_a_method_that_cannot_follow_the_belief_gives_way_to_the_next(library: Library) -> None:
    """The belief asks for less of everything: no sentence says that, a soup can."""
    belief = Belief(np.array([-1.0, -1.0, -1.0]), np.eye(3) * 0.01, n_observations=9)
    assert library.preference(Known(belief=belief)) is None
    measured = with_rows(library, row("prompt", 0.5), row("soup", 0.1))
    assert measured.decide("a", Known(belief=belief)).method == "soup"
