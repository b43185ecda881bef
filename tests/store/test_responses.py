import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Feedback
from palate.store.database import Database
from palate.store.responses import Response, find_response, record_response
from palate.store.store import SqlProfileStore

PAIR = Response(
    id="r1",
    user="ann",
    prompt="What is rain?",
    shown=("Water.", "Weather's tears."),
    features=((0.2, 0.9, 0.5), (0.8, 0.1, 0.5)),
    method="soup",
    coefficients={"simple": 0.7, "warm": -0.1},
    seed=2**40,
)


def test_a_response_comes_back_as_it_was(database: Database) -> None:
    record_response(database, PAIR)
    assert find_response(database, "r1") == PAIR
    assert find_response(database, "r2") is None
    assert find_response(database, "r1", tenant="other") is None
    with pytest.raises(InvalidInputError, match="recorded before"):
        record_response(database, PAIR)


def test_feedback_has_the_features_of_what_was_shown(store: SqlProfileStore) -> None:
    comparison = PAIR.feedback("comparison", 0.0)
    assert comparison.features == pytest.approx((-0.6, 0.8, 0.0))
    assert comparison.key == "r1/comparison/0"
    assert PAIR.feedback("thumbs", 1.0, answer=1) == Feedback(
        "ann", "thumbs", (0.8, 0.1, 0.5), 1.0, key="r1/thumbs/1"
    )
    assert PAIR.feedback("rating", 4.0, key="own").group == "What is rain?"
    assert store.append(comparison)
    assert not store.append(PAIR.feedback("comparison", 0.0))  # pressed twice


def test_impossible_feedback_and_responses_are_refused() -> None:
    single = Response("r", "ann", "p", ("x",), ((1.0,),), "soup")
    with pytest.raises(InvalidInputError, match="needs two"):
        single.feedback("comparison", 1.0)
    with pytest.raises(InvalidInputError, match="no answer 3"):
        single.feedback("thumbs", 1.0, answer=3)
    with pytest.raises(InvalidInputError, match="one vector for each"):
        Response("r", "ann", "p", ("x",), ((1.0,), (2.0,)), "soup")
    with pytest.raises(InvalidInputError, match="compute them first"):
        Response("r", "ann", "p", ("x",), (), "soup").feedback("thumbs", 1.0)
