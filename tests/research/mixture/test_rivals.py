"""Rivals of the mixture: what each reads and which plan it gets."""

from pathlib import Path

import pytest
import torch

from palate.core.decision import Known
from palate.core.plan import reference_plan
from palate.library.library import Library
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.adapter import Factor
from palate.models.chat import encode_prompt
from palate.models.load import Base
from research.mixture import rivals as mixture_rivals
from research.mixture.rivals import morl_entrant
from research.soup.rivals import factor_means

ASKED = MixtureRequest("Why?", (0.5, 0.5, 0.0))


@pytest.fixture(scope="module")
def opened(tiny_library: Path) -> Library:
    return Library.load(tiny_library)


def test_means_of_the_factors_are_not_the_mean_of_the_products() -> None:
    first = {"q": Factor(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]]), 4.0)}
    second = {"q": Factor(torch.tensor([[0.0, 1.0]]), torch.tensor([[4.0]]), 4.0)}
    mean = factor_means([first, second], [0.5, 0.5])["q"]
    assert (mean.scale * mean.up @ mean.down).tolist() == [[6.0, 6.0]]  # 4 * 3 * (1/2, 1/2)
    products = 4.0 * (2.0 * first["q"].down + 4.0 * second["q"].down) / 2
    assert products.tolist() == [[4.0, 8.0]]


def test_the_one_adapter_for_everybody_is_significant_the_whole_preference(opened: Library) -> None:
    base = opened.base
    wording = Wording(base, ("Be kind.", "Be short.", "Be plain."))
    layer = base.model.get_submodule("model.layers.0.self_attn.q_proj")
    d_out, d_in = layer.weight.shape
    adapter = {
        "model.layers.0.self_attn.q_proj": Factor(torch.zeros(1, d_in), torch.zeros(d_out, 1), 1.0)
    }
    entrant = morl_entrant(opened, wording, adapter)
    known = Known(preference={"kind": 0.5, "short": 0.5})
    decision = entrant.library.decide("Why?", known, method=entrant.method)
    assert entrant.library.format(decision.messages) == wording.full_text(ASKED)
    assert "Be kind. Be short." in wording.full_text(ASKED)
    assert decision.plan.rows[0].coefficients == (1.0,)


def test_a_prompt_has_one_seed_per_user_whatever_the_method(
    opened: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def answer(_library, decisions, *, sampling, seeds):
        seen.extend(seeds)
        return []

    monkeypatch.setattr(mixture_rivals, "generate_all", answer)
    wording = Wording(opened.base, ("Be kind.", "Be short.", "Be plain."))
    for name in ("base", "soup-1"):
        entrant = rivals_without_means(opened, wording)[name]
        for strengths in ((0.5, 0.5, 0.0), (0.0, 0.5, 0.5)):
            entrant.answers([MixtureRequest("Why?", strengths)], seed=3)
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def rivals_without_means(opened: Library, wording: Wording) -> dict:
    plain = mixture_rivals.StudyMethod("base", None, lambda _: reference_plan(n_experts=3))
    soup = mixture_rivals.StudyMethod("soup-1", wording, lambda _: reference_plan(n_experts=3))
    return {m.name: mixture_rivals.Entrant(opened, m) for m in (plain, soup)}


def test_contexts_are_token_ids_of_the_texts(opened: Library) -> None:
    base: Base = opened.base
    wording = Wording(base, ("Be kind.", "Be short.", "Be plain."), prompts="full")
    plan = wording.plan(ASKED)
    full = tuple(encode_prompt(base, wording.full_text(ASKED)))
    assert [row.context for row in plan.rows] == [full, full]
    own = Wording(base, ("Be kind.", "Be short.", "Be plain.")).plan(ASKED)
    assert own.rows[0].context != own.rows[1].context
