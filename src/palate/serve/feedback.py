"""`POST /v1/feedback`: a user's verdicts on answers, on disk before they are acknowledged."""

import math
from dataclasses import replace
from typing import Annotated, cast

from fastapi import APIRouter, Header

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.types import Feedback, FeedbackKind
from palate.models.chat import encode_answer, encode_prompt
from palate.serve.answers import as_text
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.users import FeedbackIn, FeedbackOut
from palate.store.responses import Response, find_response, keep_features

router = APIRouter(tags=["users"])
LABELS: dict[int | str | None, float] = {0: 1.0, 1: 0.0, "tie": 0.5}  # 1 is for the first answer
KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,128}$")]


@router.post("/v1/feedback")
async def give(
    body: FeedbackIn, served: Parts, caller: KnownCaller, idempotency_key: KeyHeader = None
) -> FeedbackOut:
    """Keep the feedback and learn from it; the next answer uses the new belief."""
    if None not in (body.key, idempotency_key) and body.key != idempotency_key:
        message = "The key and the header Idempotency-Key differ; give one of them."
        raise ApiError(400, message, code="invalid_value", param="key")
    item = await _feedback_of(served, caller.tenant, body, key=body.key or idempotency_key or "")
    store = served.store(caller.tenant)
    try:
        is_new = await served.in_database(
            lambda: store.append(item, response=body.response), is_writing=True
        )
    except InvalidInputError as error:
        if "was used for other feedback" not in str(error):
            raise
        raise ApiError(409, str(error), code="key_reused", param="key") from error
    if is_new:
        for metrics in served.metrics_of(caller.tenant):
            metrics.feedback.labels(body.kind).inc()

    def read() -> FeedbackOut:
        belief = served.believer.out(
            store.belief(item.user), store.history(item.user), learner=store.learner_of(item.user)
        )
        return FeedbackOut(is_new=is_new, key=item.key, user=item.user, belief=belief)

    return await served.in_database(read)


async def _feedback_of(served: Served, tenant: str, body: FeedbackIn, *, key: str) -> Feedback:
    """The verdict with the features of what was shown."""
    response, answer = await _scored(served, tenant, body.response), body.answer or 0
    if body.kind == "rating":
        return response.feedback("rating", body.rating or 0.0, answer=answer, key=key)
    if body.kind in {"thumbs", "copy", "regenerate"}:
        typical = served.library.soups.basis.feature_means.tolist()
        kind = cast(FeedbackKind, body.kind)
        label = float(body.thumbs == "up" or body.kind == "copy")
        return response.feedback(kind, label, answer=answer, key=key, other=typical)
    if body.kind == "comment":
        key = key or f"{response.id}/comment/{hash_value(body.text)[:16]}"
        return Feedback(response.user, "comment", (), 0.0, group=body.text or "", key=key)
    if body.kind == "edit":
        return await _edited(served, response, body.text or "", answer=answer, key=key)
    label = LABELS[body.preferred]
    if body.against is None:
        return response.feedback("comparison", label, key=key)
    second = await _scored(served, tenant, body.against)
    is_same = response.user == second.user and response.prompt == second.prompt
    if not is_same or response.id == second.id:
        message = (
            "Two responses can be compared if they are different answers to one prompt of one user."
        )
        raise ApiError(400, message, code="invalid_value", param="against")
    key, other = key or f"{response.id}/{second.id}", second.features[0]
    return response.feedback("comparison", label, key=key, other=other)


async def _edited(
    served: Served, response: Response, text: str, *, answer: int, key: str
) -> Feedback:
    """The user's own text preferred to the answer that it corrects."""
    own = response.feedback("thumbs", 1.0, answer=answer, key=key or f"{response.id}/edit/{answer}")
    base, context = served.library.base, encode_prompt(served.library.base, response.prompt)
    tokens = encode_answer(base, response.prompt, str(as_text(served, text)), is_ended=True)
    is_long = len(context) + len(tokens) > (base.n_positions or math.inf)
    if is_long or text in response.shown or not response.tokens:
        message = (
            f"The text corrects no answer, is one as it was shown, or its {len(tokens)} tokens are "
            "more than the base can read; send how the answer should have been."
        )
        raise ApiError(400, message, code="invalid_value", param="text")
    (features,) = await served.worker.call(lambda: served.library.features(context, [tokens]))
    difference = tuple(a - b for a, b in zip(features, own.features, strict=True))
    return replace(own, kind="comparison", features=difference)


async def _scored(served: Served, tenant: str, identifier: str) -> Response:
    """The response with its features, which are computed when they are first needed."""
    response = await served.read(find_response, identifier=identifier, tenant=tenant)
    if response is None:
        message = (
            f"The response {identifier!r} is not known; only answers to a named user can be judged."
        )
        raise ApiError(404, message, code="response_not_found", param="response")
    library, tokens, store = served.library, response.tokens, served.store(tenant)
    if response.features and (store.has_all(response.features[0]) or not tokens):
        response.features = tuple(map(store.from_stored, response.features))
        return response
    features = await served.worker.call(
        lambda: library.features(encode_prompt(library.base, response.prompt), tokens)
    )
    stored = [store.to_stored(row) for row in features]
    await served.write(keep_features, identifier=identifier, features=stored)
    response.features = tuple(tuple(row) for row in features)
    return response
