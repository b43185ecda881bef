"""Log-ratios of experts to the base on given answers: features that coefficients are learned from.

`log_ratios` loads one expert at a time, since a bank of all experts would run all factors in every
pass; experts on the head alone share one pass.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from palate.core.decision import Messages
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row, one_hot, reference_plan
from palate.core.progress import Report
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored, answer_log_probs, row_distributions, row_log_probs
from palate.models.chat import encode_answer, encode_prompt, format_messages
from palate.models.load import Base
from palate.soup.states import States

STATE_TOKENS = 128  # most probable tokens of the base; normalisers are sums over these
STATES_PER_ANSWER = 8
MAX_TILT = 30.0  # nats; beyond, a token was impossible for one side


def scored_text(base: Base, prompt: Messages, answer: str) -> Scored:
    """A prompt, formatted, and a whole answer as token ids."""
    text = format_messages(base, prompt)
    tokens = encode_answer(base, text, answer, is_ended=True)
    return Scored(tuple(encode_prompt(base, text)), tuple(tokens))


def log_probs(
    base: Base, bank: AdapterBank, *, plan: Plan, items: Sequence[Scored]
) -> Float[np.ndarray, " answers"]:
    """`[answers]`: log-probability of whole answers under one plan, nats; batched by length."""
    rows = answer_log_probs(base, bank, plans=[plan] * len(items), items=items)
    return np.array([float(row.double().sum()) for row in rows])


def log_ratios(
    base: Base,
    folders: Mapping[str, Path],
    items: Sequence[Scored],
    *,
    on_step: Report | None = None,
) -> Float[np.ndarray, "answers experts"]:
    """`log p_k(answer) - log p_0(answer)` of whole answers, in nats.

    Folders are by expert, in bank order; `on_step` hears how many experts are done, of all, or how
    many answers where all experts are on the head.
    """
    whole = AdapterBank.load(base, folders)
    if not whole.before_head((1.0,) * whole.n_experts):
        return _head_log_ratios(base, whole, items, on_step=on_step)
    whole.close()
    with closing(AdapterBank(base, {})) as bare:
        reference = log_probs(base, bare, plan=reference_plan(n_experts=0), items=items)
    columns: list[np.ndarray] = []
    only = Plan((Row((1.0,)),), Pool("single"))
    for place, (name, folder) in enumerate(folders.items(), start=1):
        with closing(AdapterBank.load(base, {name: folder})) as bank:
            columns.append(log_probs(base, bank, plan=only, items=items) - reference)
        if on_step is not None:
            on_step(place, len(folders))
    return np.stack(columns, axis=1)


def _head_log_ratios(
    base: Base, bank: AdapterBank, items: Sequence[Scored], *, on_step: Report | None
) -> Float[np.ndarray, "answers experts"]:
    """As `log_ratios`, where all experts are on the head: one pass of the base for all of them."""
    plan = expert_rows(n_experts=bank.n_experts)
    ratios = np.zeros((len(items), bank.n_experts))
    with closing(bank):
        for place, item in enumerate(items):
            sums = row_log_probs(base, bank, plan=plan, item=item).double().sum(dim=0)
            ratios[place] = (sums[1:] - sums[0]).numpy(force=True)
            if on_step is not None:
                on_step(place + 1, len(items))
    return ratios


@cache
def expert_rows(*, n_experts: int, experts: tuple[int, ...] | None = None) -> Plan:
    """The reference and these experts (all by default), one row each; only rows are used."""
    places = range(n_experts) if experts is None else experts
    rows = [Row((0.0,) * n_experts), *(Row(one_hot(index=k, n_experts=n_experts)) for k in places)]
    return Plan(tuple(rows), Pool("linear", (1.0 / len(rows),) * len(rows)))


def features_of(
    base: Base,
    bank: AdapterBank,
    *,
    beta: float,
    context: Sequence[int],
    answers: Sequence[Sequence[int]],
) -> list[list[float]]:
    """For each answer, `beta * (log p_k - log p_0)` for every expert, in reward units."""
    plan = expert_rows(n_experts=bank.n_experts)
    features: list[list[float]] = []
    for tokens in answers:
        item = Scored(tuple(context), tuple(tokens))
        rows = row_log_probs(base, bank, plan=plan, item=item).double().numpy(force=True)
        tilts = np.clip(np.nan_to_num(rows[:, 1:] - rows[:, :1]), -MAX_TILT, MAX_TILT)
        features.append((beta * tilts.sum(axis=0)).tolist())
    return features


def sample_states(
    base: Base,
    bank: AdapterBank,
    items: Sequence[Scored],
    *,
    n_states: int,
    generator: np.random.Generator,
) -> States:
    """States that the base passes through, with all experts' tilts.

    The vocabulary is cut to the base's most probable tokens and renormalised, so normalisers are
    those of the cut soup. Items are the base's answers; fewer tokens give fewer states.

    Raises:
        InvalidInputError: there are no answers.
    """
    if not items:
        raise InvalidInputError("There are no answers to take states from; give at least one.")
    plan = expert_rows(n_experts=bank.n_experts)
    cuts: list[np.ndarray] = []
    n_states_left = n_states
    for place in generator.permutation(len(items)):
        item = items[int(place)]
        n_wanted = min(STATES_PER_ANSWER, len(item.answer), n_states_left)
        at = np.sort(generator.choice(len(item.answer), size=n_wanted, replace=False)).tolist()
        cuts.append(_cut(row_distributions(base, bank, plan=plan, item=item, at=at)))
        n_states_left -= n_wanted
        if n_states_left <= 0:
            break
    return _as_states(cuts)


def _as_states(cuts: Sequence[Float[np.ndarray, "rows states tokens"]]) -> States:
    rows = np.concatenate(cuts, axis=1)
    return States(rows[0], np.moveaxis(rows[1:] - rows[0], 0, -1))


def _cut(rows: Float[torch.Tensor, "rows states vocab"]) -> Float[np.ndarray, "rows states tokens"]:
    """The reference's most probable tokens, renormalised in every row."""
    n_tokens = min(STATE_TOKENS, rows.shape[-1])
    top = rows[0].topk(n_tokens, dim=-1).indices
    picked = rows.double().gather(2, top.unsqueeze(0).expand(len(rows), -1, -1))
    return torch.log_softmax(picked, dim=-1).cpu().numpy()
