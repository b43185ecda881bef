"""Training on scripted experts: what is known must be reached, resumed and reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_jsonl
from palate.core.protocols import SamplingParams
from palate.engine.bank import AdapterBank
from palate.mixture.answers import Answers, outcome
from palate.mixture.controller import new_controller
from palate.mixture.decode import ControlledDecoding
from palate.mixture.monitors import summarise
from palate.mixture.mope import fit
from palate.mixture.rollout import Task, sample
from palate.mixture.settings import FitSettings, LossSettings
from palate.mixture.wording import MixtureRequest
from palate.models.load import Base, load_base
from palate.models.trunk import TrunkSettings
from scripted import save_scripted, scripted_task, value_of_static

MAX_TOKENS = 24
BOTH = (0.5, 0.5)
SETTINGS = FitSettings(
    loss=LossSettings(eta=4.0),
    trunk=TrunkSettings(hidden=16, layers=1, heads=2, feed_forward=32),
    n_updates=25,
    n_pairs=48,
    n_epochs=4,
    batch_pairs=24,
    body_rate=5e-3,
    head_rate=2e-2,
    max_tokens=MAX_TOKENS,
    checkpoint_every=2,
)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, AdapterBank]:
    base_folder, adapters = save_scripted(tmp_path_factory.mktemp("scripted"))
    base = load_base(base_folder)
    return base, AdapterBank.load(base, adapters)


def task_for(scripted, controller) -> Task:
    base, bank = scripted
    return scripted_task(base, bank, ControlledDecoding(controller, base))


def new(scripted, settings: FitSettings = SETTINGS):
    base, bank = scripted
    return new_controller(
        settings.trunk,
        experts=bank.names,
        n_vocab=len(base.tokenizer),
        tokenizer_fingerprint=base.tokenizer_fingerprint,
        seed=settings.seed,
    )


def measured(task: Task, *, n_answers: int = 400) -> float:
    samples = sample(
        task,
        [MixtureRequest("Go", BOTH)] * n_answers,
        sampling=SamplingParams(max_tokens=MAX_TOKENS),
        seed=99,
    )
    return float(np.mean([one.reward for one in samples]))


def best_static() -> float:
    """The best of 41 constant shares, each from 4,000 simulated answers."""
    return max(
        value_of_static(share, max_tokens=MAX_TOKENS, n_answers=4000, seed=5)
        for share in np.linspace(0, 1, 41)
    )


@pytest.mark.parametrize("method", ["rebel", pytest.param("ppo", marks=pytest.mark.slow)])
def test_the_controller_learns_to_change_hands_and_beats_every_constant_share(
    scripted, tmp_path: Path, method: str
) -> None:
    settings = SETTINGS.model_copy(update={"loss": LossSettings(method=method, eta=4.0)})
    controller = new(scripted, settings)
    task = task_for(scripted, controller)
    start = measured(task)
    fit(controller, task, settings, folder=tmp_path)
    reached, static = measured(task), best_static()
    assert start == pytest.approx(
        value_of_static(0.5, max_tokens=MAX_TOKENS, n_answers=4000, seed=6), abs=0.06
    )
    assert reached > static + 0.1  # of about 0.02 standard error


def test_under_a_log_linear_pool_answers_are_as_likely_recomputed_as_drawn_and_it_learns(
    scripted, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"n_updates": 2, "n_pairs": 12, "pool": "log_linear"})
    controller = new(scripted, settings)
    task = task_for(scripted, controller)
    pooled = replace(task, wording=replace(task.wording, pool="log_linear"))
    with torch.no_grad():
        controller.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    before = controller.head.weight.detach().clone()
    curves = fit(controller, pooled, settings, folder=tmp_path)
    assert max(row["density_gap"] for row in curves) < 1e-3
    assert not torch.equal(before, controller.head.weight)
    with pytest.raises(InvalidInputError, match="equally many experts"):
        Answers.of(
            sample(
                pooled,
                [MixtureRequest("Go", BOTH), MixtureRequest("Go", (1.0, 0.0))],
                sampling=SamplingParams(max_tokens=4),
                seed=1,
            )
        )


REPLAYED = LossSettings(eta=4.0, price=0.25, is_replayed=True)


@pytest.mark.parametrize("loss", [SETTINGS.loss, REPLAYED])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    scripted, tmp_path: Path, loss: LossSettings
) -> None:
    short = SETTINGS.model_copy(
        update={"n_updates": 4, "n_pairs": 4, "batch_pairs": 2, "loss": loss}
    )
    whole = new(scripted)
    curves = fit(whole, task_for(scripted, whole), short, folder=tmp_path / "whole")

    class Interrupted(Exception):  # noqa: N818 - it is no error
        pass

    def stop(update: int, _row: object) -> None:
        if update == 3:
            raise Interrupted

    broken = new(scripted)
    with pytest.raises(Interrupted):
        fit(broken, task_for(scripted, broken), short, folder=tmp_path / "broken", on_update=stop)
    resumed = new(scripted)
    again = fit(resumed, task_for(scripted, resumed), short, folder=tmp_path / "broken")
    assert again == curves
    assert read_jsonl(tmp_path / "broken" / "curves.jsonl") == curves
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_frozen_trunk_keeps_its_parameters_while_the_heads_learn(
    scripted, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"n_updates": 2, "n_pairs": 4, "body_rate": 0.0})
    controller = new(scripted, settings)
    before = {name: value.clone() for name, value in controller.state_dict().items()}
    fit(controller, task_for(scripted, controller), settings, folder=tmp_path)
    for name, value in controller.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("head.")) or (
            name.startswith("value_head.")
        )


def test_old_answers_are_learned_from_again_towards_one_target(scripted, tmp_path: Path) -> None:
    strong = LossSettings(eta=32.0, price=1 / 32, is_replayed=True)
    settings = SETTINGS.model_copy(update={"n_updates": 8, "n_epochs": 2, "loss": strong})
    controller = new(scripted, settings)
    task = task_for(scripted, controller)
    start = measured(task)
    fit(controller, task, settings, folder=tmp_path)
    assert len(list((tmp_path / "answers").iterdir())) == 8
    assert measured(task) > start + 0.05


@pytest.mark.parametrize(
    "wrong", [{"price": 0.0}, {"price": 0.3}, {"method": "ppo", "price": 0.25}]
)
def test_replay_is_refused_where_old_answers_have_another_target(wrong) -> None:
    with pytest.raises(ValueError, match="is_replayed needs"):
        LossSettings(eta=4.0, is_replayed=True, **wrong)


def test_a_checkpoint_of_other_settings_is_refused(scripted, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"n_updates": 1, "n_pairs": 2, "batch_pairs": 1})
    controller = new(scripted)
    fit(controller, task_for(scripted, controller), short, folder=tmp_path)
    other = short.model_copy(update={"seed": 1})
    with pytest.raises(FormatError, match="other settings"):
        fit(controller, task_for(scripted, controller), other, folder=tmp_path)


def test_answers_are_as_likely_recomputed_as_they_were_drawn(scripted) -> None:
    controller = new(scripted)
    with torch.no_grad():
        controller.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    task = task_for(scripted, controller)
    samples = sample(
        task,
        [MixtureRequest("Go", BOTH), MixtureRequest("On", (0.3, 0.7))] * 6,
        sampling=SamplingParams(max_tokens=MAX_TOKENS),
        seed=1,
    )
    found = outcome(controller, Answers.of(samples)).log_probs.sum(dim=1)
    assert np.allclose(found.detach(), [one.log_prob for one in samples], atol=1e-3)


def test_the_curves_say_what_happened(scripted, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"n_updates": 1})
    controller = new(scripted)
    (row,) = fit(controller, task_for(scripted, controller), short, folder=tmp_path)
    assert row["n_answers"] == 96
    assert row["mean_entropy"] == pytest.approx(np.log(2))  # drawn before anything was learned
    assert row["adaptivity"] == pytest.approx(0.0, abs=1e-6)
    assert row["kl_to_uniform"] == pytest.approx(0.0, abs=1e-4)
    assert row["density_gap"] < 1e-3
    assert row["disagree_fraction"] > 0.9


def test_a_task_without_prompts_is_refused(scripted) -> None:
    task = task_for(scripted, new(scripted))
    with pytest.raises(InvalidInputError, match="0 prompts"):
        replace(task, prompts=())


def test_the_summary_counts_by_combination(scripted) -> None:
    controller = new(scripted)
    task = task_for(scripted, controller)
    samples = sample(
        task,
        [MixtureRequest("Go", (1.0, 0.0)), MixtureRequest("Go", BOTH)],
        sampling=SamplingParams(max_tokens=MAX_TOKENS),
        seed=4,
    )
    summary = summarise(samples)
    n_alone, n_both = (len(one.shares) for one in samples)
    expected = (n_alone * 1.0 + n_both * 0.5) / (n_alone + n_both)
    assert summary.mean_shares[0] == pytest.approx(expected)
    assert summary.mean_shares[1] == pytest.approx(0.5)
    assert summary.entropy_fraction == pytest.approx(1.0)
    wins = np.concatenate([samples[0].wins[:1], samples[1].wins])  # those that were wanted
    expected = np.mean((wins >= 0.02) & (wins <= 0.98))
    assert summary.unsaturated_fraction == pytest.approx(expected)


def test_the_uniform_mixture_is_a_new_controllers_token_for_token(scripted) -> None:
    controller = new(scripted)
    task = task_for(scripted, controller)
    requests = [MixtureRequest("Go", BOTH), MixtureRequest("On", (0.3, 0.7))] * 3
    sampling = SamplingParams(max_tokens=MAX_TOKENS)
    fresh = sample(task, requests, sampling=sampling, seed=1)
    with torch.no_grad():
        controller.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    uniform = sample(task, requests, sampling=sampling, seed=1, is_uniform=True)
    for one, other in zip(fresh, uniform, strict=True):
        assert one.completion.tokens == other.completion.tokens
        assert one.reward == other.reward
        assert np.allclose(one.shares, other.shares)
