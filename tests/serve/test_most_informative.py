"""Which two answers a user is shown to compare."""

import numpy as np
import pytest

from palate.core.types import Belief
from palate.serve.errors import ApiError
from palate.serve.questions import most_informative

BELIEF = Belief(np.zeros(2), np.eye(2))
LOOP = "and visionary " * 20


def test_an_answer_that_goes_round_in_circles_is_not_shown_though_it_lies_farthest() -> None:
    features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 9.0]])
    texts = ["Air scatters blue light most.", "Because of the air, my friend.", LOOP]
    assert most_informative(BELIEF, features, texts)[:2] == (0, 1)
    texts[2] = "A long answer, which says everything once."
    assert 2 in most_informative(BELIEF, features, texts)[:2]


def test_answers_in_circles_are_shown_where_there_are_no_others() -> None:
    features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert most_informative(BELIEF, features, ["Yes.", LOOP, "Yes."])[:2] == (0, 1)
    with pytest.raises(ApiError, match="All candidate answers are the same"):
        most_informative(BELIEF, features[:2], ["Yes.", "Yes."])
