"""`POST /v1/feedback`: a user's verdicts on answers, on disk before they are acknowledged."""

from typing import Annotated

from fastapi import APIRouter, Header

from palate.core.errors import InvalidInputError
from palate.core.types import Feedback
from palate.models.chat import encode_prompt
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
    response = await _scored(served, tenant, body.response)
    if body.kind == "rating":
        return response.feedback("rating", body.rating or 0.0, answer=body.answer or 0, key=key)
    if body.kind == "thumbs":
        typical = served.library.soups.basis.feature_means.tolist()
        label, answer = float(body.thumbs == "up"), body.answer or 0
        return response.feedback("thumbs", label, answer=answer, key=key, other=typical)
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
