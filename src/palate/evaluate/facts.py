"""What is measured of an entrant besides its answers: speed, memory, bounds, what it forgets."""

from collections.abc import Sequence
from time import perf_counter, process_time

import numpy as np
import torch
from jaxtyping import Float

from palate.core.decision import Decision
from palate.core.plan import Plan, reference_plan
from palate.core.protocols import Request
from palate.engine.detokenize import token_texts
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.pool import RowMap, pool_log_probs
from palate.engine.protocol import finished
from palate.evaluate.catalogue import BASE, IMPLICIT, MIXTURE, PORTFOLIO, parse_name
from palate.evaluate.context import Context, Entrant, total_log_probs
from palate.evaluate.rows import FactRow
from palate.evaluate.suite import UserSettings
from palate.library.candidates import candidate_requests
from palate.library.library import Library
from palate.metrics.diversity import pairwise_kl
from palate.models.chat import encode_answer, encode_prompt
from palate.rewards.texts import messages_of

N_NEUTRAL = 16  # texts that retention is measured on
N_CONTEXTS = 2  # answers of the base along which policies are compared
N_COUNTED = 4  # prompts on which implicit proposals are counted
ROUNDS = 3  # of the race; the fastest counts
STORED = "bytes_per_user"  # a fact that every entrant has in every seed
SLOWNESS = "slower_than_base"


def entrant_facts(context: Context, name: str) -> list[FactRow]:
    """The facts of one entrant but its speed."""
    entrant, seed, prompt = context.entrant(name), context.task.seed, context.task.prompts[0]
    stored = float(np.mean([entrant.n_bytes(user) for user in context.task.users]))
    facts = [FactRow(STORED, name, seed, stored)]
    if not parse_name(name).is_plain or name == "auto":
        return facts  # costs and forgets as a sibling that is measured
    decisions = [entrant.decide(user, prompt) for user in context.task.users]
    if all(_is_unprompted(one, prompt) for one in decisions):
        plans, library = [one.plan for one in decisions], entrant.library
        facts.append(FactRow("neutral_perplexity", name, seed, _retention(context, library, plans)))
        facts.append(FactRow("pairwise_kl", name, seed, _spread(context, library, plans)))
    if name == PORTFOLIO:
        facts += _bound(context)
    if name == IMPLICIT:
        facts.append(_proposals(context, entrant))
    if name == MIXTURE:
        facts.append(_shares_per_token(context))
    return facts


def speed_facts(context: Context, name: str) -> list[FactRow]:
    """Answer tokens per second for all users at once, and how much slower than the base.

    Method and base take turns. `core_share` is the part of a core that this process had meanwhile:
    below one, others ran on the same cores, and the speeds cannot be compared.
    """
    entrant, base = context.entrant(name), context.entrant(BASE)
    requests = [_requests(context, entrant, user) for user in context.task.users]
    rivals = [_requests(context, base, user) for user in context.task.users]
    rates: dict[str, list[float]] = {"method": [], "base": []}
    begun, cpu_begun = perf_counter(), process_time()
    for _ in range(ROUNDS):
        for label, engine, groups in (
            ("base", base.library.engine, rivals),
            ("method", entrant.library.engine, requests),
        ):
            start = perf_counter()
            answers = engine.generate([one for group in groups for one in group])
            seconds = perf_counter() - start
            n_tokens = sum(len(answer.tokens) for answer in answers)
            rates[label].append(n_tokens / len(groups[0]) / seconds)
    core_share = (process_time() - cpu_begun) / (perf_counter() - begun)
    best = {label: max(some) for label, some in rates.items()}
    detail = {"base_tokens_per_second": best["base"], "rounds": ROUNDS, "core_share": core_share}
    seed = context.task.seed
    return [
        FactRow("tokens_per_second", name, seed, best["method"], detail=detail),
        FactRow(SLOWNESS, name, seed, best["base"] / best["method"], detail=detail),
    ]


def _requests(context: Context, entrant: Entrant, user: UserSettings) -> list[Request]:
    """What one user's answer to the first prompt takes."""
    prompt = context.task.prompts[0]
    decision = entrant.decide(user, prompt)
    request = _request(context, entrant.library, decision, (user.name, prompt))
    return candidate_requests(request, n=decision.n_candidates)


def _request(
    context: Context, library: Library, decision: Decision, of: tuple[str, str]
) -> Request:
    """What a decision takes, with the seed of the first answer of this user to this prompt."""
    text, seed = library.format(decision.messages), context.answer_seed(*of, 0)
    return Request(text, decision.plan, context.sampling, seed)


def _is_unprompted(decision: Decision, prompt: str) -> bool:
    """Whether the policy is its plan alone: no words, no contexts of rows, one candidate."""
    rows = decision.plan.rows
    is_plain = all(row.context is None for row in rows) and decision.plan.pool.controller is None
    return is_plain and decision.messages == messages_of(prompt) and decision.n_candidates == 1


def _proposals(context: Context, entrant: Entrant) -> FactRow:
    """What implicit tokens cost, along answers generated for the purpose."""
    requests = [
        _request(context, entrant.library, entrant.decide(user, prompt), (user.name, prompt))
        for user in context.task.users
        for prompt in context.task.prompts[:N_COUNTED]
    ]
    answered = [running for running, _ in finished(entrant.library.engine.open_session(), requests)]
    n = sum(len(running.tokens) for running in answered)
    fallback_share = sum(running.n_fallbacks for running in answered) / n
    detail = {"fallback_share": fallback_share, "n_tokens": n}
    value = sum(running.n_proposals for running in answered) / n
    return FactRow("proposals_per_token", IMPLICIT, context.task.seed, value, detail=detail)


def _retention(context: Context, library: Library, plans: Sequence[Plan]) -> float:
    """Perplexity on texts that nobody prefers, mean over users' policies in nats."""
    items = _neutral(context)
    different = list(dict.fromkeys(plans))
    totals = [sum(total_log_probs(library, plan, items)) for plan in different]
    weights = [plans.count(plan) for plan in different]
    n_tokens = sum(len(item.answer) for item in items)
    return float(np.exp(-np.average(totals, weights=weights) / n_tokens))


def _neutral(context: Context) -> list[Scored]:
    """The context's neutral texts; without any, answers of the base."""
    library, pairs = context.library, context.neutral
    if not pairs:
        plan = reference_plan(n_experts=library.bank.n_experts)
        prompts = context.task.prompts[:N_NEUTRAL]
        read = [library.format(messages_of(prompt)) for prompt in prompts]
        seeds = [context.answer_seed("", prompt, 99) for prompt in prompts]
        requests = [Request(t, plan, context.sampling, s) for t, s in zip(read, seeds, strict=True)]
        answers = library.engine.generate(requests)
        pairs = [(prompt, a.text) for prompt, a in zip(prompts, answers, strict=True)]
    items: list[Scored] = []
    for prompt, text in pairs:
        formatted = library.format(messages_of(prompt))
        answer = encode_answer(library.base, formatted, text, is_ended=True)
        items.append(Scored(tuple(encode_prompt(library.base, formatted)), tuple(answer)))
    return items


@torch.inference_mode()
def _spread(context: Context, library: Library, plans: Sequence[Plan]) -> float:
    """Mean KL per token between two users' policies, along answers of the base."""
    if len(plans) < 2:
        return 0.0
    items = _neutral(context)[:N_CONTEXTS]
    base, bank = library.base, library.bank
    distributions: dict[Plan, Float[np.ndarray, "contexts vocab"]] = {}
    for plan in dict.fromkeys(plans):
        normal = plan.normal_form()
        rows = RowMap.of([normal], device=base.device)
        along = [row_distributions(base, bank, plan=normal, item=item) for item in items]
        parts = [pool_log_probs(one, rows)[0] for one in along]
        distributions[plan] = torch.cat(parts).double().numpy()
    return pairwise_kl(np.stack([distributions[plan] for plan in plans]))


def _bound(context: Context) -> list[FactRow]:
    """What nobody loses more than by the portfolio's members; nothing where nothing is known."""
    if context.library.portfolio is None:
        return []
    record = context.library.portfolio.record
    certificate = record.certified.certificate
    if certificate.additive_gap is None:
        return []
    detail = {
        "kind": certificate.kind,
        "confidence": certificate.confidence,
        "members": list(record.members),
    }
    gap = certificate.additive_gap
    return [FactRow("certified_loss", PORTFOLIO, context.task.seed, gap, detail=detail)]


def _shares_per_token(context: Context) -> FactRow:
    """One answer of the mixture with each expert's share of every token."""
    user, prompt, library = context.task.users[0], context.task.prompts[0], context.library
    decision = context.entrant(MIXTURE).decide(user, prompt)
    traced = library.engine.trace([_request(context, library, decision, (user.name, prompt))])[0]
    owners = [row.coefficients.index(1.0) for row in decision.plan.rows]
    tokens = token_texts(library.base, traced.completion.tokens)
    detail = {
        "prompt": prompt,
        "tokens": tokens,
        "experts": [library.bank.names[k] for k in owners],
        "shares": np.round(traced.shares, 4).tolist(),
        "text": traced.completion.text,
    }
    n_tokens = float(len(tokens))
    return FactRow(
        "shares_per_token", MIXTURE, context.task.seed, n_tokens, user.name, detail=detail
    )
