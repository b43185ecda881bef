"""What is offered, what it costs and gains, and what users lose by it at most."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from palate.core.decision import MAX_CANDIDATES, Known
from palate.core.errors import InvalidInputError
from palate.core.simplex import vector_from_mapping
from palate.library.portfolio import LibraryPortfolio
from palate.serve.answers import model_names, unknown_model
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire import library as wire
from palate.serve.wire.chat import MAX_ANSWERS, ModelOut, ModelsOut
from palate.serve.wire.palate import UtilityOut
from palate.training.save import CARD

router = APIRouter(tags=["library"])


@router.get("/v1/models")
async def models(served: Parts, caller: KnownCaller) -> ModelsOut:
    """Names that can be given as `model`: `palate` takes `method`, `palate/METHOD` fixes it."""
    del caller
    return ModelsOut(object="list", data=_models(served))


@router.get("/v1/models/{name:path}")
async def model(name: str, served: Parts, caller: KnownCaller) -> ModelOut:
    """One of them."""
    del caller
    for model in _models(served):
        if model["id"] == name:
            return model
    raise unknown_model(name)


def _models(served: Served) -> list[ModelOut]:
    created, names = served.started_at, model_names(served.methods)
    return [ModelOut(id=n, object="model", created=created, owned_by="palate") for n in names]


@router.get("/v1/library")
async def library(served: Parts, caller: KnownCaller) -> wire.LibraryOut:
    """Objectives, experts, methods, the portfolio and its certificate, limits."""
    del caller
    manifest, settings = served.library.manifest, served.settings
    floor, portfolio = served.library.floor, served.library.portfolio
    folders = served.library.files.expert_folders()
    return wire.LibraryOut(
        base=_shown_base(manifest.base.path),
        fingerprint=served.fingerprint,
        beta=manifest.beta,
        objectives=list(manifest.objectives),
        experts=[
            wire.ExpertOut(
                name=record.anchor.name,
                wanted=dict(zip(manifest.objective_names, record.anchor.direction, strict=True)),
                size_bytes=sum(p.stat().st_size for p in folders[record.anchor.name].iterdir()),
                card="".join(p.read_text("utf-8") for p in folders[record.anchor.name].glob(CARD)),
            )
            for record in manifest.experts
        ],
        methods=list(served.methods),
        floor=None
        if floor is None
        else wire.FloorOut(expert=floor.name, coefficient=floor.coefficient),
        portfolio=None if portfolio is None else _portfolio(portfolio),
        limits=wire.LimitsOut(
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
async def regret(body: wire.RegretIn, served: Parts, caller: KnownCaller) -> wire.RegretOut:
    """Which member serves each preference, and what that costs at most."""
    del caller
    portfolio = served.library.portfolio
    if portfolio is None:
        message = "The library has no portfolio.json; make one with `palate portfolio select`."
        raise ApiError(404, message, code="no_portfolio")
    names = served.library.manifest.objective_names
    return await run_in_threadpool(_points, names, portfolio, body)


def _points(
    names: Sequence[str], portfolio: LibraryPortfolio, body: wire.RegretIn
) -> wire.RegretOut:
    points = [vector_from_mapping(p, objectives=names) for p in body.preferences]
    routes = [portfolio.router.route(point) for point in points]
    return wire.RegretOut(
        points=[
            wire.RegretPoint(
                member=route.member,
                loss=route.loss,
                value=route.value,
                margin=route.margin if np.isfinite(route.margin) else None,
            )
            for route in routes
        ]
    )


@router.post("/v1/methods")
async def methods(body: wire.MethodsIn, served: Parts, caller: KnownCaller) -> wire.MethodsOut:
    """What each method costs and is predicted to gain, for each preference."""
    del caller
    table = served.library.method_table
    points = await run_in_threadpool(lambda: [[*_costs(served, p)] for p in body.preferences])
    return wire.MethodsOut(
        points=points,
        n_prompts=0 if table is None else table.n_prompts,
        self_judged=[] if table is None else list(table.self_judged),
    )


def _costs(served: Served, preference: Mapping[str, float]) -> Iterator[wire.MethodOut]:
    """Each method's decision in short; those that cannot serve this preference are left out."""
    vector_from_mapping(preference, objectives=served.library.manifest.objective_names)
    for name in served.methods:
        with suppress(InvalidInputError):
            decision = served.library.decide("", Known(preference=preference), method=name)
            gain = decision.predicted_utility
            yield wire.MethodOut(
                method=name,
                decides=decision.method,
                n_candidates=decision.n_candidates,
                n_passes=decision.n_passes,
                predicted_utility=gain
                and UtilityOut(estimate=gain.estimate, low=gain.low, high=gain.high),
            )


def _portfolio(portfolio: LibraryPortfolio) -> wire.PortfolioOut:
    """Members and certificate."""
    record, certificate = portfolio.record, portfolio.record.certified.certificate
    objectives = record.payoffs.table.objectives
    values = record.certified.lower_values.tolist()
    return wire.PortfolioOut(
        members=[
            wire.MemberOut(
                name=name,
                coefficients=dict(portfolio.policies[name].coefficients),
                values=dict(zip(objectives, row, strict=True)),
            )
            for name, row in zip(record.members, values, strict=True)
        ],
        certificate=wire.CertificateOut(
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
    """A hub id as it is; of a folder only the name, since its path is nobody else's business."""
    return Path(path).name if Path(path).is_absolute() else path
