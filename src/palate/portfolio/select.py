"""The story of a portfolio: a payoff file, a wish, a certificate that can be checked, a route.

Works on plain JSON alone, so it serves users who train their policies elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from palate.core.simplex import vector_from_mapping
from palate.portfolio.certificate import loss_sentence
from palate.portfolio.choice import Wish, choose
from palate.portfolio.everybody import Criterion
from palate.portfolio.payoff_file import load_payoffs
from palate.portfolio.record import Record, load_record, save_record, verify_record
from palate.portfolio.route import Route, UncertainRoute, router_from_record
from palate.portfolio.selection import Aim, Cost
from palate.portfolio.terms import Terms


@dataclass(frozen=True, kw_only=True)
class SelectRequest:
    """What `palate portfolio select` is asked for.

    Attributes:
        size: Exactly so many members, or `None` for a tolerance.
        epsilon: Multiplicative tolerance.
        delta: Additive tolerance, in reward units.
        aim: Whose loss counts when the size is given.
        share: Of the worst case in a blend.
        users: JSONL of `{"objective": share, ...}`, who a mean is over; `None` takes a lattice.
        report_on: Payoff file of the same policies on other prompts, for the certificate.
        terms: What is assumed.
    """

    size: int | None = None
    epsilon: float = 0.0
    delta: float = 0.0
    aim: Aim = "worst"
    share: float = 0.5
    users: Path | None = None
    report_on: Path | None = None
    terms: Terms = field(default_factory=Terms)


def select(payoff_file: Path, *, out: Path | None, request: SelectRequest) -> Record:
    """Choose members from a payoff file, certify them, and write the record.

    Raises:
        InvalidInputError: a file, a number or a combination is not usable.
        NotCertifiedError: the table does not carry what is asked for.
    """
    payoffs = load_payoffs(payoff_file)
    users = None
    if request.users is not None:
        rows = read_jsonl(request.users, what="users file")
        objectives = payoffs.table.objectives
        if not rows:
            raise InvalidInputError(f"The users file {str(request.users)!r} is empty.")
        users = np.array([vector_from_mapping(row, objectives=objectives) for row in rows])
    wish = Wish(
        size=request.size,
        epsilon=request.epsilon,
        delta=request.delta,
        cost=Cost(aim=request.aim, share=request.share),
        users=users,
    )
    report = None if request.report_on is None else load_payoffs(request.report_on)
    record = choose(payoffs, wish=wish, terms=request.terms, report=report)
    if out is not None:
        save_record(out, record)
    return record


def verify(portfolio_file: Path) -> Record:
    """The record, if every number in it follows from the table it holds.

    Raises:
        CheckFailedError: something was altered.
    """
    return verify_record(portfolio_file)


def route(portfolio_file: Path, *, preference: Mapping[str, float]) -> Route:
    """The member that serves a preference."""
    record = load_record(portfolio_file)
    objectives = record.payoffs.table.objectives
    return router_from_record(record).route(vector_from_mapping(preference, objectives=objectives))


def route_uncertain(portfolio_file: Path, *, draws: Path) -> UncertainRoute:
    """The member that serves a belief, given as JSONL of equally likely preferences."""
    record = load_record(portfolio_file)
    objectives = record.payoffs.table.objectives
    rows = [
        vector_from_mapping(row, objectives=objectives)
        for row in read_jsonl(draws, what="file of draws")
    ]
    return router_from_record(record).route_uncertain(np.array(rows))


def summary(record: Record) -> dict[str, Any]:
    """What a command prints of a record; the gaps are `None` where nothing can be compared."""
    certificate = record.certified.certificate
    n_policies = record.payoffs.n_policies
    notes: list[str] = record.selection.get("notes", [])
    return {
        "statement": loss_sentence(certificate, n_policies=n_policies),
        "members": list(record.members),
        "size": len(record.members),
        "n_policies": n_policies,
        "additive_gap": certificate.additive_gap,
        "multiplicative_gap": certificate.multiplicative_gap,
        "worst_preference": list(certificate.worst_preference),
        "worst_share_preference": record.certified.worst_share_preference
        and list(record.certified.worst_share_preference),
        "confidence": certificate.confidence,
        "kind": certificate.kind,
        "size_bound": record.certified.size_bound,
        "size_needed": record.certified.size_needed,
        "refused": list(record.refused),
        "offset": record.terms.offset,
        "selection": dict(record.selection),
        "assumptions": [*certificate.assumptions, *notes],
    }


def require_criterion(text: str) -> Criterion:
    """The criterion with this name.

    Raises:
        InvalidInputError: there is none.
    """
    if text == "additive":
        return "additive"
    if text == "multiplicative":
        return "multiplicative"
    raise InvalidInputError(f"The gap {text!r} is unknown; use additive or multiplicative.")


def require_aim(text: str) -> Aim:
    """The aim with this name.

    Raises:
        InvalidInputError: there is none.
    """
    aims: dict[str, Aim] = {"worst": "worst", "mean": "mean", "blend": "blend"}
    if text not in aims:
        raise InvalidInputError(f"The aim {text!r} is unknown; use {', '.join(aims)}.")
    return aims[text]
