"""Routing: from a preference to the member that serves it, as a plan.

The member with the largest value `w @ V_k` serves; with sampled values, the one that is worth most
at least. A user who is only known by a belief is served as their mean preference: value is linear
in the preference, so no other member has a larger expected value. The functions from files to files
work on plain JSON alone, so they serve users who train their policies elsewhere.

Source: palm.md 3.4 (route) and P11.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from palate.core.plan import Plan, member_plan
from palate.core.simplex import require_simplex, vector_from_mapping
from palate.portfolio.certificate import alternatives, loss_sentence
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.payoff_file import load_payoffs
from palate.portfolio.payoffs import shifted
from palate.portfolio.record import Record, load_record, save_record
from palate.portfolio.shapes import ByObjective, MemberValues, RowValues, Users
from palate.portfolio.terms import Terms, compare


@dataclass(frozen=True)
class Route:
    """Which member serves a user, and what that costs them, in reward units."""

    member: str
    plan: Plan
    value: float  # worth at least, up to the level error that all policies have in common
    margin: float  # over the second best member; infinite with one member
    loss: float | None
    """At most, by the certificate's comparison; `None` where every listed policy is a member and
    nothing is known beyond them."""


@dataclass(frozen=True)
class UncertainRoute:
    """Which member serves a user who is known by draws of their preference."""

    route: Route  # of the mean preference
    expected_loss: float | None  # mean over the draws, at most; `None` like the route's loss
    avoidable_loss: float  # mean over the draws of what knowing the preference would save


@dataclass(frozen=True, eq=False)
class Router:
    """Routes preferences among fixed members; every number is computed beforehand."""

    names: tuple[str, ...]
    plans: tuple[Plan, ...]
    values: MemberValues  # at least
    alternatives: RowValues  # instead, at most; no rows: nothing is known

    def member(self, preference: ByObjective) -> int:
        """Index of the member that serves a preference of the simplex; not checked, for speed."""
        return int((self.values @ preference).argmax())

    def plan(self, preference: ByObjective) -> Plan:
        """The plan that serves a preference of the simplex; not checked, for speed."""
        return self.plans[self.member(preference)]

    def route(self, preference: ByObjective) -> Route:
        """The member that serves a preference, with its numbers.

        Raises:
            InvalidPreferenceError: the preference is off the simplex or of another length.
        """
        point = self._checked(preference)
        worth = self.values @ point
        best = int(worth.argmax())
        others = np.delete(worth, best)
        return Route(
            member=self.names[best],
            plan=self.plans[best],
            value=float(worth[best]),
            margin=float(worth[best] - others.max()) if len(others) else float("inf"),
            loss=max(0.0, float((self.alternatives @ point).max() - worth[best]))
            if len(self.alternatives)
            else None,
        )

    def route_uncertain(self, draws: Float[np.ndarray, "draws objectives"]) -> UncertainRoute:
        """The member that serves equally likely preferences best on average.

        Raises:
            InvalidPreferenceError: a draw is off the simplex or of another length.
        """
        if len(draws) == 0:
            raise InvalidInputError("A belief needs at least one drawn preference.")
        points = np.array([self._checked(draw) for draw in draws])
        route = self.route(points.mean(axis=0))
        worth = points @ self.values.T
        own = worth[:, self.names.index(route.member)]
        best = worth.max(axis=1)
        most = np.maximum((points @ self.alternatives.T).max(axis=1, initial=-np.inf), best)
        return UncertainRoute(
            route=route,
            expected_loss=float(np.mean(most - own)) if len(self.alternatives) else None,
            avoidable_loss=float(np.mean(best - own)),
        )

    def _checked(self, preference: ByObjective) -> ByObjective:
        point = require_simplex(preference)
        if len(point) != self.values.shape[1]:
            raise InvalidInputError(
                f"The preference has {len(point)} shares for {self.values.shape[1]} objectives."
            )
        return point


def router_from_record(record: Record, *, plans: Mapping[str, Plan] | None = None) -> Router:
    """The router of a stored portfolio.

    `plans` say how each member is run; without them members are the experts of a bank, in the
    record's order.

    Raises:
        InvalidInputError: a member has no plan.
    """
    names = record.members
    if plans is None:
        plans = {name: member_plan(index=k, n_experts=len(names)) for k, name in enumerate(names)}
    missing = [name for name in names if name not in plans]
    if missing:
        raise InvalidInputError(f"The member {missing[0]!r} has no plan; say how it is run.")
    comparison = compare(shifted(record.payoffs, record.terms.offset), record.terms)
    return Router(
        names=names,
        plans=tuple(plans[name] for name in names),
        values=record.certified.lower_values,
        alternatives=alternatives(comparison, members=record.indices()),
    )


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
