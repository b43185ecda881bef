"""Broken, hostile and changed files of a base: one sentence each, and nothing of them runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fakes import save_random_adapter
from palate.core.errors import FormatError, InvalidInputError, PalateError
from palate.library.opening import base_record
from palate.models import template
from palate.models.adapter import load_adapter
from palate.models.chat import SYSTEM_VARIABLE, encode_prompt, format_messages
from palate.models.load import Base, load_base

STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}<{{ m.role }}>{{ m.content }}"
    "{% endfor %}<assistant>"
)
ENDLESS = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]


@pytest.fixture
def copy(base_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base_folder, tmp_path / "copy")


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def _pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (folder / "model.safetensors").write_text(text)


def _vocabulary(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))


def _template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}")


def _endless(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(ENDLESS)


def _pickle(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    (folder / "own.py").write_text("raise SystemExit('it ran')")


def _deep(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


BROKEN = [_cut, _pointer, _vocabulary, _template, _endless, _pickle, _code, _deep]


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_base_is_one_sentence(damage, copy: Path, monkeypatch) -> None:
    monkeypatch.setattr(template, "MAX_SECONDS", 0.3)
    damage(copy)
    with pytest.raises(PalateError) as caught:
        load_base(copy)
    assert isinstance(caught.value, FormatError)
    assert str(copy) in str(caught.value)


def test_weights_are_in_memory_when_their_file_changes(copy: Path) -> None:
    loaded = load_base(copy)
    maps = Path("/proc/self/maps")
    if maps.is_file():
        assert str(copy) not in maps.read_text()
    with (copy / "model.safetensors").open("r+b") as file:
        file.truncate(0)
    assert bool(torch.isfinite(loaded.model(torch.tensor([[1, 5]])).logits).all())


def test_a_template_refuses_with_its_own_sentence(copy: Path, monkeypatch) -> None:
    (copy / "chat_template.jinja").write_text(STRICT)
    base = load_base(copy)
    with pytest.raises(InvalidInputError, match="System role not supported"):
        format_messages(base, ASKED)
    monkeypatch.setenv(SYSTEM_VARIABLE, "user")
    assert format_messages(base, ASKED) == "<user>Be kind.\n\nWhy?<assistant>"


def test_an_end_token_that_a_tokenizer_appends_is_taken_off(base: Base) -> None:
    class Ending:
        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
            ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [*ids, 2] if add_special_tokens else ids}

        def __getattr__(self, name: str):
            return getattr(base.tokenizer, name)

    assert encode_prompt(replace(base, tokenizer=Ending()), "Why") == encode_prompt(base, "Why")


def test_another_template_or_end_token_is_another_base(copy: Path, base: Base) -> None:
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_base(copy).text_fingerprint != base.text_fingerprint
    (copy / "chat_template.jinja").unlink()
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [2, 9]}))
    changed = load_base(copy)
    assert changed.fingerprint == base.fingerprint
    assert changed.text_fingerprint != base.text_fingerprint
    assert base_record("x", base).text_fingerprint == base.text_fingerprint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "relative to a base"),
        ({"init_lora_weights": "olora"}, "relative to a base"),
        ({"alpha_pattern": {"(a+)+$": 4}}, "could be searched for ever"),
        ({"lora_alpha": "8"}, "lora_alpha 8"),
        ({"peft_type": "VERA"}, "not 'LORA'"),
    ],
)
def test_hostile_adapters_are_refused(changes, words: str, base_folder: Path, tmp_path: Path):
    folder = save_random_adapter(base_folder, tmp_path / "adapter", seed=0)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FormatError, match=words):
        load_adapter(folder)


def test_a_torn_adapter_is_refused(base_folder: Path, tmp_path: Path) -> None:
    folder = save_random_adapter(base_folder, tmp_path / "adapter", seed=0)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(FormatError, match="cannot be read"):
        load_adapter(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(InvalidInputError, match="not valid JSON"):
        load_adapter(folder)
