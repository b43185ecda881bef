"""The controller: zero at the start, the same after saving, and refused when it does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fakes import save_tiny_llama
from palate.core.errors import FormatError, InvalidInputError
from palate.mixture.controller import PreferenceController, load_controller, new_controller
from palate.mixture.settings import FitSettings
from palate.models.load import Base
from palate.models.trunk import TrunkSettings


def read_something(controller: PreferenceController) -> torch.Tensor:
    ids = torch.arange(3, 15).view(2, 6)
    strengths = torch.eye(len(controller.experts))[:2]
    return controller(ids, torch.ones_like(ids), strengths)[0]


def test_a_new_controller_scores_every_expert_zero_everywhere(base: Base) -> None:
    fresh = new_controller(
        TrunkSettings(hidden=8, layers=1, heads=2, feed_forward=8),
        experts=("a", "b"),
        n_vocab=len(base.tokenizer),
        tokenizer_fingerprint="",
        seed=0,
    )
    assert torch.equal(read_something(fresh), torch.zeros(2, 6, 2))


def test_saved_and_loaded_it_scores_as_before_to_the_bit(
    controller: PreferenceController, tmp_path: Path
) -> None:
    controller.save(tmp_path)
    again = load_controller(tmp_path)
    assert torch.equal(read_something(again), read_something(controller))
    assert again.experts == controller.experts


def test_parameters_of_another_controller_are_refused(
    controller: PreferenceController, tmp_path: Path
) -> None:
    controller.save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(FormatError, match="hash differs"):
        load_controller(tmp_path)


def test_scores_depend_on_strengths_and_not_on_padding(controller: PreferenceController) -> None:
    ids = torch.arange(3, 15).view(2, 6)
    mask = torch.ones_like(ids)
    one, other = torch.eye(4)[[0, 0]], torch.eye(4)[[1, 1]]
    plain = controller(ids, mask, one)[0]
    assert (plain - controller(ids, mask, other)[0]).abs().max() > 0.01
    left = torch.nn.functional.pad(ids, (3, 0)), torch.nn.functional.pad(mask, (3, 0))
    assert torch.allclose(controller(*left, one)[0][:, 3:], plain, atol=1e-5)
    right = torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    assert torch.allclose(controller(*right, one)[0][:, :6], plain, atol=1e-5)


def test_any_decoder_can_be_the_trunk(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "trunk", seed=5)
    settings = TrunkSettings(path=str(folder))
    options = {"experts": ("a", "b"), "tokenizer_fingerprint": "", "seed": 0}
    made = new_controller(settings, n_vocab=259, **options)
    with torch.no_grad():
        made.head.weight.fill_(0.1)
    made.save(tmp_path / "saved")
    assert torch.equal(read_something(load_controller(tmp_path / "saved")), read_something(made))
    with pytest.raises(FormatError, match="knows 259 token ids"):
        new_controller(settings, n_vocab=5000, **options)


def test_shapes_that_cannot_be_are_refused() -> None:
    options = {"experts": ("a",), "n_vocab": 9, "tokenizer_fingerprint": "", "seed": 0}
    with pytest.raises(InvalidInputError, match="heads of even width"):
        new_controller(TrunkSettings(hidden=10, heads=4), **options)
    with pytest.raises(InvalidInputError, match="not a hub id"):
        new_controller(TrunkSettings(path="/nowhere"), **options)


def test_the_base_as_trunk_is_shared_frozen_and_not_stored(base: Base, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "experts": ("a", "b"),
        "n_vocab": len(base.tokenizer),
        "tokenizer_fingerprint": base.tokenizer_fingerprint,
        "seed": 0,
        "base": base.model,
    }
    made = new_controller(TrunkSettings(path="base"), **options)
    torch.nn.init.normal_(made.head.weight)
    hidden = base.model.config.hidden_size
    assert made.n_parameters == 2 * (hidden + 1) + hidden + 1  # of the two heads
    folder = tmp_path / "saved"
    folder.mkdir()
    made.save(folder)
    assert (folder / "model.safetensors").stat().st_size < 4 * made.n_parameters + 1000
    loaded = load_controller(folder, base=base.model)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = (ids > 0).long()
    strengths = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    scores, _ = loaded(ids, mask, strengths)
    assert torch.equal(scores, made(ids, mask, strengths)[0])
    whole = base.model.get_decoder()(input_ids=ids[1:, :2]).last_hidden_state.float()
    torch.testing.assert_close(scores[1, :2], made.head(whole)[0], rtol=1e-4, atol=1e-5)
    again, _ = loaded(ids, mask, strengths)  # from the states it keeps
    assert torch.equal(again, scores)
    last, cache = loaded.trunk.read([(5, 6, 7), (9,)], strengths)
    stepped = loaded.trunk.advance(torch.tensor([8, 10]), cache, strengths)
    torch.testing.assert_close(loaded.head(last)[0], scores[0, 2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded.head(stepped)[1], scores[1, 1], rtol=1e-4, atol=1e-5)


def test_answers_are_cooled_only_where_any_answers_will_do() -> None:
    with pytest.raises(InvalidInputError, match=r"temperature=0.7 needs method=rebel"):
        FitSettings.checked({"temperature": 0.7}, source="run.yaml")
    settings = FitSettings.checked(
        {"temperature": 0.7, "loss": {"eta": 4.0, "price": 0.25}}, source="run.yaml"
    )
    assert settings.sampling.temperature == 0.7
