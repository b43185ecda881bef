"""Experts in closed form: the exact case, linearity in the rewards, and transfer to the model."""

import json

import numpy as np
import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.training import spectral
from palate.training.pairs import encode_rollouts, sequence_log_probs
from palate.training.placement import AdapterSettings, lora_config
from palate.training.spectral import HeadStates, SpectralSolver, head_states, spectral_adapter


@pytest.fixture(scope="module")
def tiny_solver(tiny_base, tiny_rollouts):
    states = head_states(tiny_base, encode_rollouts(tiny_base, tiny_rollouts))
    rewards = np.array([row.rewards for row in tiny_rollouts])
    prompts = [row.prompt for row in tiny_rollouts]
    n_vocabulary = tiny_base.model.config.vocab_size
    return SpectralSolver(states, prompts, rewards, n_vocabulary=n_vocabulary, seed=0), rewards


def dense(expert):
    return expert.factor.up @ expert.factor.down * expert.factor.scale


def test_the_exact_case_is_met(shared_folder, monkeypatch):
    case = json.loads((shared_folder / "methods/cases/beyond.json").read_text())
    case = case["closed_form_head"]
    hidden = np.array(case["hidden"])  # [answers, tokens, hidden]
    head = torch.tensor(case["head"], dtype=torch.float64)
    n_answers, n_tokens, width = hidden.shape
    flat = torch.tensor(hidden.reshape(-1, width))
    states = HeadStates(
        flat,
        torch.tensor(case["answers"]).reshape(-1),
        torch.arange(len(head)).repeat(n_answers * n_tokens, 1),
        (flat @ head.T).softmax(dim=1),
        torch.arange(n_answers).repeat_interleave(n_tokens),
    )
    prompts = [str(place) for place in case["prompt_of"]]
    rewards = np.array(case["rewards"])
    groups = np.array(case["prompt_of"])
    unit = np.trace(spectral._kernel(states, groups, seed=0)) / n_answers
    monkeypatch.setattr(spectral, "RIDGES", (case["rho"] / unit,))
    monkeypatch.setattr(spectral, "N_FOLDS", 2)
    solver = SpectralSolver(states, prompts, rewards[:, None], n_vocabulary=len(head), seed=0)
    expert = solver.solve(rewards, beta=case["beta"], rank=width)
    assert dense(expert).numpy() == pytest.approx(np.array(case["delta_head"]), abs=1e-5)
    assert expert.energy == pytest.approx(1.0)


def test_a_soup_of_closed_form_experts_is_the_expert_of_the_blended_reward(tiny_solver):
    solver, rewards = tiny_solver
    rank = 32  # the tiny base's hidden size or more: nothing is cut
    first, second = (dense(solver.solve(rewards[:, k], beta=0.1, rank=rank)) for k in range(2))
    both = dense(solver.solve(rewards @ np.array([0.3, 0.7]), beta=0.1, rank=rank))
    assert torch.allclose(0.3 * first + 0.7 * second, both, atol=1e-5)


def test_the_first_order_tilt_is_the_change_of_log_probabilities(
    tiny_base, tiny_rollouts, monkeypatch
):
    """For a small step the model's own log-ratios are those that the ridge predicts."""
    monkeypatch.setattr(spectral, "N_LIKELY", 10**6)  # the random base is nearly uniform
    sequences = encode_rollouts(tiny_base, tiny_rollouts)
    states = head_states(tiny_base, sequences)
    rewards = np.array([row.rewards for row in tiny_rollouts])
    prompts = [row.prompt for row in tiny_rollouts]
    vocabulary = tiny_base.model.config.vocab_size
    solver = SpectralSolver(states, prompts, rewards, n_vocabulary=vocabulary, seed=0)
    expert = solver.solve(rewards[:, 1], beta=10.0, rank=32)
    psi = torch.stack(
        [
            spectral._change(states, np.eye(len(prompts))[k], n_vocabulary=vocabulary)
            for k in range(len(prompts))
        ]
    ).float()
    predicted = torch.einsum("avh,vh->a", psi, dense(expert)).numpy()
    before = sequence_log_probs(tiny_base.model, sequences)
    settings = AdapterSettings(r=32, target_modules="lm_head")
    model = spectral_adapter(tiny_base, expert, lora_config(tiny_base.model, settings))
    after = sequence_log_probs(model, sequences)
    wrong = np.linalg.norm(after - before - predicted)
    assert wrong < 0.05 * np.linalg.norm(predicted)


def test_too_few_prompts_are_refused(tiny_base, tiny_rollouts):
    rows = tiny_rollouts[:8]
    states = head_states(tiny_base, encode_rollouts(tiny_base, rows))
    with pytest.raises(InvalidInputError, match="needs 5 prompts with two answers each"):
        SpectralSolver(
            states, [row.prompt for row in rows], np.zeros((8, 1)), n_vocabulary=99, seed=0
        )
