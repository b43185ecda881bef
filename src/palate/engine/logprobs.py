"""Log-probabilities of given answers under a plan, in one teacher-forced pass per row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, reference_plan
from palate.engine.bank import AdapterBank
from palate.engine.pool import RowMap, pool_log_probs
from palate.models.load import Base


@dataclass(frozen=True)
class Scored:
    """An answer to be scored: token ids of its context, and its own."""

    context: tuple[int, ...]  # token ids of the prompt; at least one
    answer: tuple[int, ...]  # token ids of the answer; may be empty

    def __post_init__(self) -> None:
        """Refuse an empty context: the first token would have no distribution."""
        if not self.context:
            raise InvalidInputError(
                "An answer to be scored has no context; give at least one token."
            )


@torch.inference_mode()
def answer_log_probs(
    base: Base,
    bank: AdapterBank,
    *,
    plans: Sequence[Plan],
    items: Sequence[Scored],
    max_num_seqs: int = 16,
    temperature: float = 1.0,
) -> list[Float[Tensor, " tokens"]]:
    """Natural logarithm of the probability of each answer token, one tensor per item.

    There is one plan per item, without a controller; one pass has at most `max_num_seqs` rows.
    A temperature divides every row's logits, which for one row, or rows that are pooled
    log-linearly with a sum of one, is the distribution that is sampled from at that temperature.

    Raises:
        InvalidInputError: plans and items are not as many, or a plan names a controller.
    """
    normal = _checked(plans, items)
    answers: dict[int, Tensor] = {}
    for part in _parts(normal, items, max_num_seqs=max_num_seqs):
        own, texts = [normal[place] for place in part], [items[place] for place in part]
        logits = _row_logits(base, bank, plans=own, items=texts, temperature=temperature)
        pooled = pool_log_probs(logits, RowMap.of(own, device=base.device))
        for place, log_probs, item in zip(part, pooled, texts, strict=True):
            answer = torch.tensor(item.answer, dtype=torch.long, device=base.device).unsqueeze(1)
            answers[place] = log_probs[: len(item.answer)].gather(1, answer).squeeze(1)
    return [answers[place] for place in range(len(items))]


@torch.inference_mode()
def answer_divergences(
    base: Base,
    bank: AdapterBank,
    *,
    plans: Sequence[Plan],
    items: Sequence[Scored],
    max_num_seqs: int = 16,
    temperature: float = 1.0,
) -> list[Float[Tensor, " tokens"]]:
    """KL divergence from the plan to the base of the distribution of each answer token, nats.

    Summed over an answer drawn from the plan itself it is an unbiased estimate of the KL divergence
    of whole answers, with less spread than the answer's own log-ratio. Plans, rows and temperature
    as in `answer_log_probs`, the rows of the reference among them.

    Raises:
        InvalidInputError: plans and items are not as many, or a plan names a controller.

    Source: palm.md, section 8.
    """
    normal = _checked(plans, items)
    reference = reference_plan(n_experts=bank.n_experts)
    divergences: dict[int, Tensor] = {}
    for part in _parts(normal, items, max_num_seqs=max_num_seqs // 2):
        paired = [plan for place in part for plan in (normal[place], reference)]
        twice = [items[place] for place in part for _ in range(2)]
        logits = _row_logits(base, bank, plans=paired, items=twice, temperature=temperature)
        pooled = pool_log_probs(logits, RowMap.of(paired, device=base.device))
        own, other = pooled[::2], pooled[1::2]
        terms = torch.where(own > -torch.inf, own.exp() * (own - other), 0.0).sum(dim=2)
        for row, place in enumerate(part):
            divergences[place] = terms[row, : len(items[place].answer)]
    return [divergences[place] for place in range(len(items))]


def _parts(
    plans: Sequence[Plan], items: Sequence[Scored], *, max_num_seqs: int
) -> Iterator[list[int]]:
    """Places of answers of similar length, at most so many rows together, but at least a plan's."""
    sizes = [len(item.context) + len(item.answer) for item in items]
    part: list[int] = []
    for place in sorted(range(len(items)), key=lambda place: sizes[place]):
        if part and sum(len(plans[k].rows) for k in [*part, place]) > max_num_seqs:
            yield part
            part = []
        part.append(place)
    if part:
        yield part


def _checked(plans: Sequence[Plan], items: Sequence[Scored]) -> list[Plan]:
    """The plans in normal form, one for each answer and none with a controller."""
    if len(plans) != len(items):
        raise InvalidInputError(
            f"There are {len(plans)} plans for {len(items)} answers; give one each."
        )
    normal = [plan.normal_form() for plan in plans]
    if any(plan.pool.controller is not None for plan in normal):
        raise InvalidInputError(
            "A controlled plan has no fixed shares; score it with its controller."
        )
    return normal


@torch.inference_mode()
def row_distributions(
    base: Base, bank: AdapterBank, *, plan: Plan, item: Scored, at: Sequence[int] | None = None
) -> Float[Tensor, "rows tokens vocab"]:
    """Every row's next-token log-probabilities along the answer, before any pooling.

    With `at`, places in the answer in increasing order, of these tokens alone.
    """
    if at is not None:
        item = replace(item, answer=item.answer[: at[-1] + 1])
    logits = _row_logits(base, bank, plans=[plan], items=[item])[:, : len(item.answer)]
    return torch.log_softmax((logits if at is None else logits[:, list(at)]).float(), dim=-1)


def row_log_probs(
    base: Base, bank: AdapterBank, *, plan: Plan, item: Scored
) -> Float[Tensor, "tokens rows"]:
    """Log-probability of each answer token under every row of the plan, before any pooling."""
    log_probs = row_distributions(base, bank, plan=plan, item=item)
    answer = torch.tensor(item.answer, dtype=torch.long, device=log_probs.device)
    index = answer.view(1, -1, 1).expand(len(plan.rows), -1, 1)
    return log_probs.gather(2, index).squeeze(2).T


def _row_logits(
    base: Base,
    bank: AdapterBank,
    *,
    plans: Sequence[Plan],
    items: Sequence[Scored],
    temperature: float = 1.0,
) -> Float[Tensor, "rows answer vocab"]:
    """Logits for every answer token of every row; padding follows shorter answers.

    Rows of one text that differ in the head alone share a pass.
    """
    rows = [
        (row.context if row.context is not None else item.context, item.answer, row.coefficients)
        for plan, item in zip(plans, items, strict=True)
        for row in plan.rows
    ]
    keys = [(context, answer, bank.before_head(given)) for context, answer, given in rows]
    place_of = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    texts = [(context, answer) for context, answer, _ in place_of]
    longest = max(len(context) + len(answer) for context, answer in texts)
    if longest > (base.n_positions or longest):
        raise InvalidInputError(
            f"A prompt with its answer has {longest} tokens, but the base reads "
            f"{base.n_positions}; shorten it."
        )
    n_answer = max(len(item.answer) for item in items)
    n_context = max(len(context) for context, _ in texts)
    filler = int(str(base.tokenizer.pad_token_id or 0))
    ids = torch.full((len(texts), n_context + n_answer), filler)
    mask = torch.zeros_like(ids)
    for place, (context, answer) in enumerate(texts):
        left, right = n_context - len(context), n_context + len(answer)
        ids[place, left:right] = torch.tensor([*context, *answer])
        mask[place, left:right] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    sequences = None if len(texts) == len(rows) else [place_of[key] for key in keys]
    with bank.applied([given for _, _, given in rows], sequences=sequences):
        logits = base.model(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            position_ids=positions.to(base.device),
            logits_to_keep=n_answer + 1,
        ).logits[:, -n_answer - 1 : -1]  # all of them from models that know no `logits_to_keep`
    return logits if temperature == 1.0 else logits / temperature
