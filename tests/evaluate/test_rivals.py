"""Rivals decide by the same door, and are what their papers say."""

import shutil

import numpy as np
import pytest

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row
from palate.core.protocols import SamplingParams
from palate.evaluate.context import Context, Task
from palate.evaluate.judges import FunctionJudge
from palate.evaluate.rivals import (
    RIVALS,
    OwnExpert,
    personalised_library,
)
from palate.evaluate.suite import UserSettings
from palate.library.generate import generate_all
from palate.library.library import Library
from tiny import OPTIONS

USERS = (
    UserSettings(name="ana", preference={"kind": 0.5, "plain": 0.5}),
    UserSettings(name="bo", preference={"short": 1.0}),
)
ANA = Known(preference=USERS[0].preference)


@pytest.fixture(scope="module")
def library(tiny_library):
    return Library.load(tiny_library)


@pytest.fixture(scope="module")
def alike(tiny_library, tmp_path_factory):
    """A copy of the library whose experts have one rank and scale, as factor means need."""
    from fakes import save_random_adapter
    from palate.library.folder import LibraryFolder

    folder = tmp_path_factory.mktemp("alike") / "library"
    shutil.copytree(tiny_library, folder)
    files = LibraryFolder.open(folder)
    for place, record in enumerate(files.manifest.experts):
        name = record.anchor.name
        source = save_random_adapter(
            tiny_library.parent / "base", folder.parent / name, seed=place, **OPTIONS["kind"]
        )
        files = files.with_expert(
            record,
            lambda target, source=source: [
                shutil.copy(source / one, target / one)
                for one in ("adapter_config.json", "adapter_model.safetensors")
            ],
        )
    return Library.load(folder)


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


def test_the_factor_mean_of_one_expert_is_that_expert(alike):
    own = personalised_library(alike, USERS)
    bo = Known(preference=USERS[1].preference)
    merged = own.decide("a b", bo, method=OwnExpert("personalised-soup"))
    expert = alike.decide("a b", bo, method="soup")  # the library has no strength of its own
    sampling = SamplingParams(max_tokens=6)
    first = generate_all(own, [merged], sampling=sampling, seeds=[3])[0].completion
    second = generate_all(alike, [expert], sampling=sampling, seeds=[3])[0].completion
    assert first.tokens == second.tokens
    np.testing.assert_allclose(first.log_probs, second.log_probs, atol=1e-5)


def test_every_user_has_an_adapter_of_their_own_and_nobody_else_has(alike):
    own = personalised_library(alike, USERS)
    places = [
        own.decide("hey", Known(preference=user.preference), method=OwnExpert("bespoke"))
        .plan.rows[0]
        .coefficients
        for user in USERS
    ]
    assert places == [(1, 0), (0, 1)]
    with pytest.raises(InvalidInputError, match="no expert for the preference"):
        own.decide("hey", Known(preference={"plain": 1.0}), method=OwnExpert("bespoke"))


def test_derived_libraries_change_nothing_of_the_library(alike):
    before = alike.decide("hey", ANA, method="soup")
    personalised_library(alike, USERS)
    assert alike.decide("hey", ANA, method="soup") == before
    assert alike.bank.n_experts == 3


def test_an_own_method_goes_before_a_rival_of_its_name(library):
    class Mine:
        name = "mod"

        def decide(self, library, messages, known):
            return library.methods["base"].decide(library, messages, known)

    task = Task(USERS, ("hey",), 0, "nobody")
    found = Context(task, library, FunctionJudge(len, 3), own={"mod": Mine()}).entrant("mod")
    assert found.decide(USERS[0], "hey").method == "base"
    assert found.n_bytes(USERS[0]) == 8  # two numbers
