"""Rivals: what they refuse, and that a mean is a mean."""

from pathlib import Path

import numpy as np
import pytest

from palate import Known, Library
from palate.core.errors import InvalidInputError
from research.board.loras import OneAdapter, build_adapters
from research.board.rivals import RIVALS, portfolio_of
from research.board.settings import BoardSettings

REWARDED, MOD = RIVALS


@pytest.fixture(scope="module")
def library(board_library: Path) -> Library:
    return Library.load(board_library)


def test_means_have_the_stated_shares_at_strength_one(library: Library) -> None:
    known = Known(preference={"kind": 0.6, "plain": 0.4})
    decision = library.decide("a b", known, method=REWARDED)
    np.testing.assert_allclose(decision.plan.rows[0].coefficients, (0.6, 0.0, 0.4))
    assert len(library.decide("a b", known, method=MOD).plan.rows) == 2
    assert library.strength == 1.5  # which soups have and these have not


def test_a_portfolio_of_one_serves_everybody_alike_and_of_all_serves_their_own(
    library: Library,
) -> None:
    one, every = portfolio_of(library, 1), portfolio_of(library, 3)
    wanted = [Known(preference={name: 1.0}) for name in ("kind", "short", "plain")]
    assert len({library.decide("a", known, method=one).plan for known in wanted}) == 1
    members = [library.decide("a", known, method=every).coefficients for known in wanted]
    assert members == [{"kind": 1.0}, {"short": 1.0}, {"plain": 1.0}]


def test_what_a_rival_needs_is_asked_for(library: Library, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has 3 policies, fewer than 4"):
        portfolio_of(library, 4)
    for method in (REWARDED, portfolio_of(library, 2)):
        with pytest.raises(InvalidInputError, match="No preference is known"):
            library.decide("a", Known(), method=method)
    with pytest.raises(InvalidInputError, match="no adapter of 'me', only of kind, short, plain"):
        library.decide("a", Known(), method=OneAdapter("lora@10", "me"))
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 3
    with pytest.raises(InvalidInputError, match="The adapter of 'me' would have 3 pairs"):
        build_adapters(tmp_path, {"me": rows}, base="x", settings=BoardSettings(), seed=0)
    bare = Library.load(library.manifest.base.path)
    with pytest.raises(InvalidInputError, match="The library has no portfolio"):
        portfolio_of(bare, 1)
