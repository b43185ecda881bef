"""Laws that every engine obeys, for engines with the experts `short`, `wide` and `head`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.core.plan import Plan, member_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.types import Completion
from palate.engine.protocol import Engine, ExecutionReport, finished
from research.mixture.plans import mixture_plan

N_EXPERTS = 3
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
PLANS = {
    "base": reference_plan(n_experts=N_EXPERTS),
    "member": member_plan(index=1, n_experts=N_EXPERTS),
    "mixture": mixture_plan(experts=(0, 2), n_experts=N_EXPERTS, shares=(0.3, 0.7)),
}


@dataclass(frozen=True)
class Reported:
    """An answer and the engine's report of it."""

    completion: Completion
    report: ExecutionReport


def generate_reported(engine: Engine, requests: Sequence[Request]) -> list[Reported]:
    """One answer per request, in order."""
    session = engine.open_session()
    return [Reported(c, session.report(r)) for r, c in finished(session, requests)]


def require_same_alone_and_in_a_batch(engine: Engine, plan: Plan) -> None:
    """A request with a seed has one answer, whatever else is in the batch."""
    request = Request("A cat", plan, replace(GREEDY, temperature=0.8), seed=3)
    others = [replace(request, prompt="Why?", seed=seed) for seed in (1, 2)]
    (alone,) = engine.generate([request])
    assert engine.generate([others[0], request, others[1]])[1].tokens == alone.tokens


def require_streamed_equals_whole(engine: Engine, plan: Plan) -> None:
    """The pieces of a stream are the whole answers, with the same tokens and finish."""
    requests = [Request(prompt, plan, GREEDY) for prompt in ("A cat", "Why?")]
    texts, tokens, ends = ["", ""], [[], []], ["", ""]
    for token in engine.stream(requests):
        texts[token.request] += token.text
        tokens[token.request].append(token.token)
        assert not ends[token.request]
        ends[token.request] = token.finish or ""
    for place, answer in enumerate(engine.generate(requests)):
        assert (texts[place], ends[place]) == (answer.text, answer.finish)
        assert tuple(tokens[place]) == answer.tokens
        assert len(answer.log_probs) == len(answer.tokens)


def require_alone_is_the_expert(engine: Engine) -> None:
    """A mixture with everything on one expert is that expert."""
    mixed = mixture_plan(experts=(0, 1), n_experts=N_EXPERTS, shares=(0.0, 1.0))
    own, alone = engine.generate([Request("A cat", p, GREEDY) for p in (mixed, PLANS["member"])])
    assert own.tokens == alone.tokens


def require_length_and_stops(engine: Engine, plan: Plan) -> None:
    """Answers end at `max_tokens`, or before a stop string."""
    requests = [Request(prompt, plan, GREEDY) for prompt in ("A cat", "Why?", "x", "Tell me", "So")]
    answers = zip(requests, engine.generate(requests), strict=True)
    request, whole = next((r, a) for r, a in answers if len(a.text) >= 3 and len(a.tokens) > 3)
    (short,) = engine.generate([replace(request, sampling=replace(GREEDY, max_tokens=3))])
    assert (short.tokens, short.finish) == (whole.tokens[:3], "length")
    stop = whole.text[2]
    sampling = replace(GREEDY, stop=(stop,))
    (stopped,) = engine.generate([replace(request, sampling=sampling)])
    assert (stopped.text, stopped.finish) == (whole.text[: whole.text.index(stop)], "stop")


def require_aborted_requests_are_silent(engine: Engine, plan: Plan) -> None:
    """An aborted request gives no more tokens; the others are answered as without it."""
    request = Request("A cat", plan, GREEDY)
    (expected,) = engine.generate([request])
    session = engine.open_session()
    aborted, running = (session.add_request(replace(request, seed=seed)) for seed in (0, 1))
    assert not session.is_idle
    session.abort_request(aborted)
    session.abort_request(aborted)  # twice is once
    while not session.is_idle:
        assert all(one is running for one, _ in session.step())
    assert tuple(running.tokens) == expected.tokens
    session.add_request(request)
    session.close()
    assert session.is_idle
    assert (session.n_running, session.n_rows) == (0, 0)


def require_engine(engine: Engine, plan: Plan) -> None:
    """All of these laws."""
    assert engine.name
    assert engine.max_num_seqs >= 1
    engine.require_ready()
    require_same_alone_and_in_a_batch(engine, plan)
    require_streamed_equals_whole(engine, plan)
    require_length_and_stops(engine, plan)
    require_aborted_requests_are_silent(engine, plan)
