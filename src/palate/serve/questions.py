"""`POST /v1/questions`: the two answers whose comparison tells most of a user.

Candidates are what the user would get now, the base's answer and the experts' own; of their
pairs, the one whose verdict is expected to tell most is asked (D-optimal). Experts write as they
were trained to, so candidates are whole texts that lie apart in just the directions that are
learned. Soups of tastes drawn from the belief, which explore without experts, serve only where
experts do not fill the places: on the small world they broke texts, and verdicts on broken texts
misled the belief (docs/log.md).
"""

import secrets
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from palate.core.decision import Decision, Known, Messages
from palate.core.protocols import SamplingParams
from palate.core.seeds import generator_for
from palate.core.types import Belief
from palate.library.features import features_of
from palate.preferences.questions import information_gains, verdict_information
from palate.serve.answers import Ask, begin_decided
from palate.serve.chat import plain
from palate.serve.disconnect import unless_gone
from palate.serve.errors import ApiError
from palate.serve.sampling import require_tokens
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.tokens import tokens
from palate.serve.wire.palate import PalateIn
from palate.serve.wire.users import AnswerOut, QuestionIn, QuestionOut
from palate.store.responses import Response, record_response

router = APIRouter(tags=["users"])


@router.post("/v1/questions")
async def ask(
    asked: QuestionIn, request: HttpRequest, served: Parts, caller: KnownCaller
) -> QuestionOut:
    """Two answers to this prompt that are most worth comparing for this user."""
    require_tokens(asked.max_tokens, served.settings)
    return await unless_gone(request, _asked(served, caller, asked))


async def _asked(served: Served, caller: KnownCaller, asked: QuestionIn) -> QuestionOut:
    seed = secrets.randbits(53) if asked.seed is None else asked.seed % 2**63
    store = served.store(caller.tenant)
    found = await served.in_database(lambda: store.belief(asked.user))
    belief = found if found is not None else served.believer.start()
    messages = plain(asked.messages)
    candidates = await run_in_threadpool(_candidates, served, messages, belief, seed)
    sampling = SamplingParams(
        temperature=1.0 if asked.temperature is None else asked.temperature,
        max_tokens=asked.max_tokens
        or min(served.settings.question_tokens, served.settings.max_tokens),
    )
    wanted = Ask(
        messages, "palate", PalateIn(user=asked.user), sampling, seed=seed, prefix="question"
    )
    answering = await begin_decided(served, caller, wanted, [d for _, d in candidates], seed=seed)
    async for _ in tokens(served, answering):
        pass
    running_requests = answering.answers
    texts = [running.text.text for running in running_requests]
    context, base, bank = running_requests[0].prompt, served.engine.base, served.engine.bank
    answers = [tuple(running.tokens) for running in running_requests]
    beta = served.library.manifest.beta
    features = await served.worker.call(
        lambda: features_of(base, bank, beta=beta, context=context, answers=answers)
    )
    first, second, gain = most_telling(belief, np.array(features), texts)
    pair = (first, second)
    response = Response(
        id=answering.id,
        user=asked.user,
        prompt=answering.prompt,
        shown=tuple(texts[k] for k in pair),
        features=tuple(tuple(features[k]) for k in pair),
        method="question",
        seed=seed,
        tokens=tuple(answers[k] for k in pair),
    )
    await served.in_database(
        lambda: record_response(served.database, response, tenant=caller.tenant)
    )
    return QuestionOut(
        response=answering.id,
        user=asked.user,
        answers=[AnswerOut(text=texts[k], source=candidates[k][0]) for k in pair],
        information_nats=gain,
        n_candidates=len(running_requests),
        seed=seed,
    )


def most_telling(
    belief: Belief, features: np.ndarray, texts: Sequence[str]
) -> tuple[int, int, float]:
    """The pair of different answers whose verdict tells most, and how much.

    Raises:
        ApiError: all answers are the same.
    """
    pairs = [(i, j) for i, j in combinations(range(len(texts)), 2) if texts[i] != texts[j]]
    if not pairs:
        raise ApiError(
            409,
            "All candidate answers are the same; raise the temperature or ask something else.",
            code="no_question",
        )
    differences = np.array([features[i] - features[j] for i, j in pairs])
    gains = information_gains(belief, differences, gain=belief.gain)
    best = int(gains.argmax())
    first, second = pairs[best]
    return first, second, verdict_information(belief, differences[best], gain=belief.gain)


def _candidates(
    served: Served, messages: Messages, belief: Belief, seed: int
) -> list[tuple[str, Decision]]:
    """What the user would get now, and what the base, experts and drawn tastes would write."""
    generator = generator_for(seed, "question")
    library, n_wanted = served.library, served.settings.n_candidates
    experts = list(library.manifest.expert_names)
    chosen = generator.permutation(len(experts))[: max(n_wanted - 2, 0)]
    named = [("now", library.soups.coefficients(belief)), ("base", dict.fromkeys(experts, 0.0))]
    named += [
        (experts[k], {name: float(name == experts[k]) for name in experts}) for k in sorted(chosen)
    ]
    n_seen = max(belief.n_observations, 1)  # a draw is a taste, though nothing was said yet
    for place in range(n_wanted - len(named)):
        draw = generator.multivariate_normal(belief.mean, belief.covariance, method="eigh")
        taste = Belief(draw, belief.covariance, n_seen)
        named.append((f"draw {place + 1}", library.soups.coefficients(taste)))
    return [
        (name, library.decide(messages, Known(coefficients=values), method="soup"))
        for name, values in named
    ]
