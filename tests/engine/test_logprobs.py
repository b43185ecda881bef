"""Log-probabilities against transformers' own, on random models and on a small real one."""

from pathlib import Path

import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.core.plan import Row, member_plan, output_soup_plan, reference_plan
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored, answer_divergences, answer_log_probs
from palate.models.chat import encode_answer, encode_prompt
from palate.models.load import Base, load_base
from research.mixture.plans import mixture_plan


def log_probs_of_transformers(base: Base, context: list[int], answer: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = base.model(torch.tensor([context + answer])).logits[0]
    rows = torch.log_softmax(logits, -1)[len(context) - 1 : -1]
    return rows.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)


def test_a_base_without_experts_scores_a_real_model_as_transformers_does(
    shared_folder: Path,
) -> None:
    base = load_base(shared_folder / "data/models/stories260K")
    bank = AdapterBank(base, {})
    stories = [
        ("Once upon a time", ", there was a little girl named Lily."),
        ("Tom had a red ball.", " He liked to play with it in the park."),
        ("The", " end"),
    ]
    items = []
    for prompt, answer in stories:
        context = encode_prompt(base, prompt)
        ids = encode_answer(base, prompt, answer, is_ended=True)
        items.append(Scored(tuple(context), tuple(ids)))
    found = answer_log_probs(base, bank, plans=[reference_plan(n_experts=0)] * 3, items=items)
    for item, log_probs in zip(items, found, strict=True):
        expected = log_probs_of_transformers(base, list(item.context), list(item.answer))
        assert torch.allclose(log_probs, expected, atol=1e-5)


def test_pooled_scores_equal_pooling_single_rows_by_hand(base: Base, bank: AdapterBank) -> None:
    context, answer = encode_prompt(base, "Why is it so?"), [40, 50, 60, 2]
    by_row = []
    for row in [(0.0,) * 4, (1.0, 0, 0, 0), (0, 0, 0, 1.0)]:
        with torch.no_grad(), bank.applied([row]):
            logits = base.model(torch.tensor([context + answer])).logits[0]
        by_row.append(torch.log_softmax(logits, -1)[len(context) - 1 : -1])
    linear = torch.log(0.25 * by_row[1].exp() + 0.75 * by_row[2].exp())
    soup = torch.log_softmax(0.3 * by_row[0] + 1.2 * by_row[1] - 0.5 * by_row[2], -1)
    plans = [
        mixture_plan(experts=(0, 3), n_experts=4, shares=(0.25, 0.75)),
        output_soup_plan((1.2, 0.0, 0.0, -0.5)),
    ]
    item = Scored(tuple(context), tuple(answer))
    found = answer_log_probs(base, bank, plans=plans, items=[item, item])
    for log_probs, pooled in zip(found, (linear, soup), strict=True):
        expected = pooled.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)
        assert torch.allclose(log_probs, expected, atol=1e-5)


def test_an_empty_answer_scores_nothing_and_an_empty_context_is_refused(
    base: Base, bank: AdapterBank
) -> None:
    plan = reference_plan(n_experts=4)
    (found,) = answer_log_probs(base, bank, plans=[plan], items=[Scored((5,), ())])
    assert found.shape == (0,)
    with pytest.raises(InvalidInputError, match="no context"):
        Scored((), (5,))
    with pytest.raises(InvalidInputError, match="1 plans for 2"):
        answer_log_probs(base, bank, plans=[plan], items=[Scored((5,), (6,))] * 2)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_divergences_are_the_kl_of_every_position_summed_by_hand(
    base: Base, bank: AdapterBank, temperature: float
) -> None:
    context, answers = encode_prompt(base, "Why is it so?"), [[40, 50, 60, 2], [7]]
    plans = [member_plan(index=2, n_experts=4), output_soup_plan((0.5, 0.0, 0.0, 0.25))]
    expected = []
    for plan, answer in zip(plans, answers, strict=True):
        rows = []
        for row in (*plan.rows, Row((0.0,) * 4)):
            with torch.no_grad(), bank.applied([row.coefficients]):
                logits = base.model(torch.tensor([context + answer])).logits[0].double()
            rows.append(torch.log_softmax(logits / temperature, -1)[len(context) - 1 : -1])
        coefficients = plan.pool.coefficients or (1.0,)
        own = torch.stack([c * r for c, r in zip(coefficients, rows, strict=False)]).sum(0)
        own = torch.log_softmax(own, -1)
        expected.append((own.exp() * (own - rows[-1])).sum(-1))
    items = [Scored(tuple(context), tuple(answer)) for answer in answers]
    found = answer_divergences(base, bank, plans=plans, items=items, temperature=temperature)
    for divergences, by_hand in zip(found, expected, strict=True):
        assert torch.allclose(divergences.double(), by_hand, atol=1e-5)
        assert bool((divergences > 0).all())
    single = answer_divergences(
        base, bank, plans=plans, items=items, max_num_seqs=1, temperature=temperature
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, single, strict=True))
    own = answer_log_probs(base, bank, plans=plans[:1], items=items[:1], temperature=temperature)
    with torch.no_grad(), bank.applied([plans[0].rows[0].coefficients]):
        logits = base.model(torch.tensor([context + answers[0]])).logits[0].double()
    by_hand = torch.log_softmax(logits / temperature, -1)[len(context) - 1 : -1]
    by_hand = by_hand.gather(1, torch.tensor(answers[0])[:, None])[:, 0]
    assert torch.allclose(own[0].double(), by_hand, atol=1e-5)
    nothing = [reference_plan(n_experts=4)] * 2
    for divergences in answer_divergences(base, bank, plans=nothing, items=items):
        assert torch.allclose(divergences, torch.zeros(()), atol=1e-6)
    with pytest.raises(InvalidInputError, match="1 plans for 2 answers"):
        answer_divergences(base, bank, plans=plans[:1], items=items)
