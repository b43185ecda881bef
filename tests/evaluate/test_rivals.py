"""Rivals decide by the same door, and are what their papers say."""

import pytest

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row
from palate.evaluate.context import Context, Task
from palate.evaluate.judges import FunctionJudge
from palate.evaluate.rivals import RIVALS
from palate.evaluate.suite import UserSettings
from palate.library.library import Library

USERS = (
    UserSettings(name="ana", preference={"kind": 0.5, "plain": 0.5}),
    UserSettings(name="bo", preference={"short": 1.0}),
)
ANA = Known(preference=USERS[0].preference)


@pytest.fixture(scope="module")
def library(tiny_library):
    return Library.load(tiny_library)


def test_the_rewarded_soup_is_one_row_of_sum_one(library):
    decision = library.decide("hey", ANA, method=RIVALS["rewarded-soup"])
    assert decision.method == "rewarded-soup"
    assert decision.plan == Plan((Row((0.5, 0.0, 0.5)),), Pool("single"))
    assert decision.n_passes == 1


def test_mod_pools_the_experts_without_the_reference(library):
    decision = library.decide("hey", ANA, method=RIVALS["mod"])
    assert decision.plan.pool == Pool("log_linear", (0.5, 0.5))
    assert [row.coefficients for row in decision.plan.rows] == [(1, 0, 0), (0, 0, 1)]


def test_the_even_mixture_ignores_how_much_is_wanted(library):
    known = Known(preference={"kind": 0.9, "plain": 0.1})
    decision = library.decide("hey", known, method=RIVALS["mixture-even"])
    assert decision.plan.pool == Pool("linear", (0.5, 0.5))
    assert decision.coefficients == {"kind": 0.9, "plain": 0.1}


def test_a_rival_needs_a_preference(library):
    for method in RIVALS.values():
        with pytest.raises(InvalidInputError):
            library.decide("hey", Known(), method=method)


def test_an_own_method_goes_before_a_rival_of_its_name(library):
    class Mine:
        name = "mod"

        def decide(self, library, messages, known):
            return library.methods["base"].decide(library, messages, known)

    task = Task(USERS, ("hey",), 0, "nobody")
    found = Context(task, library, FunctionJudge(len, 3), own={"mod": Mine()}).entrant("mod")
    assert found.decide(USERS[0], "hey").method == "base"
    assert found.n_bytes(USERS[0]) == 8  # two numbers
