"""`POST /v1/questions`: the two answers whose comparison is most informative about a user.

Candidates are the answer that the user would get now, the base's and the experts' own; of their
pairs, the one whose verdict has the largest expected information is asked (D-optimal). Experts
write as they were trained to, so candidates are whole texts that lie apart in just the directions
that are learned. Soups sampled from the belief, which explore without experts, serve only where
experts do not fill the places: on the small world they broke texts, and verdicts on broken texts
misled the belief (docs/log.md).

Where the request allows it and an answer in words tells more than the best pair, an objective and
its opposite are put in words instead. A user is taken to name a pole with log-odds of `NAMED` for
each prior deviation that the preference is from indifference: an assumption, not a measurement.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from palate.core.decision import Decision, Known, Messages
from palate.core.protocols import Request
from palate.core.seeds import generator_for
from palate.core.types import Belief, Objective
from palate.metrics.diversity import distinct_n
from palate.preferences.questions import information_gains, verdict_information
from palate.serve.answers import Answering, as_text, new_id, require_tokens, seed_of, submit
from palate.serve.errors import ApiError
from palate.serve.respond import unless_disconnected
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.tokens import tokens
from palate.serve.wire.chat import plain
from palate.serve.wire.users import AnswerOut, QuestionIn, QuestionOut
from palate.store.responses import Response, record_response

CIRCLING = 0.6  # different pairs of words among all; 2 % of the base's answers have fewer
NAMED = 2.0  # log-odds; one deviation away, 88 % name that pole
router = APIRouter(tags=["users"])


@router.post("/v1/questions")
async def ask(
    body: QuestionIn, request: HttpRequest, served: Parts, caller: KnownCaller
) -> QuestionOut:
    """Two answers to this prompt that are most worth comparing for this user."""
    require_tokens(body.max_tokens, served.settings)
    return await unless_disconnected(request, _question(served, caller.tenant, body))


async def _question(served: Served, tenant: str, body: QuestionIn) -> QuestionOut:
    seed, messages, settings = seed_of(body.seed), plain(body.messages), served.settings
    messages = as_text(served, messages)
    number = await served.admit(tenant, body.user)
    store = served.store(tenant)
    start, after = served.believer.learner.start, served.believer.apply_after
    known, stored = await served.in_database(lambda: store.known(body.user, apply_after=after))
    belief, known = stored or start, replace(known, belief=known.belief or start)
    candidates = await run_in_threadpool(_candidates, served, messages, known, belief, seed)
    decisions = [decision for _, decision in candidates]
    answering = Answering(
        new_id("question"), tenant, body.user, number, messages, decisions[0], seed
    )
    own = served.library.sampling
    sampling = replace(
        own,
        temperature=own.temperature if body.temperature is None else body.temperature,
        max_tokens=body.max_tokens or min(settings.question_tokens, settings.max_tokens),
    )
    await submit(served, answering, decisions, Request("", decisions[0].plan, sampling))
    async for _ in tokens(served, answering):
        pass
    running = answering.answers
    texts = [one.text.text for one in running]
    ids = [tuple(one.tokens) for one in running]
    features = await served.worker.call(lambda: served.library.features(running[0].prompt, ids))
    *pair, gain = most_informative(belief, np.array(features), texts)
    answers = [AnswerOut(text=texts[k], source=candidates[k][0]) for k in pair]
    rows, tokens_of, kind = [features[k] for k in pair], tuple(ids[k] for k in pair), "answers"
    history = await served.in_database(lambda: store.history(body.user)) if body.words else []
    for poles, feature in _in_words(served) if body.words else ():
        nats = verdict_information(belief, np.array(feature), gain=belief.gain)
        if nats > gain and feature not in [item.features for item in history]:
            gain, rows, tokens_of, kind = nats, [feature, [0.0] * len(feature)], (), "words"
            answers = [AnswerOut(text=text, source=name) for name, text in poles]
    response = Response(
        id=answering.id,
        user=body.user,
        prompt=answering.prompt,
        shown=tuple(answer["text"] for answer in answers),
        features=tuple(map(store.to_stored, rows)),
        method="question",
        seed=seed,
        tokens=tokens_of,
    )
    await served.write(record_response, response=response, tenant=tenant, number=number)
    return QuestionOut(
        response=answering.id,
        user=body.user,
        kind=kind,
        answers=answers,
        now=texts[0],
        information_nats=gain,
        n_candidates=len(texts),
        seed=seed,
    )


def _in_words(served: Served) -> list[tuple[list[tuple[str, str]], tuple[float, ...]]]:
    """Objectives with their opposites, name and sentence each, and what naming the first tells."""
    learner, basis = served.believer.learner, served.library.soups.basis
    objectives = {one.name: one for one in served.library.manifest.objectives}
    axes = dict(zip(objectives, basis.anchors.T, strict=True))
    questions: dict[frozenset[str], tuple[list[tuple[str, str]], tuple[float, ...]]] = {}
    for one in objectives.values():
        axis = axes[one.name] - axes.get(one.opposite, 0.0)
        spread = learner.settings.gain * np.sqrt(axis @ learner.prior.covariance @ axis)
        if one.opposite and spread > 0:  # once for two that are each other's opposite
            poles = [objectives.get(name, Objective(name)) for name in (one.name, one.opposite)]
            texts = [
                (pole.name, pole.instruction or pole.description or pole.name) for pole in poles
            ]
            feature = tuple((NAMED / spread * axis).tolist())
            questions.setdefault(frozenset({one.name, one.opposite}), (texts, feature))
    return list(questions.values())


def most_informative(
    belief: Belief, features: np.ndarray, texts: Sequence[str]
) -> tuple[int, int, float]:
    """The most informative pair of different answers, and what its verdict tells, nats.

    `features` are `[answers, experts]`. Answers that go round in circles lie far from the others,
    but a verdict on them is about that: they are left out where two others differ.

    Raises:
        ApiError: all answers are the same.
    """
    pairs = [(i, j) for i, j in combinations(range(len(texts)), 2) if texts[i] != texts[j]]
    circling = {k for k, text in enumerate(texts) if distinct_n([text.split()], n=2) < CIRCLING}
    pairs = [pair for pair in pairs if not circling & set(pair)] or pairs
    if not pairs:
        message = "All candidate answers are the same; raise the temperature or ask something else."
        raise ApiError(409, message, code="no_question")
    differences = np.array([features[i] - features[j] for i, j in pairs])
    best = int(information_gains(belief, differences, gain=belief.gain).argmax())
    return *pairs[best], verdict_information(belief, differences[best], gain=belief.gain)


def _candidates(
    served: Served, messages: Messages, known: Known, belief: Belief, seed: int
) -> list[tuple[str, Decision]]:
    """What the user would get now, and what the base, experts and sampled soups would write."""
    generator = generator_for(seed, "question")
    library, n_candidates = served.library, served.settings.n_candidates
    experts = list(library.manifest.expert_names)
    places = generator.permutation(len(experts))[: max(n_candidates - 2, 0)]
    now = dict(zip(experts, library.coefficients(known)[0].tolist(), strict=True))
    named = [("now", now), ("base", dict.fromkeys(experts, 0.0))]
    named += [
        (experts[k], {name: float(name == experts[k]) for name in experts}) for k in sorted(places)
    ]
    n_items = max(belief.n_observations, 1)  # without feedback a belief is served as the base
    for place in range(n_candidates - len(named)):
        sample = generator.multivariate_normal(belief.mean, belief.covariance, method="eigh")
        soup = library.soups.coefficients(Belief(sample, belief.covariance, n_items))
        named.append((f"draw {place + 1}", soup))
    return [
        (name, library.decide(messages, Known(coefficients=values), method="soup"))
        for name, values in named
    ]
