"""Posterior coefficients against the exact case and whole-response mixtures on a random tree."""

from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.mixture.posterior import posterior_shares


def test_the_exact_case_is_met(mope_cases: dict[str, Any]) -> None:
    case = mope_cases["sequence_mixture"]
    shares = posterior_shares(np.array(case["prior"]), np.log(case["prefix_token_probs"]))
    assert np.allclose(shares, case["posterior"], atol=1e-10)
    following = shares @ np.array(mope_cases["expert_probs"])
    assert np.allclose(following, case["next_token"], atol=1e-10)


def test_token_by_token_they_give_the_mixture_of_whole_responses() -> None:
    generator = np.random.default_rng(3)
    prior = np.array([0.2, 0.5, 0.3])
    first = generator.dirichlet(np.ones(4), size=3)  # [experts, tokens]
    second = generator.dirichlet(np.ones(4), size=(3, 4))  # [experts, prefix, tokens]
    whole = np.einsum("k,ka,kab->ab", prior, first, second)
    for a in range(4):
        shares = posterior_shares(prior, np.log(first[:, [a]]))
        assert np.allclose((prior @ first)[a] * shares @ second[:, a], whole[a], atol=1e-12)


def test_before_any_token_they_are_the_prior() -> None:
    prior = np.array([0.7, 0.0, 0.3])
    assert np.allclose(posterior_shares(prior, np.zeros((3, 0))), prior, atol=1e-15)


def test_a_prefix_that_nobody_can_have_written_is_refused() -> None:
    impossible = np.array([[-np.inf], [0.0]])
    with pytest.raises(InvalidInputError, match="No expert"):
        posterior_shares(np.array([1.0, 0.0]), impossible)
