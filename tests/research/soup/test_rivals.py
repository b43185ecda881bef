"""Rivals with a library of their own: one adapter per user, on the same base."""

import shutil

import numpy as np
import pytest

from evaluate.board import GAINS, rows
from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.protocols import SamplingParams
from palate.evaluate.cells import pair_up
from palate.evaluate.context import Context, Task
from palate.evaluate.judges import FunctionJudge
from palate.evaluate.suite import UserSettings
from palate.library.generate import generate_all
from palate.library.library import Library
from research.soup.rivals import OwnExpert, percent_of_bespoke, personalised_library
from tiny import OPTIONS

USERS = (
    UserSettings(name="ana", preference={"kind": 0.5, "plain": 0.5}),
    UserSettings(name="bo", preference={"short": 1.0}),
)
ANA = Known(preference=USERS[0].preference)


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


def test_bytes_of_a_user_hold_an_adapter_where_the_library_has_one_per_user(alike):
    own = personalised_library(alike, USERS)
    task, method = Task(USERS, ("hey",), 0, "nobody"), OwnExpert("personalised-soup")
    context = Context(
        task, alike, FunctionJudge(len, 3), own={method.name: method}, libraries={method.name: own}
    )
    plain = context.entrant(method.name).n_bytes(USERS[1])
    context = Context(
        task,
        alike,
        FunctionJudge(len, 3),
        own={method.name: method},
        libraries={method.name: own},
        per_user=(method.name,),
    )
    found = context.entrant(method.name)
    assert found.decide(USERS[1], "hey").coefficients == {"user-1": 1.0}
    assert found.n_bytes(USERS[1]) == plain + own.bank.n_bytes // 2


def test_the_share_of_bespoke_is_the_ratio_of_the_gains():
    shares = percent_of_bespoke(pair_up(rows(), methods=tuple(GAINS)))
    assert shares["soup"].gain.estimate == pytest.approx(0.5)  # 0.2 of 0.4
    assert shares["base"].gain.estimate == pytest.approx(0.0)
    assert shares["bespoke"].worst == pytest.approx(1.0)
    assert percent_of_bespoke(pair_up(rows(), methods=("base", "soup"))) == {}
