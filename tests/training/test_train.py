"""Training: determinism, the reference at the start, and that rewards rise."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from trl.trainer.dpo_trainer import DPOTrainer

from fakes import save_tiny_llama
from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.types import PreferencePair
from palate.engine.bank import AdapterBank
from palate.models.chat import encode_prompt
from palate.models.load import load_base
from palate.training.anchors import objective_anchors
from palate.training.grpo import prompt_to_tokenize
from palate.training.job import ExpertJob, Tracking, TrainingData, TrainSettings
from palate.training.pair_trainer import PairTrainer, completion_log_probs
from palate.training.pairs import encode_human_pairs, reference_log_probs, sequence_log_probs
from palate.training.placement import AdapterSettings
from palate.training.save import fill_expert_folder
from palate.training.train import (
    deterministic,
    require_trl,
    rollout_data,
    tilt_of,
    train_expert,
)

NAMES = ("letters", "short")
TEMPLATE = "<s>{% for m in messages %}[{{ m['content'] }}]{% endfor %}"


@pytest.fixture(scope="module")
def data(tiny_base, tiny_rollouts, tiny_job, letter_rewards):
    made = rollout_data(tiny_base, tiny_rollouts)
    return replace(made, prompts=tiny_job.prompts, reward=letter_rewards)


def job(method="rebel", *, modules="all-linear", max_steps=3, **settings):
    training = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "num_generations": 4,
        "max_completion_length": 8,
    }
    return ExpertJob(
        anchor=objective_anchors(NAMES)[0],
        adapter=AdapterSettings(r=4, target_modules=modules, n_top_blocks=1),
        training=TrainSettings(method=method, max_steps=max_steps, **(training | settings)),
        seed=5,
    )


def test_the_reference_is_what_the_engine_said_when_it_sampled(tiny_base, data):
    sampled = np.array([row.log_prob for row in data.rollouts])
    assert np.allclose(data.reference, sampled, atol=1e-4)


def test_completion_log_probs_equal_transformers_own_loss(tiny_base, data):
    prompt, answer = data.sequences.prompts[0], data.sequences.answers[0]
    ids = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[-100] * len(prompt) + list(answer)])
    expected = -tiny_base.model(input_ids=ids, labels=labels).loss.item() * len(answer)
    padded = torch.nn.functional.pad(ids, (0, 3))
    mask = torch.tensor([[0] * len(prompt) + [1] * len(answer) + [0] * 3])
    found = completion_log_probs(
        tiny_base.model,
        input_ids=padded,
        attention_mask=torch.tensor([[1] * ids.shape[1] + [0] * 3]),
        completion_mask=mask,
    )
    assert found.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("method", "modules"),
    [
        ("rebel", "all-linear"),
        ("dpo", "all-linear"),
        ("dpo", "lm_head"),
        ("rebel", "top_no_kv"),
        ("grpo", "all-linear"),
    ],
)
def test_equal_seeds_give_equal_bytes_and_the_base_stays_as_it_was(
    tiny_base, data, tmp_path, method, modules
):
    before = {name: value.clone() for name, value in tiny_base.model.state_dict().items()}
    state = torch.random.get_rng_state()
    for name in "ab":
        torch.manual_seed(hash(name) % 1000)  # what else happens in the process does not matter
        model = train_expert(tiny_base, job(method, modules=modules), data)
        (tmp_path / name).mkdir()
        fill_expert_folder(tmp_path / name, model=model, base_path="base", card="card")
    files = ("adapter_model.safetensors", "adapter_config.json")
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert any(
        bool(value.abs().max() > 1e-4)
        for name, value in load_file(tmp_path / "a" / files[0]).items()
        if "lora_B" in name
    )
    torch.random.set_rng_state(state)
    assert all(
        torch.equal(value, before[name]) for name, value in tiny_base.model.state_dict().items()
    )
    assert not any(hasattr(module, "lora_A") for module in tiny_base.model.modules())
    AdapterBank.load(tiny_base, {"a": tmp_path / "a"}).close()


def first_loss(monkeypatch, tiny_base, data, settings):
    """The loss of the first batch, before any step."""
    seen = []

    class Watched(PairTrainer):
        def _compute_loss(self, model, inputs, return_outputs):
            loss = super()._compute_loss(model, inputs, return_outputs)
            seen.append((loss.item(), inputs))
            return loss

    monkeypatch.setattr("palate.training.train.PairTrainer", Watched)
    train_expert(tiny_base, settings, data)
    return seen[0]


@pytest.mark.parametrize("modules", ["all-linear", "lm_head"])
def test_dpo_starts_at_log_two(monkeypatch, tiny_base, data, modules):
    loss, _ = first_loss(monkeypatch, tiny_base, data, job("dpo", modules=modules, max_steps=1))
    assert loss == pytest.approx(math.log(2), abs=1e-4)


def test_rebel_starts_at_the_mean_squared_reward_gap(monkeypatch, tiny_base, data):
    loss, inputs = first_loss(monkeypatch, tiny_base, data, job("rebel", max_steps=1))
    assert loss == pytest.approx(inputs["reward_gaps"].square().mean().item(), abs=1e-4)


def test_rebel_with_tied_rewards_starts_at_zero(monkeypatch, tiny_base, data):
    tied = [replace(row, rewards=(0.5, 0.5)) for row in data.rollouts]
    loss, _ = first_loss(
        monkeypatch, tiny_base, replace(data, rollouts=tied), job("rebel", max_steps=1)
    )
    assert loss == pytest.approx(0.0, abs=1e-8)


def test_dpo_equals_trls_own_loss_on_the_same_batch(monkeypatch, tiny_base, data):
    """Also away from the start, where the log-ratios differ from zero."""
    both = []

    class Compared(PairTrainer):
        def _compute_loss(self, model, inputs, return_outputs):
            ours = super()._compute_loss(model, inputs, return_outputs)
            with torch.no_grad():
                theirs = DPOTrainer._compute_loss(self, model, dict(inputs), return_outputs=False)
            both.append((ours.item(), theirs.item()))
            return ours

    monkeypatch.setattr("palate.training.train.PairTrainer", Compared)
    train_expert(tiny_base, job("dpo", max_steps=4), data)
    assert len(both) == 4
    assert both[-1][0] != pytest.approx(math.log(2), abs=1e-3)
    for ours, theirs in both:
        assert ours == pytest.approx(theirs, abs=1e-5)


def within_prompts(values, rows):
    """Differences from the mean over the answers to the same prompt."""
    prompts = np.array([row.prompt for row in rows])
    means = {prompt: values[prompts == prompt].mean() for prompt in prompts}
    return values - np.array([means[prompt] for prompt in prompts])


def test_rebel_makes_the_tilt_the_reward(tiny_base, data):
    """The optimum is `pi_0 exp(r / beta)`: within a prompt `beta log pi/pi_0` is the reward."""
    settings = job(max_steps=40, per_device_train_batch_size=16, learning_rate=1e-3)
    model = train_expert(tiny_base, settings, data)
    tilt = tilt_of(model, data.sequences, data.reference, beta=settings.training.beta)
    reward = within_prompts(np.array([row.rewards[0] for row in data.rollouts]), data.rollouts)
    tilt = within_prompts(tilt, data.rollouts)
    assert np.corrcoef(tilt, reward)[0, 1] > 0.98
    assert (tilt @ reward) / (reward @ reward) == pytest.approx(1.0, abs=0.1)


def test_dpo_ranks_answers_as_the_reward_does(tiny_base, data):
    """Labels are drawn, so the ranking is noisy."""
    settings = job("dpo", max_steps=40, per_device_train_batch_size=16, label_gain=50.0, beta=0.02)
    model = train_expert(tiny_base, settings, data)
    tilt = tilt_of(model, data.sequences, data.reference, beta=settings.training.beta)
    reward = np.array([row.rewards[0] for row in data.rollouts])
    found = np.corrcoef(within_prompts(tilt, data.rollouts), within_prompts(reward, data.rollouts))
    assert found[0, 1] > 0.5


def test_human_pairs_train_an_expert_that_prefers_the_chosen(tiny_base):
    pairs = [PreferencePair("say", f"yes {i}", f"no {i}") for i in range(8)]
    settings = job("dpo_human", max_steps=30, per_device_train_batch_size=8)
    model = train_expert(tiny_base, settings, TrainingData(human_pairs={"letters": pairs}))
    sequences, found = encode_human_pairs(
        tiny_base, {"letters": pairs}, settings.anchor, n_pairs=8, max_tokens=64, seed=0
    )
    before = sequence_log_probs(tiny_base.model, sequences)
    tilt = tilt_of(model, sequences, before, beta=1.0)
    assert tilt.shape == (16,)
    assert np.all(tilt[found.first] > tilt[found.second])


def test_trl_reads_the_tokens_that_the_base_is_given(tmp_path):
    base = load_base(save_tiny_llama(tmp_path, chat_template=TEMPLATE))
    tokenizer: Any = base.tokenizer
    start = tokenizer.bos_token_id
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    assert tokenizer("<s>Why?")["input_ids"][:2] == [start, start]  # what TRL would train on
    found = prompt_to_tokenize(base, "Why?")
    assert tokenizer(found)["input_ids"] == encode_prompt(base, "<s>[Why?]")
    assert tokenizer(found)["input_ids"].count(start) == 1
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    assert prompt_to_tokenize(base, "Why?") == "<s>[Why?]"  # nothing is added here


def test_methods_say_what_they_lack(tiny_base, data):
    with pytest.raises(InvalidInputError, match="needs prompts and rewards"):
        train_expert(tiny_base, job("grpo"), replace(data, prompts=(), reward=None))
    with pytest.raises(InvalidInputError, match="unembedding"):
        train_expert(tiny_base, job("grpo", modules="lm_head"), data)
    with pytest.raises(InvalidInputError, match="no multiple of num_generations=3"):
        train_expert(tiny_base, job("grpo", num_generations=3), data)
    with pytest.raises(InvalidInputError, match="no preference pairs"):
        train_expert(tiny_base, job("dpo_human"), data)


def test_training_that_diverges_is_an_error(tiny_base, data):
    with pytest.raises(InvalidInputError, match=r"diverged.*learning_rate"):
        train_expert(tiny_base, job("rebel", max_steps=8, learning_rate=1e30), data)


def test_an_expert_of_the_bank_answers_as_the_trained_model(tiny_base, data, tmp_path):
    """What peft trained is what the engine serves."""
    model = train_expert(tiny_base, job("rebel", max_steps=5), data)
    (tmp_path / "x").mkdir()
    fill_expert_folder(tmp_path / "x", model=model, base_path="base", card="card")
    bank = AdapterBank.load(tiny_base, {"x": tmp_path / "x"})
    ids = torch.tensor([[1, 70, 71, 72]])
    with bank.applied([[1.0]]), torch.inference_mode():
        served = tiny_base.model(input_ids=ids).logits
    bank.close()
    with torch.inference_mode():
        trained = model(input_ids=ids).logits
    assert torch.allclose(served, trained, atol=1e-5)


@pytest.mark.parametrize("found", ["0.29.1", "2.0.0"])
def test_another_trl_is_refused_with_the_version_to_install(monkeypatch, found):
    monkeypatch.setattr("palate.training.train.trl_version", found)
    with pytest.raises(MissingExtraError, match=rf"{found}.*pip install 'trl==1\.16\.0'"):
        require_trl()


def test_a_trl_without_the_replaced_methods_is_refused(monkeypatch):
    assert require_trl().startswith("1.")
    monkeypatch.delattr(DPOTrainer, "_precompute_ref_logps")
    with pytest.raises(MissingExtraError):
        require_trl()


def test_determinism_ends_with_the_block():
    before = torch.get_num_threads(), torch.random.get_rng_state()
    with deterministic(n_threads=1):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        torch.manual_seed(7)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.parametrize("modules", ["all-linear", "lm_head"])
def test_training_goes_on_from_a_checkpoint_to_the_same_bytes(tiny_base, data, tmp_path, modules):
    class KilledError(Exception):
        pass

    def kill(done, _of_all):
        if done == 5:
            raise KilledError

    whole_job = job(max_steps=6, save_steps=2, modules=modules)
    whole = train_expert(tiny_base, whole_job, data)
    tracking = Tracking("none", tmp_path / "logs")
    with pytest.raises(KilledError):
        train_expert(tiny_base, whole_job, data, tracking=tracking, on_step=kill)
    (tmp_path / "logs/checkpoint-6").mkdir()  # begun, and killed before its state was written
    seen = []
    resumed = train_expert(
        tiny_base, whole_job, data, tracking=tracking, on_step=lambda *at: seen.append(at)
    )
    assert seen == [(5, 6), (6, 6)]
    parameters = dict(resumed.named_parameters())
    for name, value in whole.named_parameters():
        assert torch.equal(value, parameters[name]), name


def test_reference_log_probs_are_stored_and_go_on_after_a_cut(tiny_base, data, tmp_path):
    first = reference_log_probs(tiny_base, data.sequences, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert np.array_equal(reference_log_probs(tiny_base, data.sequences, folder=tmp_path), first)
    assert path.read_bytes() == content
    assert np.array_equal(data.reference, first)
