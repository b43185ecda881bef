"""From what is known of a user to a plan, method by method."""

from pathlib import Path

import numpy as np
import pytest

from palate.core.decision import Known, with_instruction
from palate.core.errors import InvalidCoefficientsError, InvalidInputError, InvalidPreferenceError
from palate.core.plan import output_soup_plan, parameter_soup_plan, reference_plan
from palate.core.types import Belief
from palate.library.library import Library

PREFERENCE = {"kind": 0.5, "plain": 0.5}


@pytest.fixture(scope="module")
def library(tiny_full_library: Path) -> Library:
    return Library.load(tiny_full_library)


@pytest.fixture(scope="module")
def bare(tiny_library: Path) -> Library:
    return Library.load(tiny_library)


def test_with_one_expert_per_objective_a_preference_is_its_own_coefficients(
    bare: Library,
) -> None:
    decision = bare.decide("a", Known(preference=PREFERENCE), method="soup")
    assert decision.coefficients == pytest.approx({"kind": 0.5, "short": 0.0, "plain": 0.5})
    assert decision.plan == parameter_soup_plan(tuple(decision.coefficients.values()))


def test_the_strength_is_the_librarys_unless_the_user_sets_one(library: Library) -> None:
    own = library.decide("a", Known(preference=PREFERENCE), method="soup")
    assert library.strength == 1.5
    assert own.coefficients == pytest.approx({"kind": 0.75, "short": 0.0, "plain": 0.75})
    given = library.decide("a", Known(preference=PREFERENCE, strength=2.0), method="soup")
    assert given.coefficients == pytest.approx({"kind": 1.0, "short": 0.0, "plain": 1.0})


def test_every_method_gives_its_own_plan(library: Library) -> None:
    known = Known(preference=PREFERENCE, coefficients={"kind": 0.75, "short": 0.25})
    plans = {
        method: library.decide("a", known, method=method).plan
        for method in ("base", "prompt", "soup", "prompted-soup", "output-soup")
    }
    assert plans["base"] == plans["prompt"] == reference_plan(n_experts=3)
    assert plans["soup"] == plans["prompted-soup"] == parameter_soup_plan((0.75, 0.25, 0.0))
    assert plans["output-soup"] == output_soup_plan((0.75, 0.25, 0.0))
    assert library.decide("a", known, method="implicit-soup").plan.pool.is_implicit
    alone = Known(coefficients={"kind": 1.0})
    assert library.decide("a", alone, method="implicit-soup").plan.pool.kind == "single"


def test_words_are_those_of_the_wanted_objectives_the_most_wanted_first(library: Library) -> None:
    known = Known(preference={"kind": 0.3, "short": 0.7})
    assert library.instruction(known) == "be short be kind"
    little = Known(preference={"kind": 0.1, "short": 0.9})
    assert library.instruction(little) == "be short"  # a ninth of the largest share
    own = Known(preference={"kind": 1.0}, instruction=" Say it twice. ")
    assert library.instruction(own) == "Say it twice."
    assert library.instruction(Known(coefficients={"plain": 0.2, "kind": -1.0})) == "be plain"
    assert library.instruction(Known()) == ""


def test_a_sentence_joins_the_system_message_or_makes_one() -> None:
    talk = [{"role": "system", "content": "You are Ann."}, {"role": "user", "content": "Why?"}]
    told = with_instruction(talk, "Be brief.")
    assert told == [{"role": "system", "content": "You are Ann.\n\nBe brief."}, talk[1]]
    assert talk[0]["content"] == "You are Ann."
    assert with_instruction(talk, "") is talk


def test_a_belief_is_served_within_the_trust_region(library: Library) -> None:
    belief = Belief(np.array([3.0, 0.2, 0.1]), np.eye(3) * 0.1, n_observations=20)
    decision = library.decide("a", Known(belief=belief), method="soup")
    assert decision.coefficients == library.soups.coefficients(belief)
    assert "learned from the user's feedback" in decision.reason
    shares = library.preference(Known(belief=belief))
    assert shares is not None
    assert shares.sum() == pytest.approx(1.0)
    assert library.decide("a", Known(belief=belief), method="portfolio").coefficients


def test_best_of_n_composes_with_every_method_and_ranks_by_what_is_known(library: Library) -> None:
    known = Known(preference=PREFERENCE)
    decision = library.decide("a", known, method="prompted-soup", n_candidates=3)
    assert (decision.method, decision.n_candidates, decision.n_passes) == ("prompted-soup", 3, 3.0)
    assert decision.ranking == PREFERENCE
    given = Known(coefficients={"kind": 1.0})
    learned = library.decide("a", given, method="soup", n_candidates=2)
    assert learned.learned_ranking == {"kind": 1.0}
    assert not learned.ranking


@pytest.mark.parametrize(
    ("known", "method", "error", "words"),
    [
        (Known(), "soup", InvalidInputError, "Nothing is known"),
        (Known(), "prompt", InvalidInputError, "Nothing is known"),
        (Known(preference=PREFERENCE), "stew", InvalidInputError, "'stew' is unknown"),
        (Known(preference={"kind": 0.4}), "soup", InvalidPreferenceError, "sums to 0.4"),
        (Known(preference={"rude": 1.0}), "base", InvalidPreferenceError, "objective 'rude'"),
        (Known(coefficients={"rude": 1.0}), "soup", InvalidCoefficientsError, "expert 'rude'"),
        (
            Known(coefficients={"kind": 1.0, "short": -0.5}),
            "mixture",
            InvalidCoefficientsError,
            "zero or more",
        ),
        (Known(preference=PREFERENCE, strength=-1.0), "soup", InvalidInputError, "strength -1"),
        (Known(preference=PREFERENCE, max_passes=0.5), "auto", InvalidInputError, "0.5 passes"),
        (Known(instruction="Be brief."), "best-of-n", InvalidInputError, "Best of n ranks"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    library: Library, known: Known, method: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        library.decide("a", known, method=method)


@pytest.mark.parametrize(
    ("method", "words"), [("mixture", "no controller"), ("portfolio", r"no portfolio\.json")]
)
def test_what_the_library_lacks_is_refused(bare: Library, method: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        bare.decide("a", Known(preference=PREFERENCE), method=method)


def test_coefficients_go_before_a_preference_in_plan_words_and_ranking(library: Library) -> None:
    known = Known(preference={"kind": 1.0}, coefficients={"short": 1.0})
    decision = library.decide("a", known, method="prompted-soup", n_candidates=2)
    assert decision.plan.rows[0].coefficients == (0.0, 1.0, 0.0)
    assert library.format(decision.messages) == "be short\n\na"
    assert decision.learned_ranking == {"short": 1.0}
    assert not decision.ranking


def test_nothing_is_promised_for_what_was_not_measured(library: Library) -> None:
    known = Known(preference=PREFERENCE)
    assert library.decide("a", known, method="soup").predicted_utility is not None
    for other in (
        Known(preference=PREFERENCE, strength=0.0),
        Known(preference=PREFERENCE, instruction="Say it twice."),
        Known(coefficients={"kind": 1.0}),
    ):
        assert library.decide("a", other, method="soup").predicted_utility is None
    assert library.decide("a", known, method="soup", n_candidates=3).predicted_utility is None
    measured = library.decide("a", known, method="prompted-soup", n_candidates=4)
    assert measured.predicted_utility is not None


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "system"}], [{"role": "user", "content": None}], [{"content": "a"}]],
)
def test_messages_without_role_or_text_are_one_sentence(library: Library, messages: list) -> None:
    with pytest.raises(InvalidInputError, match="conversation"):
        library.decide(messages, Known(preference=PREFERENCE), method="prompt")


def test_words_of_blanks_are_no_words(library: Library) -> None:
    known = Known(preference={"kind": 1.0}, instruction="  ")
    decision = library.decide("a", known, method="prompt")
    assert library.format(decision.messages) == "be kind\n\na"


def test_a_belief_without_feedback_is_not_served_as_one_with_feedback(library: Library) -> None:
    mean, covariance = np.array([0.5, 0.2, 0.1]), np.eye(3)
    told = library.soups.coefficients(Belief(mean, covariance, n_observations=1))
    silent = library.soups.coefficients(Belief(mean, covariance, n_observations=0))
    assert any(told.values())
    assert not any(silent.values())
