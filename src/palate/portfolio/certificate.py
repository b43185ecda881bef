"""Certificate: what users lose at most by having only these members.

It is a bound for every user where a ceiling on all policies is known (`worst-case`), and relative
to the listed policies otherwise (`candidate-relative`). It is computed from the payoff table, the
members and the terms alone, so anybody who has the three can compute it again. It bounds the loss
of every preference in the simplex at once, includes the table's sampling error, and carries its
proof: the row that the worst placed user would rather have and a mixture of members (see
`palate.portfolio.gap`).

Source: PALM, arXiv 2604.04144; palm.md P4, P9, P14.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.core.errors import InvalidInputError
from palate.core.types import Certificate
from palate.portfolio.gap import additive_gap, least_best_value, multiplicative_gap
from palate.portfolio.grid import size_bound, size_needed
from palate.portfolio.payoffs import Payoffs, require_payoffs, shifted
from palate.portfolio.shapes import ByMember, ByObjective, MemberValues, RowValues
from palate.portfolio.terms import Comparison, Terms, compare

NOTHING_KNOWN = "nothing is known beyond the listed policies"
VACUOUS = 1e-15  # a gap below this is zero


@dataclass(frozen=True, eq=False)
class Certified:
    """A certificate with its proof and its context; the proof is `None` without a gap."""

    certificate: Certificate
    worst_share_preference: tuple[float, ...] | None  # where the multiplicative gap is attained
    instead: ByObjective | None  # what the worst placed user would rather have
    mixture: ByMember | None
    """No user loses more to `instead` than the largest of `instead - mixture @ lower_values`."""
    lower_values: MemberValues  # at least, offset included
    size_bound: int | None
    """Members that are always enough for this additive gap, with rewards in [0, 1] and policies
    optimal for their preferences; candidate-relative, at most the whole table."""
    size_needed: int | None  # that some problems need for this multiplicative gap, where known


def certify(payoffs: Payoffs, *, members: Sequence[int], terms: Terms) -> Certified:
    """The certificate of a portfolio.

    Where only the listed policies are compared and every one of them is a member, there is nothing
    to compare with: the certificate then has no gap, which is not a gap of zero. Sampled values are
    bounded with the terms' confidence.

    Raises:
        InvalidInputError: the table or the members are not usable.
        NotCertifiedError: the terms' slack has nothing to stand on.
    """
    _require_members(members, payoffs=payoffs)
    require_payoffs(payoffs)
    moved = shifted(payoffs, terms.offset)
    return certify_compared(moved, members=members, comparison=compare(moved, terms))


def certify_compared(
    moved: Payoffs, *, members: Sequence[int], comparison: Comparison
) -> Certified:
    """As `certify`, for a table whose offset is in and whose comparison is there; not checked."""
    lower = comparison.lower[list(members)]
    rows = alternatives(comparison, members=members)
    if not len(rows):
        return _nothing_known(moved, lower=lower, comparison=comparison)
    absolute = additive_gap(members=lower, rows=rows)
    share = multiplicative_gap(members=lower - comparison.level, rows=rows - comparison.level)
    losses, shares, worst = _listed_losses(moved, lower=lower, comparison=comparison)
    value = _clean(max(absolute.value, *losses))
    sentences = _assumptions(moved, comparison, has_programs=absolute.rule == "programs")
    if share is None:
        sentences += (no_share_sentence(least_best_value(lower - comparison.level)),)
    epsilon = None if share is None else _clean(max(share.value, *shares))
    is_listed_worse = max(losses) > absolute.value
    size = size_bound(n_objectives=moved.n_objectives, beta=moved.table.beta, gap=value)
    if comparison.kind == "candidate-relative":
        size = min(size or moved.n_policies, moved.n_policies)
    return Certified(
        certificate=Certificate(
            additive_gap=value,
            multiplicative_gap=epsilon,
            worst_preference=tuple((worst if is_listed_worse else absolute.preference).tolist()),
            confidence=comparison.confidence,
            kind=comparison.kind,
            assumptions=sentences,
        ),
        worst_share_preference=None if share is None else tuple(share.preference.tolist()),
        instead=rows[absolute.row],
        mixture=absolute.mixture,
        lower_values=lower,
        size_bound=size,
        size_needed=None
        if epsilon is None
        else size_needed(n_objectives=moved.n_objectives, epsilon=epsilon),
    )


def alternatives(comparison: Comparison, *, members: Sequence[int]) -> RowValues:
    """What users could have instead: the ceiling, or every policy that is no member.

    A member's own width is no loss to itself, so without a ceiling members are left out; with all
    policies as members no row is left.
    """
    if comparison.ceiling is not None:
        return comparison.ceiling
    others = np.setdiff1d(np.arange(len(comparison.lower)), list(members))
    return comparison.bounds.upper[others]


def loss_sentence(certificate: Certificate, *, n_policies: int) -> str:
    """What users lose at most, in words: every user only where all policies are bounded."""
    if certificate.additive_gap is None:
        return f"{NOTHING_KNOWN} (all {n_policies} of them are members)"
    if certificate.kind == "worst-case":
        subject = "nobody loses more than"
    else:
        subject = f"relative to the {n_policies} listed policies, a user loses at most"
    share = certificate.multiplicative_gap
    also = "" if share is None else f", or {share:.2%} of the best"
    return f"{subject} {certificate.additive_gap:.6f}{also} (confidence {certificate.confidence:g})"


def no_share_sentence(least: float) -> str:
    """Why there is no multiplicative gap: the best member is worth `least` to some user."""
    return (
        "There is no multiplicative gap, because the best member may be worth less than nothing "
        f"({least:.4g}) to some user; an offset of {-least:.4g} for all rewards would give one."
    )


def _nothing_known(payoffs: Payoffs, *, lower: MemberValues, comparison: Comparison) -> Certified:
    """The certificate of a portfolio of all listed policies, where no other policy is bounded."""
    certificate = Certificate(
        additive_gap=None,
        multiplicative_gap=None,
        worst_preference=(),
        confidence=comparison.confidence,
        kind=comparison.kind,
        assumptions=(
            *_assumptions(payoffs, comparison, has_programs=False),
            f"Every listed policy is a member, so {NOTHING_KNOWN}.",
        ),
    )
    return Certified(certificate, None, None, None, lower, None, None)


def _listed_losses(
    payoffs: Payoffs, *, lower: MemberValues, comparison: Comparison
) -> tuple[list[float], list[float], ByObjective]:
    """Losses, shares and the worst preference at listed optima that carry no ceiling."""
    if comparison.ceiling is not None or not len(payoffs.optimum_values):
        return [0.0], [0.0], np.zeros(payoffs.n_objectives)
    heights = payoffs.optimum_values + payoffs.optimum_preferences @ comparison.level
    losses = heights - (payoffs.optimum_preferences @ lower.T).max(axis=1)
    shares = losses / np.maximum(payoffs.optimum_values, 1e-300)
    worst = payoffs.optimum_preferences[int(np.argmax(losses))]
    return [0.0, *losses.tolist()], [0.0, *shares.tolist()], worst


def _assumptions(
    payoffs: Payoffs, comparison: Comparison, *, has_programs: bool
) -> tuple[str, ...]:
    sentences = [
        "A user with preference w values a policy at w @ V, with V = R - beta KL and one beta "
        f"({payoffs.table.beta:g}) for all.",
        *comparison.caveats,
    ]
    if comparison.bounds.n_intervals:
        sentences.append(
            "Prompts are independent draws from what users ask and averages over them are normal; "
            f"{comparison.bounds.n_intervals} intervals hold together with probability "
            f"{comparison.bounds.confidence:g}."
        )
    if np.any(np.isnan(payoffs.table.values)):
        sentences.append("Rewards that were not measured lie anywhere in their range.")
    if has_programs:
        sentences.append(
            "The corner preferences are too many to list, so one linear program per row was solved."
        )
    return tuple(sentences)


def _clean(value: float) -> float:
    return float(value) if value > VACUOUS else 0.0


def _require_members(members: Sequence[int], *, payoffs: Payoffs) -> None:
    if not members or len(set(members)) != len(members):
        raise InvalidInputError(
            f"The members {list(members)} must be at least one and all different."
        )
    if not all(0 <= member < payoffs.n_policies for member in members):
        raise InvalidInputError(
            f"The members {list(members)} name a policy beyond the table's {payoffs.n_policies}."
        )
