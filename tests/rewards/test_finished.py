from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from fakes import byte_tokenizer
from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.functions import fit_function, function_from, load_function

PROMPTS = ["Why?", "Why?", "How?"]
ANSWERS = ["Because.", "Because it is so.", "Slowly"]


def save_tiny_classifier(folder: Path, *, seed: int = 0) -> Path:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_finished_model_scores_as_transformers_itself(tmp_path: Path) -> None:
    folder = save_tiny_classifier(tmp_path)
    score = function_from({"model": str(folder)})
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = byte_tokenizer()("<user>Why?<assistant>Because.", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = float(model(input_ids=torch.tensor([ids])).logits[0, 0])
    assert score(prompts=PROMPTS, completions=ANSWERS)[0] == pytest.approx(expected, abs=1e-6)


def test_a_stored_model_is_loaded_by_its_name_and_another_one_there_is_refused(
    tmp_path: Path,
) -> None:
    folder = save_tiny_classifier(tmp_path / "model")
    function = function_from({"model": str(folder)})
    reward = fit_function(function, objective="good", prompts=PROMPTS, answers=ANSWERS)
    reward.save(tmp_path)
    again = load_function(tmp_path, objective="good", given={})
    assert again.fingerprint == reward.fingerprint
    assert (again.score(PROMPTS, ANSWERS) == reward.score(PROMPTS, ANSWERS)).all()
    save_tiny_classifier(folder, seed=1)
    with pytest.raises(FormatError, match="was changed since"):
        load_function(tmp_path, objective="good", given={})


def test_a_language_model_and_nothing_are_no_finished_rewards(tmp_path: Path) -> None:
    folder = save_tiny_classifier(tmp_path / "model")
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(FormatError, match="LlamaForCausalLM"):
        function_from({"model": str(folder)})
    with pytest.raises(InvalidInputError, match="does not exist"):
        function_from({"model": str(tmp_path / "nowhere")})
