"""The laws of `tests/batteries.py`, for every method of the table."""

from pathlib import Path

import pytest

import batteries
from palate.core.decision import Known
from palate.library.library import Library
from palate.methods.table import METHODS
from tiny import FULL_FLOOR, OBJECTIVES, save_tiny_full_library


@pytest.fixture(scope="module")
def library(tiny_full_library: Path) -> Library:
    return Library.load(tiny_full_library)


@pytest.fixture(scope="module")
def floored(tiny_floored_library: Path) -> Library:
    return Library.load(tiny_floored_library)


@pytest.fixture(scope="module")
def permuted(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("permuted") / "library"
    order = (OBJECTIVES[2], OBJECTIVES[0], OBJECTIVES[1])
    return Library.load(save_tiny_full_library(tiny_library, folder, order=order))


def test_there_are_ten_methods_and_each_is_stored_under_its_name() -> None:
    assert len(METHODS) == 10
    assert all(name == method.name for name, method in METHODS.items())
    used = {*batteries.EXPERT_METHODS, *batteries.UNTRAINED_METHODS, "auto"}
    assert used == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_decision_names_the_method_that_was_taken(library: Library, method: str) -> None:
    decision = batteries.decided(library, method)
    assert decision.method != "auto"
    assert method in ("auto", decision.method)
    assert decision.reason
    assert decision.predicted_utility is not None or decision.method == "implicit-soup"


@pytest.mark.parametrize("method", METHODS)
def test_the_floor_is_held(floored: Library, method: str) -> None:
    name, least = FULL_FLOOR
    for known in (None, Known(preference={"kind": 1.0})):
        decision = batteries.decided(floored, method, known)
        place = floored.bank.names.index(name)
        batteries.require_floor(decision, place=place, name=name, least=least)
        assert "safety floor" in decision.reason


@pytest.mark.parametrize("method", batteries.EXPERT_METHODS)
@pytest.mark.parametrize("name", ["kind", "short"])
def test_everything_on_one_expert_is_that_expert(library: Library, method: str, name: str) -> None:
    batteries.require_own_expert(library, method, name=name)


@pytest.mark.parametrize("method", batteries.UNTRAINED_METHODS)
def test_without_experts_no_expert_takes_part(library: Library, method: str) -> None:
    decision = batteries.decided(library, method)
    assert not any(decision.coefficients.values())
    assert not any(any(row.coefficients) for row in decision.plan.rows)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_experts_is_no_part_of_an_answer(
    library: Library, permuted: Library, method: str
) -> None:
    batteries.require_same_after_permuting(library, permuted, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_answer_alone_and_in_a_batch(
    library: Library, method: str
) -> None:
    batteries.require_same_seed_same_answer(library, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_streamed_answer_is_the_whole_one(library: Library, method: str) -> None:
    batteries.require_streamed_equals_whole(library, method)
