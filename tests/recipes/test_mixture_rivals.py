"""Rivals of the mixture: what each reads and which plan it gets."""

from pathlib import Path

import pytest
import torch

from palate.mixture.wording import Asked, Wording
from palate.models.adapter import Factor
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.recipes.mixture_rivals import Way, mean_adapter, morl_way
from palate.recipes.opened import Opened, open_library

ASKED = Asked("Why?", (0.5, 0.5, 0.0))


@pytest.fixture(scope="module")
def opened(tiny_library: Path) -> Opened:
    return open_library(tiny_library)


def test_means_of_the_factors_are_not_the_mean_of_the_products() -> None:
    first = {"q": Factor(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]]), 4.0)}
    second = {"q": Factor(torch.tensor([[0.0, 1.0]]), torch.tensor([[4.0]]), 4.0)}
    mean = mean_adapter([first, second])["q"]
    assert (mean.scale * mean.up @ mean.down).tolist() == [[6.0, 6.0]]  # 4 * 3 * (1/2, 1/2)
    products = 4.0 * (2.0 * first["q"].down + 4.0 * second["q"].down) / 2
    assert products.tolist() == [[4.0, 8.0]]


def test_the_one_adapter_for_everybody_is_told_the_whole_preference(opened: Opened) -> None:
    base = opened.base
    wording = Wording(base, ("Be kind.", "Be short.", "Be plain."))
    layer = base.model.get_submodule("model.layers.0.self_attn.q_proj")
    d_out, d_in = layer.weight.shape
    adapter = {
        "model.layers.0.self_attn.q_proj": Factor(torch.zeros(1, d_in), torch.zeros(d_out, 1), 1.0)
    }
    way = morl_way(opened, wording, adapter)
    asked = way.ask(ASKED, 5)
    assert asked.prompt == wording.full_text(ASKED)
    assert "Be kind. Be short." in asked.prompt
    assert asked.plan.rows[0].coefficients == (1.0,)
    assert asked.seed == 5


def test_a_prompt_has_one_seed_per_person_whatever_the_way() -> None:
    seen: list[int] = []

    def ask(item: Asked, seed: int):
        seen.append(seed)
        raise StopIteration

    way = Way(None, ask)  # type: ignore[arg-type]
    for _ in range(2):
        for strengths in ((0.5, 0.5, 0.0), (0.0, 0.5, 0.5)):
            with pytest.raises(StopIteration):
                way.answers([Asked("Why?", strengths)], seed=3)
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def test_contexts_are_token_ids_of_the_texts(opened: Opened) -> None:
    base: Base = opened.base
    wording = Wording(base, ("Be kind.", "Be short.", "Be plain."), prompts="full")
    plan = wording.plan(ASKED)
    full = tuple(encode_prompt(base, wording.full_text(ASKED)))
    assert [row.context for row in plan.rows] == [full, full]
    own = Wording(base, ("Be kind.", "Be short.", "Be plain.")).plan(ASKED)
    assert own.rows[0].context != own.rows[1].context
