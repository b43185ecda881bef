"""What is measured of a way besides its answers: speed, memory, bounds, what it forgets."""

from collections.abc import Sequence
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan
from palate.core.seeds import generator_for
from palate.evaluate.rows import FactRow
from palate.evaluate.suite import COMPARISONS, WORLD
from palate.metrics.diversity import pairwise_kl
from palate.models.bank import AdapterBank
from palate.models.chat import encode_answer, encode_prompt
from palate.models.logprobs import Scored, answer_log_probs, row_distributions
from palate.models.pool import RowMap, pool_log_probs
from palate.portfolio.certificate import certify
from palate.portfolio.terms import Terms
from palate.recipes.evaluate_fill import BASE
from palate.recipes.evaluate_kit import Kit
from palate.recipes.evaluate_ways import Arm, way_named
from palate.recipes.soup_implicit import ImplicitEngine
from palate.serve.words import token_texts
from palate.world.grammar import sample_answer, sample_style
from palate.world.prompts import prompts_about
from palate.world.topics import HELD_OUT_TOPICS

N_NEUTRAL = 16  # texts that retention is measured on
N_CONTEXTS = 2  # answers of the base along which policies are compared
N_TIMED = 1  # prompts for each person in the race
N_COUNTED = 4  # prompts on which implicit proposals are counted
ROUNDS = 3  # of the race; the fastest counts
STORED = "bytes_per_person"  # a fact that every way has in every seed
SLOWNESS = "slower_than_base"
# ways that cost and forget as a sibling that is measured
_REPEATS = frozenset(
    [*(f"portfolio-{size}" for size in (2, 4, 5, 6, 7)), *(f"soup@{n}" for n in COMPARISONS)]
)


def way_facts(kit: Kit, name: str) -> list[FactRow]:
    """The facts of one way but its speed."""
    way = way_named(name)
    arms = [way(kit, person) for person in kit.people]
    facts = [FactRow(STORED, name, kit.seed, float(np.mean([a.n_bytes for a in arms])))]
    plans = [arm.plan for arm in arms if arm.plan is not None]
    bank = arms[0].bank
    if bank is not None and len(plans) == len(arms) and name not in _REPEATS:
        facts.append(FactRow("neutral_perplexity", name, kit.seed, _retention(kit, bank, plans)))
        facts.append(FactRow("pairwise_kl", name, kit.seed, _spread(kit, bank, plans)))
    if name.startswith("portfolio-"):
        facts += _bound(kit, name)
    if name == "implicit-soup":
        facts.append(_proposals(kit, arms))
    if name == "mixture":
        facts.append(_shares_per_token(kit))
    return facts


def speed_facts(kit: Kit, name: str) -> list[FactRow]:
    """Answer tokens per second for all people at once, and how much slower than the base.

    The way and the base take turns. `core_share` is the part of a core that this process had
    meanwhile: below one, others ran on the same cores, and the speeds cannot be compared.
    """
    way = way_named(name)
    arms = [way(kit, person) for person in kit.people]
    prompts = kit.prompts[:N_TIMED]
    requests = [arm.request(prompt, 0) for arm in arms for prompt in prompts]
    base_arm = way_named(BASE)(kit, kit.people[0])
    rivals = [base_arm.request(prompt, 0) for _ in arms for prompt in prompts]
    rates: dict[str, list[float]] = {"way": [], "base": []}
    begun, cpu_begun = perf_counter(), process_time()
    for _ in range(ROUNDS):
        for label, engine, batch in (
            ("base", base_arm.engine, rivals),
            ("way", arms[0].engine, requests),
        ):
            n = arms[0].n_proposals if label == "way" else 1
            start = perf_counter()
            answers = engine.generate(batch * n)
            seconds = perf_counter() - start
            rates[label].append(sum(len(a.tokens) for a in answers) / n / seconds)
    core_share = (process_time() - cpu_begun) / (perf_counter() - begun)
    best = {label: max(some) for label, some in rates.items()}
    detail = {"base_tokens_per_second": best["base"], "rounds": ROUNDS, "core_share": core_share}
    return [
        FactRow("tokens_per_second", name, kit.seed, best["way"], detail=detail),
        FactRow(SLOWNESS, name, kit.seed, best["base"] / best["way"], detail=detail),
    ]


def is_timed(name: str) -> bool:
    """Whether the way's speed is measured; portfolios and learned soups cost what others cost."""
    return name not in _REPEATS


def _proposals(kit: Kit, arms: Sequence[Arm]) -> FactRow:
    """What implicit tokens cost, along answers drawn for the purpose."""
    engine = ImplicitEngine(kit.opened.base, kit.opened.bank)
    engine.generate([arm.request(prompt, 0) for arm in arms for prompt in kit.prompts[:N_COUNTED]])
    detail = {
        "fallback_share": engine.n_fallbacks / engine.n_tokens,
        "n_tokens": engine.n_tokens,
    }
    return FactRow(
        "proposals_per_token",
        "implicit-soup",
        kit.seed,
        engine.n_proposals / engine.n_tokens,
        detail=detail,
    )


def _retention(kit: Kit, bank: AdapterBank, plans: Sequence[Plan]) -> float:
    """Perplexity on texts that are nobody's taste, mean over people's policies in nats."""
    items = _neutral(kit)
    totals = [
        sum(
            float(x.sum())
            for x in answer_log_probs(
                kit.opened.base, bank, plans=[plan] * len(items), items=items, max_rows=128
            )
        )
        for plan in dict.fromkeys(plans)
    ]
    weights = [plans.count(plan) for plan in dict.fromkeys(plans)]
    n_tokens = sum(len(item.answer) for item in items)
    return float(np.exp(-np.average(totals, weights=weights) / n_tokens))


def _neutral(kit: Kit) -> list[Scored]:
    """Answers that the world's grammar gives without wishes; elsewhere the base's own."""
    if kit.suite.library == WORLD:
        generator = generator_for(kit.suite.seeds[0], "neutral")
        pairs: list[tuple[str, str]] = []
        for place in generator.integers(len(HELD_OUT_TOPICS), size=N_NEUTRAL):
            topic = HELD_OUT_TOPICS[int(place)]
            prompt = prompts_about(topic)[0]
            pairs.append((prompt, sample_answer(topic, sample_style(generator), generator).text))
    else:
        requests = [way_named(BASE)(kit, kit.people[0]).request(p, 99) for p in kit.development]
        answers = kit.engine.generate(requests[:N_NEUTRAL])
        pairs = [(p, a.text) for p, a in zip(kit.development, answers, strict=False)]
    base = kit.opened.base
    return [
        Scored(
            tuple(encode_prompt(base, kit.text(prompt))),
            tuple(encode_answer(base, kit.text(prompt), text, is_ended=True)),
        )
        for prompt, text in pairs
    ]


@torch.inference_mode()
def _spread(kit: Kit, bank: AdapterBank, plans: Sequence[Plan]) -> float:
    """Mean KL per token between two people's policies, along answers of the base."""
    if len(plans) < 2:
        return 0.0
    items = _neutral(kit)[:N_CONTEXTS]
    found: dict[Plan, Float[ndarray, "contexts vocab"]] = {}
    for plan in dict.fromkeys(plans):
        normal = plan.normal_form()
        rows = RowMap.of([normal], device=kit.opened.base.device)
        parts = [
            pool_log_probs(row_distributions(kit.opened.base, bank, plan=normal, item=item), rows)[
                0
            ]
            for item in items
        ]
        found[plan] = torch.cat(parts).double().numpy()
    return pairwise_kl(np.stack([found[plan] for plan in plans]))


def _bound(kit: Kit, name: str) -> list[FactRow]:
    """What any preference loses at most relative to all candidates; empty where all are members."""
    size = int(name.removeprefix("portfolio-"))
    members = kit.members(size)
    terms = Terms(criterion="additive")
    certified = certify(kit.candidates.payoffs, members=members, terms=terms).certificate
    names = kit.candidates.payoffs.table.policies
    detail: dict[str, Any] = {
        "kind": certified.kind,
        "confidence": certified.confidence,
        "members": [names[k] for k in members],
        "predicted_mean_loss": float(kit.losses()[:, members].min(axis=1).mean()),
    }
    if certified.additive_gap is None:  # nothing is known beyond the listed policies
        return []
    return [FactRow("worst_case_loss", name, kit.seed, certified.additive_gap, detail=detail)]


def _shares_per_token(kit: Kit) -> FactRow:
    """One answer of the mixture with each expert's share of every token."""
    person = kit.people[0]
    request = way_named("mixture")(kit, person).request(kit.prompts[0], 0)
    traced = kit.mixture.engine.trace([request])[0]
    owners = [row.coefficients.index(1.0) for row in request.plan.rows]
    tokens = token_texts(kit.opened.base, traced.completion.tokens)
    detail = {
        "prompt": kit.prompts[0],
        "tokens": tokens,
        "experts": [kit.experts[k] for k in owners],
        "shares": np.round(traced.shares, 4).tolist(),
        "text": traced.completion.text,
    }
    return FactRow(
        "shares_per_token", "mixture", kit.seed, float(len(tokens)), person.name, detail=detail
    )
