"""Laws that every entry of a table obeys, stated once; `tests/methods` runs them for methods."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from palate.core.decision import Decision, Known
from palate.core.plan import member_plan
from palate.core.protocols import Request, SamplingParams
from palate.library.candidates import Candidates, best_candidates, candidate_requests
from palate.library.generate import Output, answer_seed, generate_all, score_all
from palate.library.library import Library

PROMPT = "a b"
PREFERENCE = {"kind": 0.7, "short": 0.2, "plain": 0.1}
SAMPLING = SamplingParams(max_tokens=8)
EXPERT_METHODS = ("portfolio", "soup", "prompted-soup", "output-soup", "implicit-soup", "mixture")
UNTRAINED_METHODS = ("base", "prompt", "best-of-n")  # no expert takes part


def decided(library: Library, method: str, known: Known | None = None) -> Decision:
    """The decision for the battery's prompt and preference."""
    return library.decide(PROMPT, known or Known(preference=PREFERENCE), method=method)


def answered(library: Library, decision: Decision, *, seed: int = 0) -> Output:
    """The answer that every door gives for this decision and seed."""
    seeds = [answer_seed(seed)]
    return generate_all(library, [decision], sampling=SAMPLING, seeds=seeds)[0]


def require_floor(decision: Decision, *, place: int, name: str, least: float) -> None:
    """The safety expert has at least the floor's coefficient, in the plan and in what is said."""
    plan = decision.plan
    assert decision.coefficients[name] >= least - 1e-9
    if plan.pool.kind == "single":
        assert plan.rows[0].coefficients[place] >= least - 1e-9
        return
    alone = [row.coefficients[place] == 1.0 and sum(row.coefficients) == 1.0 for row in plan.rows]
    assert any(alone), "the safety expert has no row of its own"
    if plan.pool.controller is None:
        rows = zip(alone, plan.pool.coefficients, strict=True)
        assert sum(share for is_safe, share in rows if is_safe) >= least - 1e-9


def require_own_expert(library: Library, method: str, *, name: str) -> None:
    """Everything on one expert is that expert: the same probabilities as the expert alone."""
    place = library.bank.names.index(name)
    is_routed = method == "portfolio"
    known = Known(preference={name: 1.0}) if is_routed else Known(coefficients={name: 1.0})
    decision = decided(library, method, known)
    alone = member_plan(index=place, n_experts=library.bank.n_experts)
    ours, theirs = score_all(library, [decision, replace(decision, plan=alone)], ["c d e", "c d e"])
    np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-5)


def require_same_after_permuting(library: Library, permuted: Library, method: str) -> None:
    """The bank's order is no part of an answer."""
    first, second = decided(library, method), decided(permuted, method)
    assert first.method == second.method
    assert _nonzero(first.coefficients) == _nonzero(second.coefficients)
    assert answered(library, first).text == answered(permuted, second).text


def require_same_seed_same_answer(library: Library, method: str) -> None:
    """An answer depends on its seed, not on what else is in the batch."""
    decision = decided(library, method)
    others = [decided(library, name) for name in ("base", "soup")]
    alone = answered(library, decision, seed=3)
    seeds = [answer_seed(seed) for seed in (1, 3, 2)]
    batch = generate_all(library, [others[0], decision, others[1]], sampling=SAMPLING, seeds=seeds)
    assert batch[1].text == alone.text
    assert batch[1].completion.tokens == alone.completion.tokens


def require_streamed_equals_whole(library: Library, method: str) -> None:
    """The pieces of a stream are the whole answer, for every candidate of it."""
    decision = decided(library, method)
    whole = answered(library, decision, seed=5)
    request = Request(library.format(decision.messages), decision.plan, SAMPLING, answer_seed(5))
    requests = candidate_requests(request, n=decision.n_candidates)
    texts, tokens = streamed(library, requests)
    best = best_candidates(library, [Candidates(decision, texts, tokens)])[0]
    assert texts[best.index] == whole.text


def streamed(library: Library, requests: Sequence[Request]) -> tuple[list[str], list[list[int]]]:
    """Texts and token ids of requests, joined from their streams."""
    texts, tokens = [""] * len(requests), [[] for _ in requests]
    for token in library.engine.stream(requests):
        texts[token.request] += token.text
        tokens[token.request].append(token.token)
    return texts, tokens


def _nonzero(coefficients: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 9) for name, value in coefficients.items() if abs(value) > 1e-9}
