"""From files to files: select members from a payoff file, certify them, route a preference.

Works on plain JSON alone, so it serves users who train their policies elsewhere.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from palate.core.simplex import vector_from_mapping
from palate.portfolio.certificate import loss_sentence
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.payoff_file import load_payoffs
from palate.portfolio.record import Record, load_record, save_record
from palate.portfolio.route import Route, UncertainRoute, router_from_record
from palate.portfolio.shapes import Users
from palate.portfolio.terms import Terms


def select(
    payoff_file: Path,
    *,
    request: PortfolioRequest,
    terms: Terms,
    users: Path | None = None,
    report_on: Path | None = None,
    out: Path | None = None,
) -> Record:
    """Choose members from a payoff file, certify them, and write the record.

    `users` is JSONL of `{"objective": share, ...}`, whom a mean is over (by default a lattice);
    `report_on` a payoff file of the same policies on other prompts, for the certificate; `out` is
    where the record is written.

    Raises:
        InvalidInputError: a file, a number or a combination is not usable.
        NotCertifiedError: the table does not carry what is requested.
    """
    payoffs = load_payoffs(payoff_file)
    if users is not None:
        listed = _preferences(users, payoffs.table.objectives, what="users file")
        request = replace(request, users=listed)
    report = None if report_on is None else load_payoffs(report_on)
    record = choose(payoffs, request=request, terms=terms, report=report)
    if out is not None:
        save_record(out, record)
    return record


def route(portfolio_file: Path, *, preference: Mapping[str, float]) -> Route:
    """The member that serves a preference."""
    record = load_record(portfolio_file)
    objectives = record.payoffs.table.objectives
    return router_from_record(record).route(vector_from_mapping(preference, objectives=objectives))


def route_uncertain(portfolio_file: Path, *, draws: Path) -> UncertainRoute:
    """The member that serves a belief, given as JSONL of equally likely preferences."""
    record = load_record(portfolio_file)
    points = _preferences(draws, record.payoffs.table.objectives, what="file of draws")
    return router_from_record(record).route_uncertain(points)


def summary(record: Record) -> dict[str, Any]:
    """A record for print; the gaps are `None` where nothing can be compared."""
    certified = record.certified
    certificate = certified.certificate
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
        "worst_share_preference": certified.worst_share_preference
        and list(certified.worst_share_preference),
        "confidence": certificate.confidence,
        "kind": certificate.kind,
        "size_bound": certified.size_bound,
        "size_needed": certified.size_needed,
        "refused": list(record.refused),
        "offset": record.terms.offset,
        "selection": dict(record.selection),
        "assumptions": [*certificate.assumptions, *notes],
    }


def _preferences(path: Path, objectives: tuple[str, ...], *, what: str) -> Users:
    rows = read_jsonl(path, what=what)
    if not rows:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty.")
    return np.array([vector_from_mapping(row, objectives=objectives) for row in rows])
