"""`POST /v1/feedback`: what a user said of answers, kept before it is acknowledged."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Header

from palate.core.errors import InvalidInputError
from palate.core.types import Feedback
from palate.library.features import features_of
from palate.models.chat import encode_prompt
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.users import FeedbackIn, FeedbackOut
from palate.store.responses import Response, find_response, keep_features

router = APIRouter(tags=["users"])
LABELS = {0: 1.0, 1: 0.0, "tie": 0.5}  # of a comparison: 1 is for the first answer
KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,128}$")]


@router.post("/v1/feedback")
async def give(
    asked: FeedbackIn, served: Parts, caller: KnownCaller, idempotency_key: KeyHeader = None
) -> FeedbackOut:
    """Keep the feedback and learn from it; the next answer uses the new belief."""
    shown = await scored(served, caller.tenant, asked.response)
    key = asked.key or idempotency_key or ""
    if asked.kind == "comparison" and asked.against is not None:
        other = await scored(served, caller.tenant, asked.against)
        item = _across(shown, other, label=_label(asked), key=key)
    else:
        item = shown.feedback(asked.kind, _label(asked), answer=asked.answer or 0, key=key)
        if asked.kind == "thumbs":
            usual = served.believer.basis.feature_means
            centred = np.array(item.features) - usual
            item = replace(item, features=tuple(centred.tolist()))
    store = served.store(caller.tenant)
    try:
        is_new = await served.in_database(lambda: store.append(item))
    except InvalidInputError as error:
        if "was used for other feedback" not in str(error):
            raise
        raise ApiError(409, str(error), code="key_reused", param="key") from error
    belief = await served.in_database(lambda: store.belief(item.user))
    if is_new:
        served.metrics.feedback.labels(asked.kind).inc()
    found = belief if belief is not None else served.believer.start()
    return FeedbackOut(
        is_new=is_new,
        user=item.user,
        belief=await served.in_database(
            lambda: served.believer.out(found, lambda: store.history(item.user))
        ),
    )


async def scored(served: Served, tenant: str, identifier: str) -> Response:
    """The response with its features; they are computed when first needed.

    Raises:
        ApiError: the tenant has no such response.
    """
    found = await served.in_database(
        lambda: find_response(served.database, identifier, tenant=tenant)
    )
    if found is None:
        raise ApiError(
            404,
            f"The response {identifier!r} is not known; only answers to a named user can be "
            "judged.",
            code="response_not_found",
            param="response",
        )
    if found.features:
        return found
    features = await served.worker.call(lambda: _features(served, found))
    await served.in_database(lambda: keep_features(served.database, identifier, features))
    return replace(found, features=tuple(tuple(row) for row in features))


def _features(served: Served, response: Response) -> list[list[float]]:
    engine = served.engine
    return features_of(
        engine.base,
        engine.bank,
        beta=served.library.manifest.beta,
        context=encode_prompt(engine.base, response.prompt),
        answers=response.tokens,
    )


def _across(first: Response, second: Response, *, label: float, key: str) -> Feedback:
    """A comparison of the first answers of two responses.

    Raises:
        ApiError: they are of different users or prompts, or the same.
    """
    is_same = first.user == second.user and first.prompt == second.prompt
    if not is_same or first.id == second.id:
        raise ApiError(
            400,
            "Two responses can be compared if they are different answers to one prompt of one "
            "user.",
            code="invalid_value",
            param="against",
        )
    pairs = zip(first.features[0], second.features[0], strict=True)
    return Feedback(
        user=first.user,
        kind="comparison",
        features=tuple(a - b for a, b in pairs),
        label=label,
        key=key or f"{first.id}/{second.id}",
    )


def _label(asked: FeedbackIn) -> float:
    if asked.kind == "comparison" and asked.preferred is not None:
        return LABELS[asked.preferred]
    if asked.kind == "thumbs":
        return float(asked.thumbs == "up")
    return float(asked.rating or 0.0)
