"""`/v1/models`, `/v1/library`, `/v1/regret`: what is on offer, and what anybody loses by it."""

from pathlib import Path

import numpy as np
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from palate.core.decision import MAX_CANDIDATES
from palate.core.errors import InvalidInputError
from palate.core.simplex import require_simplex
from palate.library.portfolio import LibraryPortfolio
from palate.serve.errors import ApiError
from palate.serve.model_names import model_names
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.chat import MAX_ANSWERS, ModelOut, ModelsOut
from palate.serve.wire.library import (
    CertificateOut,
    ExpertOut,
    FloorOut,
    LibraryOut,
    LimitsOut,
    MemberOut,
    ObjectiveOut,
    PortfolioOut,
    RegretIn,
    RegretOut,
    RegretPoint,
)

router = APIRouter(tags=["library"])


@router.get("/v1/models")
async def models(served: Parts, caller: KnownCaller) -> ModelsOut:
    """Names that can be given as `model`: `palate` takes `method`, `palate/METHOD` fixes it."""
    del caller
    names = model_names(served.methods)
    return ModelsOut(data=[ModelOut(id=name, created=served.started_at) for name in names])


@router.get("/v1/library")
async def library(served: Parts, caller: KnownCaller) -> LibraryOut:
    """Objectives, experts, methods, the portfolio and its certificate, limits."""
    del caller
    manifest, settings = served.library.manifest, served.settings
    floor, portfolio = served.library.floor, served.library.portfolio
    return LibraryOut(
        base=_shown_base(manifest.base.path),
        fingerprint=served.fingerprint,
        beta=manifest.beta,
        objectives=[
            ObjectiveOut(name=o.name, description=o.description, instruction=o.instruction)
            for o in manifest.objectives
        ],
        experts=[
            ExpertOut(
                name=record.anchor.name,
                wanted=dict(zip(manifest.objective_names, record.anchor.direction, strict=True)),
            )
            for record in manifest.experts
        ],
        methods=list(served.methods),
        floor=None if floor is None else FloorOut(expert=floor.name, coefficient=floor.coefficient),
        portfolio=None if portfolio is None else _portfolio(portfolio),
        limits=LimitsOut(
            max_tokens=settings.max_tokens,
            max_prompt_tokens=settings.max_prompt_tokens,
            max_answers=MAX_ANSWERS,
            max_candidates=MAX_CANDIDATES,
            max_body_bytes=settings.max_body_bytes,
            deadline_seconds=settings.deadline_seconds,
            requests_per_minute=settings.requests_per_minute,
        ),
        needs_key=served.has_keys,
    )


@router.post("/v1/regret")
async def regret(asked: RegretIn, served: Parts, caller: KnownCaller) -> RegretOut:
    """Which member serves each preference, and what that costs at most."""
    del caller
    portfolio = served.library.portfolio
    if portfolio is None:
        raise ApiError(
            404,
            "The library has no portfolio.json; make one with `palate portfolio select`.",
            code="no_portfolio",
        )
    return await run_in_threadpool(_points, served, portfolio, asked)


def _points(served: Served, portfolio: LibraryPortfolio, asked: RegretIn) -> RegretOut:
    names = served.library.manifest.objective_names
    known = frozenset(names)
    for row in asked.preferences:
        unknown = [name for name in row if name not in known]
        if unknown:
            raise InvalidInputError(
                f"A preference names the unknown objective {unknown[0][:80]!r}; known are "
                f"{', '.join(names)}."
            )
    points = np.array([[row.get(name, 0.0) for name in names] for row in asked.preferences])
    for point in points:
        require_simplex(point)
    routes = [portfolio.route(point) for point in points]
    return RegretOut(
        points=[
            RegretPoint(
                member=route.member,
                loss=route.loss,
                value=route.value,
                margin=route.margin if np.isfinite(route.margin) else None,
            )
            for route in routes
        ]
    )


def _portfolio(portfolio: LibraryPortfolio) -> PortfolioOut:
    """Members and certificate."""
    record, certificate = portfolio.record, portfolio.record.certified.certificate
    objectives = record.payoffs.table.objectives
    values = record.certified.lower_values.tolist()
    return PortfolioOut(
        members=[
            MemberOut(name=name, values=dict(zip(objectives, row, strict=True)))
            for name, row in zip(record.members, values, strict=True)
        ],
        certificate=CertificateOut(
            additive_gap=certificate.additive_gap,
            multiplicative_gap=certificate.multiplicative_gap,
            # empty without a gap
            worst_preference=dict(zip(objectives, certificate.worst_preference, strict=False)),
            confidence=certificate.confidence,
            kind=certificate.kind,
            assumptions=list(certificate.assumptions),
        ),
    )


def _shown_base(path: str) -> str:
    """A hub id as it is; of a folder the last part, since the rest is the server's own affair."""
    return Path(path).name if Path(path).is_absolute() else path
