"""Experts from verdicts: the theorem, the kernel form against the primal, and a small run."""

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from palate.library.library import Library
from palate.training.spectral import HeadStates
from research.command_line import program
from research.soup import verdict_experts
from research.soup.verdict_experts import (
    Answers,
    as_markdown,
    compared,
    correlation,
    draw_pairs,
    expert_tilts,
    kernel_bradley_terry,
    learned_tilt,
    read_answers,
    sketched_psi,
)


def test_a_soup_of_closed_form_experts_is_the_expert_of_the_blended_reward(generator):
    psi, rewards = generator.normal(size=(40, 12)), generator.normal(size=(40, 3))
    fitted = np.arange(40) < 25
    kernel, wanted = psi @ psi.T, np.array([0.7, -0.4, 0.9])
    soup = expert_tilts(kernel, rewards, fitted=fitted) @ wanted
    bespoke = expert_tilts(kernel, (rewards @ wanted)[:, None], fitted=fitted)[:, 0]
    assert soup == pytest.approx(bespoke, abs=1e-10)
    # a second way, in the primal: the change of the unembedding itself
    own = psi[fitted]
    change = np.linalg.solve(
        own.T @ own + verdict_experts.RIDGE * np.eye(12), own.T @ (rewards @ wanted)[fitted]
    )
    assert psi @ change == pytest.approx(bespoke, abs=1e-10)


def test_kernel_bradley_terry_is_ridge_logistic_regression(generator):
    features = generator.normal(size=(30, 5))
    labels = generator.choice([0.0, 1.0], size=30)
    alpha = kernel_bradley_terry(2.0 * features @ features.T, labels)

    def loss(theta):
        margins = features @ theta
        misses = labels * np.logaddexp(0, -margins) + (1 - labels) * np.logaddexp(0, margins)
        return misses.sum() + theta @ theta / 4.0

    primal = minimize(loss, np.zeros(5), tol=1e-12).x
    assert 2.0 * features.T @ alpha == pytest.approx(primal, abs=1e-4)


def test_psi_is_that_of_the_case(shared_folder):
    case = json.loads((shared_folder / "methods/cases/beyond.json").read_text())
    case = case["closed_form_head"]
    hidden = torch.tensor(np.array(case["hidden"]))
    n_answers, n_tokens, width = hidden.shape
    flat, head = hidden.reshape(-1, width), torch.tensor(case["head"], dtype=torch.float64)
    states = HeadStates(
        flat,
        torch.tensor(case["answers"]).reshape(-1),
        torch.arange(len(head)).repeat(n_answers * n_tokens, 1),
        (flat @ head.T).softmax(dim=1),
        torch.arange(n_answers).repeat_interleave(n_tokens),
    )
    psi = sketched_psi(states, n_answers=n_answers, seed=0)
    assert psi[0].reshape(len(head), width) == pytest.approx(
        np.array(case["psi_first_answer"]), abs=1e-5
    )


def test_sketched_inner_products_are_near_the_exact_ones(generator, monkeypatch):
    states = HeadStates(
        torch.tensor(generator.normal(size=(60, 40))),
        torch.tensor(generator.integers(90, size=60)),
        torch.arange(90).repeat(60, 1),
        torch.tensor(generator.dirichlet(np.ones(90), size=60)),
        torch.arange(12).repeat_interleave(5),
    )
    exact = sketched_psi(states, n_answers=12, seed=0)
    monkeypatch.setattr(verdict_experts, "N_SKETCH", (80, 30))
    sketched = [sketched_psi(states, n_answers=12, seed=seed) for seed in range(30)]
    mean = np.mean([one @ one.T for one in sketched], axis=0)
    wanted = exact @ exact.T
    assert np.linalg.norm(mean - wanted) < 0.1 * np.linalg.norm(wanted)
    assert sketched[0].shape == (12, 80 * 30)


def test_pairs_are_of_one_prompt_of_the_part(generator):
    prompts = np.repeat(np.arange(6), 3)
    pairs = draw_pairs(prompts, prompts % 3 == 1, n=50, generator=generator)
    assert np.all(prompts[pairs[:, 0]] == prompts[pairs[:, 1]])
    assert np.all(pairs[:, 0] != pairs[:, 1])
    assert set(prompts[pairs].ravel()) == {1, 4}


def test_a_tilt_is_learned_from_verdicts_that_follow_it(generator):
    psi = generator.normal(size=(60, 4))
    reward = psi @ np.array([1.0, -1.0, 0.5, 0.0])
    pairs = generator.integers(60, size=(300, 2))
    labels = (reward[pairs[:, 0]] > reward[pairs[:, 1]]).astype(float)
    assert correlation(learned_tilt(psi @ psi.T, pairs, labels), reward) > 0.98
    assert correlation(np.zeros(3), np.ones(3)) == 0.0


def test_where_experts_hold_what_users_want_few_verdicts_do_by_coefficients(generator, monkeypatch):
    monkeypatch.setattr(verdict_experts, "N_USERS", 4)
    monkeypatch.setattr(verdict_experts, "N_VERDICTS", (10, 100))
    psi = generator.normal(size=(300, 80))
    answers = Answers(psi, psi @ generator.normal(size=(80, 2)), np.repeat(np.arange(75), 4))
    facts = compared(answers, seed=0)
    worth = {way: row["10"]["mean"] for way, row in facts["correlation"].items()}
    assert worth["coefficients"] > worth["psi"] + 0.2
    assert worth["stated"] >= worth["coefficients"]
    assert facts["correlation"]["psi"]["100"]["mean"] > worth["psi"] + 0.1


def test_the_command_runs_on_a_tiny_library(tiny_soup_library, tmp_path, monkeypatch):
    monkeypatch.setattr(verdict_experts, "N_USERS", 2)
    monkeypatch.setattr(verdict_experts, "N_VERDICTS", (5, 10))
    out = tmp_path / "report"
    options = ["--n-prompts", "1", "--out", str(out), "--json"]
    done = CliRunner().invoke(program(verdict_experts.main), [str(tiny_soup_library), *options])
    assert done.exit_code == 0, done.output
    facts = json.loads(out.with_suffix(".json").read_text())
    assert set(facts["correlation"]) == set(verdict_experts.WAYS)
    assert out.with_suffix(".md").read_text() == as_markdown(facts)


def test_too_few_prompts_are_refused(tiny_soup_library):
    with pytest.raises(InvalidInputError, match="but 999 are wanted; lower --n-prompts"):
        read_answers(Library.load(tiny_soup_library), n_prompts=999, n_answers=4, seed=0)
