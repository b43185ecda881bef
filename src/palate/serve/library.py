"""`/v1/models`, `/v1/library`, `/v1/regret`: what is on offer, and what anybody loses by it."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from palate.core.errors import InvalidInputError
from palate.core.simplex import require_simplex
from palate.serve.answers import MODEL
from palate.serve.errors import ApiError
from palate.serve.state import Known, Parts, Served
from palate.serve.ways import points_of
from palate.serve.wire.chat import MAX_ANSWERS, ModelOut, ModelsOut
from palate.serve.wire.library import (
    ExpertOut,
    FloorOut,
    LibraryOut,
    LimitsOut,
    ObjectiveOut,
    PortfolioOut,
    RegretIn,
    RegretOut,
    RegretPoint,
)

router = APIRouter(tags=["library"])


@router.get("/v1/models")
async def models(served: Parts, caller: Known) -> ModelsOut:
    """Names that can be given as `model`: `palate` chooses a way, `palate/WAY` fixes it."""
    del caller
    names = [MODEL, *(f"{MODEL}/{way}" for way in served.ways.available if way != "auto")]
    return ModelsOut(data=[ModelOut(id=name, created=served.started_at) for name in names])


@router.get("/v1/library")
async def library(served: Parts, caller: Known) -> LibraryOut:
    """Objectives, experts, ways, the portfolio and its certificate, limits."""
    del caller
    offer, settings, floor = served.offer, served.settings, served.floor
    portfolio = served.ways.portfolio()
    return LibraryOut(
        base=offer.name,
        fingerprint=offer.fingerprint,
        beta=offer.beta,
        objectives=[
            ObjectiveOut(name=o.name, description=o.description, instruction=o.instruction)
            for o in offer.objectives
        ],
        experts=[ExpertOut(name=name, wanted=wanted) for name, wanted in offer.experts.items()],
        ways=list(served.ways.available),
        floor=None if floor is None else FloorOut(expert=floor.name, coefficient=floor.coefficient),
        portfolio=None if portfolio is None else PortfolioOut.model_validate(portfolio),
        limits=LimitsOut(
            max_tokens=settings.max_tokens,
            max_prompt_tokens=settings.max_prompt_tokens,
            max_answers=MAX_ANSWERS,
            max_body_bytes=settings.max_body_bytes,
            deadline_seconds=settings.deadline_seconds,
            requests_per_minute=settings.requests_per_minute,
        ),
        needs_key=served.has_keys,
    )


@router.post("/v1/regret")
async def regret(asked: RegretIn, served: Parts, caller: Known) -> RegretOut:
    """Which member serves each preference, and what that costs at most."""
    del caller
    if served.ways.portfolio() is None:
        raise ApiError(
            404,
            "The library has no portfolio.json; make one with `palate portfolio select`.",
            code="no_portfolio",
        )
    return await run_in_threadpool(_points, served, asked)


def _points(served: Served, asked: RegretIn) -> RegretOut:
    names = [objective.name for objective in served.offer.objectives]
    known = frozenset(names)
    for row in asked.preferences:
        unknown = [name for name in row if name not in known]
        if unknown:
            raise InvalidInputError(
                f"A preference names the unknown objective {unknown[0][:80]!r}; known are "
                f"{', '.join(names)}."
            )
    points = points_of(asked.preferences, objectives=names)
    for point in points:
        require_simplex(point)
    return RegretOut(
        points=[
            RegretPoint(member=one.member, loss=one.loss, value=one.value, margin=one.margin)
            for one in served.ways.certified(points)
        ]
    )
