"""Types of models: answered exactly or refused in a sentence, and adapters where they can be."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from research.architectures import main, outcome_of
from research.command_line import program

EXACT = {
    "llama": "dense",
    "glm4_moe": "peft takes its dense layers for fused experts",
    "laguna": "peft does not load its shared experts again",
    "opt": "all tokens of a batch in one axis",
    "qwen2_moe": "so are those of its shared expert",
    "minicpm3": "one axis more in latent attention",
    "phimoe": "a router that is a linear layer by its class",
    "jetmoe": "a router that holds one",
    "falcon": "linear layers of a class of its own",
}
REFUSED = {
    "mamba": "layers of linear_attention",
    "llama4_text": "layers of chunked_attention",
    "bart": "off by",
    "bert": "off by",
    "rwkv": "off by",
    "xlnet": "off by",
    "openai-gpt": "the pass ends with",
}


@pytest.mark.parametrize("kind", EXACT, ids=str)
def test_a_type_is_answered_exactly_with_and_without_an_adapter(kind: str, tmp_path: Path) -> None:
    row = outcome_of(kind, tmp_path)
    assert (row.outcome, row.note[-15:]) == ("exact", "can be adapted.")


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_cannot_be_batched_is_refused(kind: str, tmp_path: Path) -> None:
    row = outcome_of(kind, tmp_path)
    assert row.outcome == "refused"
    assert REFUSED[kind] in row.note


def test_the_command_counts_the_types() -> None:
    arguments = ["--only", "gpt2", "--only", "rwkv", "--json"]
    result = CliRunner().invoke(program(main), arguments)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["counts"] == {"exact": 1, "refused": 1}
