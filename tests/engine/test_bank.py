"""The bank against a dense sum of matrices, and against peft."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fakes import save_random_adapter, save_tiny_gpt2, save_tiny_llama
from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.engine.bank import AdapterBank
from palate.models.adapter import Factor, load_adapter, save_adapter
from palate.models.load import Base, load_base

TOKENS = torch.tensor([[5, 20, 30, 40, 11], [7, 8, 9, 10, 12]])


def dense_logits(
    base: Base,
    folders: dict[str, Path],
    coefficients: list[float],
    *,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Logits of a copy of the base whose matrices are `W + sum_k c_k s_k B_k A_k`."""
    model = load_base(base.path).model.to(dtype)
    if model.config.tie_word_embeddings:  # a head adapter must not change the embedding
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    modules = dict(model.named_modules())
    with torch.no_grad():
        for coefficient, folder in zip(coefficients, folders.values(), strict=True):
            for name, factor in load_adapter(folder).items():
                delta = coefficient * factor.scale * factor.up.to(dtype) @ factor.down.to(dtype)
                matrix = modules[name].weight
                matrix += delta if isinstance(modules[name], torch.nn.Linear) else delta.T
        return model(TOKENS).logits


@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 1.0, -0.7, 0.35, 2.0]), min_size=4, max_size=4),
        min_size=2,
        max_size=2,
    )
)
@settings(max_examples=20, deadline=None)
def test_rows_equal_the_dense_sum_for_any_coefficients_ranks_and_scales(
    base: Base, bank: AdapterBank, adapter_folders: dict[str, Path], rows: list[list[float]]
) -> None:
    with torch.no_grad(), bank.applied(rows):
        found = base.model(TOKENS).logits
    for place, row in enumerate(rows):
        expected = dense_logits(base, adapter_folders, row)[place]
        assert torch.allclose(found[place], expected, atol=1e-5), (
            (found[place] - expected).abs().max()
        )


@pytest.mark.parametrize("n_rows", [2, 5])  # of three experts: own factors, and all of them
@pytest.mark.parametrize("n_tokens", [1, 5])
def test_rows_of_one_expert_each_in_any_order_equal_the_dense_model(
    base: Base, base_folder: Path, tmp_path: Path, n_rows: int, n_tokens: int
) -> None:
    folders = {
        name: save_random_adapter(base_folder, tmp_path / name, rank=3, lora_alpha=alpha, seed=seed)
        for seed, (name, alpha) in enumerate({"a": 6, "b": 3, "c": 12}.items())
    }
    rows = [[0.0, 0, -0.5], [1.0, 0, 0], [0.0, 0, 0], [0.0, 0, 2.0], [0.0, 1.0, 0]][:n_rows]
    with torch.no_grad(), AdapterBank.load(base, folders).applied(rows):
        found = base.model(TOKENS[:1, :n_tokens].expand(len(rows), -1)).logits
    for place, row in enumerate(rows):
        expected = dense_logits(base, folders, row)[0, :n_tokens]
        assert torch.allclose(found[place], expected, atol=1e-5)


def test_a_model_under_a_bank_can_be_copied_as_training_does(base: Base, bank: AdapterBank) -> None:
    with torch.no_grad(), bank.applied([[0.0] * bank.n_experts]):
        assert torch.equal(deepcopy(base.model)(TOKENS[:1]).logits, base.model(TOKENS[:1]).logits)


def test_the_head_reads_last_tokens_in_one_piece(base: Base, bank: AdapterBank) -> None:
    """Of a slice torch would copy the head's matrix for every row."""
    seen: list[bool] = []
    head = base.model.get_output_embeddings()
    assert head is not None
    handle = head.register_forward_hook(lambda _m, args, _o: seen.append(args[0].is_contiguous()))
    with torch.no_grad(), bank.applied([[0.0] * 4] * 2):
        base.model(TOKENS, logits_to_keep=1)
    handle.remove()
    assert seen == [True]


def test_in_double_precision_the_sum_is_exact_to_ten_digits(
    base_folder: Path, adapter_folders: dict[str, Path]
) -> None:
    base = load_base(base_folder)
    base.model.double()
    bank = AdapterBank.load(base, adapter_folders)
    coefficients = [1.7, -0.35, 0.6, -2.0]
    with torch.no_grad(), bank.applied([coefficients] * 2):
        found = base.model(TOKENS).logits
    expected = dense_logits(base, adapter_folders, coefficients, dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("name", ["short", "wide", "head", "pattern"])
def test_coefficient_one_on_one_expert_is_that_expert_as_peft_runs_it(
    base: Base, bank: AdapterBank, base_folder: Path, adapter_folders: dict[str, Path], name: str
) -> None:
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base_folder), adapter_folders[name]
    )
    one_hot = [float(expert == name) for expert in bank.names]
    with torch.no_grad(), bank.applied([one_hot] * 2):
        found = base.model(TOKENS).logits
    with torch.no_grad():
        expected = model(TOKENS).logits
    assert torch.allclose(found, expected, atol=1e-5)
    with torch.no_grad():
        plain = base.model(TOKENS).logits
    assert (plain - expected).abs().max() > 0.01  # the adapter does something


def test_zero_coefficients_are_the_base_itself(base: Base, bank: AdapterBank) -> None:
    with torch.no_grad():
        plain = base.model(TOKENS).logits
        with bank.applied(torch.zeros(2, 4)):
            applied = base.model(TOKENS).logits
    assert torch.equal(plain, applied)


def test_permuting_experts_with_their_coefficients_changes_nothing(
    base: Base, bank: AdapterBank, adapter_folders: dict[str, Path]
) -> None:
    turned = AdapterBank.load(base, dict(reversed(adapter_folders.items())))
    with torch.no_grad():
        with bank.applied([[0.5, -1.0, 2.0, 0.25]] * 2):
            first = base.model(TOKENS).logits
        with turned.applied([[0.25, 2.0, -1.0, 0.5]] * 2):
            second = base.model(TOKENS).logits
    turned.close()
    assert torch.allclose(first, second, atol=1e-5)


def test_conv1d_layers_of_gpt2_are_adapted_too(tmp_path: Path) -> None:
    folder = save_tiny_gpt2(tmp_path / "gpt2")
    adapters = {
        name: save_random_adapter(
            folder, tmp_path / name, seed=seed, targets=["c_attn", "c_fc"], fan_in_fan_out=True
        )
        for seed, name in enumerate(["one", "two"])
    }
    base = load_base(folder)
    bank = AdapterBank.load(base, adapters)
    with torch.no_grad(), bank.applied([[0.6, -0.8]] * 2):
        found = base.model(TOKENS).logits
    bank.close()
    assert torch.allclose(found, dense_logits(base, adapters, [0.6, -0.8]), atol=1e-5)


def test_a_saved_adapter_comes_back_equal_and_peft_reads_its_patterns(
    base: Base, base_folder: Path, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    adapter = load_adapter(adapter_folders["pattern"])
    save_adapter(adapter, tmp_path / "copy", base_path=str(base_folder))
    again = load_adapter(tmp_path / "copy")
    assert again.keys() == adapter.keys()
    for name, factor in adapter.items():
        assert torch.equal(again[name].down, factor.down)
        assert again[name].scale == pytest.approx(factor.scale, rel=1e-12)
    models = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder)
        for folder in (adapter_folders["pattern"], tmp_path / "copy")
    ]
    with torch.no_grad():
        assert torch.allclose(models[0](TOKENS).logits, models[1](TOKENS).logits, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [[[1.0, 0.0]], [[float("nan"), 0.0, 0.0, 0.0]], [1.0, 0.0, 0.0, 0.0]]
)
def test_wrong_coefficients_are_refused(bank: AdapterBank, bad: list[list[float]]) -> None:
    with pytest.raises(InvalidCoefficientsError), bank.applied(bad):
        pass


def test_an_adapter_of_another_base_is_refused(
    tmp_path: Path, adapter_folders: dict[str, Path]
) -> None:
    other = load_base(save_tiny_gpt2(tmp_path / "other"))
    with pytest.raises(FormatError, match="does not have"):
        AdapterBank.load(other, adapter_folders)


def test_an_adapter_of_other_dimensions_is_refused(
    base: Base, adapter_folders: dict[str, Path]
) -> None:
    adapter = load_adapter(adapter_folders["short"])
    name, factor = next(iter(adapter.items()))
    wrong = {name: type(factor)(factor.down[:, :-1], factor.up, factor.scale)}
    with pytest.raises(FormatError, match="dimensions"):
        AdapterBank(base, {"wrong": wrong})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: Factor(one.down[:, :-1], one.up, one.scale), "dimensions"),
        (lambda one: Factor(one.down, one.up[:-1], one.scale), "dimensions"),
        (lambda one: Factor(one.down[:-1], one.up, one.scale), "dimensions"),
        (lambda one: Factor(one.down * torch.nan, one.up, one.scale), "not finite"),
        (lambda one: Factor(one.down, one.up / 0.0, one.scale), "not finite"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_file_and_layer(
    base: Base, adapter_folders: dict[str, Path], tmp_path: Path, change, words: str
) -> None:
    adapter = load_adapter(adapter_folders["short"])
    layer = next(iter(adapter))
    save_adapter({**adapter, layer: change(adapter[layer])}, tmp_path / "x", base_path="base")
    with pytest.raises(FormatError, match=words) as error:
        AdapterBank.load(base, {"short": adapter_folders["short"], "wrong": tmp_path / "x"})
    assert str(tmp_path / "x/adapter_model.safetensors") in str(error.value)
    assert repr(layer) in str(error.value)


def test_what_is_more_than_plain_lora_is_refused(base_folder: Path, tmp_path: Path) -> None:
    folder = save_random_adapter(base_folder, tmp_path / "dora", seed=0, use_dora=True)
    with pytest.raises(FormatError, match="use_dora"):
        load_adapter(folder)


def test_a_missing_adapter_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"adapter_config\.json"):
        load_adapter(tmp_path)


def test_an_untied_head_is_adapted_too(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "untied", is_tied=False)
    adapters = {"head": save_random_adapter(folder, tmp_path / "h", seed=1, targets=["lm_head"])}
    base = load_base(folder)
    bank = AdapterBank.load(base, adapters)
    with torch.no_grad(), bank.applied([[1.5]] * 2):
        found = base.model(TOKENS).logits
    bank.close()
    assert torch.allclose(found, dense_logits(base, adapters, [1.5]), atol=1e-5)
