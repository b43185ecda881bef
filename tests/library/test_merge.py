"""A merged adapter, loaded by peft itself, is the soup."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.library.library import Library
from palate.library.merge import merge_soup

TOKENS = torch.tensor([[5, 20, 30, 40, 11, 9]])


@pytest.mark.parametrize(
    "named",
    [{"kind": 0.7, "short": -0.2}, {"kind": 1.0}, {"kind": -1.5, "short": 0.4, "plain": 2.0}],
)
def test_peft_computes_the_banks_logits_from_the_merged_adapter(
    tiny_library: Path, tmp_path: Path, named: dict[str, float]
) -> None:
    merged = merge_soup(tiny_library, named, out=tmp_path / "merged")
    opened = Library.load(tiny_library)
    coefficients = [named.get(name, 0.0) for name in opened.bank.names]
    with torch.no_grad(), opened.bank.applied([coefficients]):
        expected = opened.base.model(TOKENS).logits
    base = AutoModelForCausalLM.from_pretrained(opened.base.path)
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, merged.folder)(TOKENS).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert merged.relative_error == 0.0


def test_compression_to_full_rank_loses_nothing_and_to_less_says_what_it_costs(
    tiny_library: Path, tmp_path: Path
) -> None:
    named = {"kind": 1.0, "short": 1.0, "plain": 1.0}
    whole = merge_soup(tiny_library, named, out=tmp_path / "whole")
    same = merge_soup(tiny_library, named, out=tmp_path / "same", rank=whole.rank)
    small = merge_soup(tiny_library, named, out=tmp_path / "small", rank=1)
    assert same.relative_error < 1e-6
    assert small.rank == 1
    assert 0.0 < small.relative_error < 1.0


def test_bad_input_leaves_nothing_behind(tiny_library: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCoefficientsError, match="unknown expert 'rude'"):
        merge_soup(tiny_library, {"rude": 1.0}, out=tmp_path / "a")
    with pytest.raises(InvalidInputError, match="All coefficients are zero"):
        merge_soup(tiny_library, {}, out=tmp_path / "a")
    with pytest.raises(InvalidInputError, match="exists"):
        merge_soup(tiny_library, {"kind": 1.0}, out=tmp_path)
    with pytest.raises(InvalidInputError, match=r"no library\.json"):
        merge_soup(tmp_path, {"kind": 1.0}, out=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
