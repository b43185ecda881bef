"""Pooling: exact cases, closed-form gradients against autograd, and laws at random points."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from palate.core.errors import InvalidInputError
from palate.mixture.pooling import (
    Floor,
    log_linear_log_probs,
    log_softmax_over,
    shares_of,
    token_log_probs,
)

NAMES = [
    "all_active",
    "zero_head_uniform",
    "two_active",
    "one_active",
    "safety_floor",
    "floor_expert_not_requested",
]


def mixture(shares: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...n,...nv->...v", shares, probs)


def entropy(shares: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(shares).sum(dim=-1)


def read(case: dict[str, Any], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Any]:
    floor = Floor(case["floor_expert"], case["floor"]) if case["floor"] else None
    return torch.tensor(case["z"], dtype=dtype), torch.tensor(case["active"]).bool(), floor


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_exact_cases_are_met(
    mope_cases: dict[str, Any], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    case = next(c for c in mope_cases["cases"] if c["name"] == name)
    scores, active, floor = read(case, dtype)
    probs = torch.tensor(mope_cases["expert_probs"], dtype=dtype)
    at_token = probs[:, case["token"]]
    shares = shares_of(scores, active, floor=floor)
    pooled = mixture(shares, probs)
    found = {
        "alpha": shares,
        "mixture": pooled,
        "entropy_alpha": entropy(shares),
    }
    if floor is None:
        found["log_prob"] = token_log_probs(scores, at_token.log(), active)
    uniform = probs[active].mean(dim=0)
    found["kl_to_uniform_mixture"] = (pooled * (pooled / uniform).log()).sum()
    for key, value in found.items():
        assert np.allclose(value.numpy(), case[key], atol=tolerance, rtol=0), key


@pytest.mark.parametrize("name", NAMES)
def test_autograd_gives_responsibility_minus_share(mope_cases: dict[str, Any], name: str) -> None:
    case = next(c for c in mope_cases["cases"] if c["name"] == name)
    scores, active, floor = read(case, torch.float64)
    scores.requires_grad_()
    at_token = torch.tensor(mope_cases["expert_probs"], dtype=torch.float64)[:, case["token"]]
    if floor is None:
        log_prob = token_log_probs(scores, at_token.log(), active)
    else:
        log_prob = (shares_of(scores, active, floor=floor) * at_token).sum().log()
    log_prob.backward()
    assert log_prob.item() == pytest.approx(case["log_prob"], abs=1e-10)
    assert np.allclose(scores.grad, case["grad_log_prob_wrt_z"], atol=1e-10, rtol=0)
    assert torch.equal(scores.grad[~active], torch.zeros(int((~active).sum())).double())


def test_one_active_expert_is_that_expert_exactly() -> None:
    scores = torch.tensor([3.0, -2.0, 0.5])
    active = torch.tensor([False, True, False])
    probs = torch.softmax(torch.randn(3, 7, generator=torch.Generator().manual_seed(0)), dim=-1)
    shares = shares_of(scores, active)
    assert shares.tolist() == [0.0, 1.0, 0.0]
    assert torch.equal(mixture(shares, probs), probs[1])


def test_probabilities_of_inactive_experts_are_never_read() -> None:
    scores, active = torch.zeros(3, requires_grad=True), torch.tensor([True, False, True])
    log_probs = torch.tensor([-1.0, math.nan, -2.0])
    log_probs = torch.where(active, log_probs, -torch.inf)
    value = token_log_probs(scores, log_probs, active)
    value.backward()
    assert math.isclose(value.item(), math.log((math.exp(-1) + math.exp(-2)) / 2), abs_tol=1e-6)
    assert torch.isfinite(scores.grad).all()


def test_responsibilities_minus_shares_vanish_where_experts_agree() -> None:
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    at_token = torch.full((5,), 0.3, dtype=torch.float64)
    token_log_probs(scores, at_token.log(), torch.ones(5, dtype=torch.bool)).backward()
    assert torch.allclose(scores.grad, torch.zeros(5, dtype=torch.float64), atol=1e-15)


def test_kl_to_the_uniform_mixture_is_bounded_by_the_missing_entropy() -> None:
    generator = np.random.default_rng(7)
    n_points = 10_000
    shares = torch.tensor(generator.dirichlet(np.full(4, 0.3), size=n_points))
    probs = torch.tensor(generator.dirichlet(np.full(6, 0.5), size=(n_points, 4))).clamp(min=1e-300)
    pooled, uniform = mixture(shares, probs), probs.mean(dim=1)
    kl = (torch.special.xlogy(pooled, pooled) - torch.special.xlogy(pooled, uniform)).sum(dim=1)
    bound = math.log(4) - entropy(shares)
    assert bool((kl <= bound + 1e-12).all())
    assert float((kl / bound.clamp(min=1e-9)).max()) > 0.5  # the bound is not empty


def test_permuting_experts_permutes_shares_and_changes_no_mixture() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(5, generator=generator, dtype=torch.float64)
    probs = torch.softmax(torch.randn(5, 8, generator=generator, dtype=torch.float64), dim=-1)
    active = torch.tensor([True, True, False, True, True])
    order = torch.tensor([3, 0, 4, 2, 1])
    plain = shares_of(scores, active)
    moved = shares_of(scores[order], active[order])
    assert torch.allclose(plain[order], moved, atol=1e-15)
    assert torch.allclose(mixture(plain, probs), mixture(moved, probs[order]), atol=1e-14)


def test_duplicating_an_expert_leaves_the_reachable_mixtures_as_they_were() -> None:
    generator = torch.Generator().manual_seed(2)
    probs = torch.softmax(torch.randn(3, 8, generator=generator, dtype=torch.float64), dim=-1)
    doubled = torch.cat([probs, probs[:1]])
    scores = torch.tensor([0.4, -1.0, 0.2], dtype=torch.float64)
    split = torch.cat([scores, scores[:1]])
    split[0] += math.log(0.3)  # the two copies share what the one had
    split[3] += math.log(0.7)
    here = mixture(shares_of(scores, torch.ones(3).bool()), probs)
    there = mixture(shares_of(split, torch.ones(4).bool()), doubled)
    assert torch.allclose(here, there, atol=1e-14)


def test_drawing_the_expert_and_then_the_token_draws_from_the_mixture(
    mope_cases: dict[str, Any],
) -> None:
    generator = np.random.default_rng(11)
    probs = np.array(mope_cases["expert_probs"])
    case = mope_cases["cases"][0]
    experts = generator.choice(3, size=20_000, p=case["alpha"])
    tokens = np.array([generator.choice(6, p=probs[expert]) for expert in experts])
    expected = 20_000 * np.array(case["mixture"])
    assert chisquare(np.bincount(tokens, minlength=6), expected).pvalue > 0.001


def test_a_token_that_every_expert_forbids_keeps_gradients_finite() -> None:
    scores = torch.zeros(2, requires_grad=True)
    value = token_log_probs(scores, torch.full((2,), -torch.inf), torch.ones(2).bool())
    value.backward()
    assert value.item() == pytest.approx(-50.0)
    assert torch.isfinite(scores.grad).all()


def test_bad_input_is_refused_by_name() -> None:
    none = torch.zeros(2, dtype=torch.bool)
    with pytest.raises(InvalidInputError, match="No expert is active"):
        log_softmax_over(torch.zeros(2), none)
    with pytest.raises(InvalidInputError, match="not finite"):
        log_softmax_over(torch.tensor([0.0, math.nan]), ~none)
    with pytest.raises(InvalidInputError, match="strictly between"):
        Floor(0, 1.0)


def test_the_log_linear_pool_is_the_normalised_geometric_mean_with_the_known_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.softmax(torch.randn(3, 7, generator=generator, dtype=torch.float64), dim=-1)
    scores = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    shares = shares_of(scores, torch.ones(3, dtype=torch.bool))
    found = torch.stack(
        [log_linear_log_probs(shares, probs[:, v].log(), probs.log()) for v in range(7)]
    )
    geometric = torch.prod(probs ** shares.detach()[:, None], dim=0)
    assert torch.allclose(found.detach().exp(), geometric / geometric.sum(), atol=1e-12)
    found[2].backward()
    own, pooled = shares.detach(), found.detach().exp()
    logs = probs.log()
    centred = logs - (own[:, None] * logs).sum(dim=0)  # l_j - lbar, M7
    expected = own * (centred[:, 2] - (pooled * centred).sum(dim=1))
    assert scores.grad is not None
    assert torch.allclose(scores.grad, expected, atol=1e-12)
