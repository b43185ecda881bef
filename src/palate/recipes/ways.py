"""From what is known of a person to a plan, with the reason in words.

Each way is one paper's; all are plans for the same engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.plan import (
    Plan,
    coefficients_from_mapping,
    member_plan,
    mixture_plan,
    reference_plan,
)
from palate.core.types import Preference
from palate.experts.manifest import Manifest
from palate.recipes.palm_route import LibraryPortfolio
from palate.soup.coefficients import reward_space_coefficients, simplex_coefficients
from palate.soup.plans import soup_plan

Way = Literal["auto", "base", "portfolio", "soup", "output-soup", "mixture"]
MIN_SHARE = 1e-9  # experts with a smaller share of a mixture are not run


@dataclass(frozen=True)
class Asked:
    """What is known of a person.

    Attributes:
        way: How to answer.
        preference: Shares by objective, or `None`.
        coefficients: Coefficients by expert, or `None`; they go before a preference.
        strength: Multiplies the coefficients that follow from a preference: 0 is the base, 1 as
            trained, more is stronger.
    """

    way: Way = "auto"
    preference: Mapping[str, float] | None = None
    coefficients: Mapping[str, float] | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class Chosen:
    """A plan, and why.

    Attributes:
        plan: For the engine.
        way: The way that was taken.
        coefficients: By expert: row coefficients of a soup, pool shares of a mixture, one for a
            member.
        reason: One sentence.
    """

    plan: Plan
    way: Way
    coefficients: dict[str, float]
    reason: str


def choose(
    manifest: Manifest, asked: Asked, *, portfolio: LibraryPortfolio | None = None
) -> Chosen:
    """The plan for what is asked.

    Args:
        manifest: Of the library.
        asked: What is known of the person.
        portfolio: The library's certified members (`open_portfolio`), where it has them.

    Raises:
        InvalidInputError: the way is unknown, nothing is known of the person, or the library has no
            experts.
        InvalidPreferenceError: the preference is off the simplex or names an unknown objective.
        InvalidCoefficientsError: coefficients name an unknown expert or do not fit the way.
    """
    if asked.way not in get_args(Way):
        raise InvalidInputError(
            f"The way {asked.way!r} is unknown; use {', '.join(get_args(Way))}."
        )
    names = manifest.expert_names
    if asked.way == "base" or (asked.way == "auto" and not names):
        return Chosen(
            reference_plan(n_experts=len(names)), "base", {}, "One pass of the base, no expert."
        )
    if not names:
        raise InvalidInputError("There are no experts; build some, or use --way base.")
    if asked.preference is None and asked.coefficients is None:
        raise InvalidInputError(
            "Nothing is known of the person; give a preference or coefficients."
        )
    way: Way = "soup" if asked.way == "auto" else asked.way
    if way == "portfolio":
        if portfolio is not None:
            return _certified(manifest, asked, portfolio)
        return _member(manifest, asked)
    if way == "mixture":
        return _mixture(names, _shares(manifest, asked))
    values = _coefficients(manifest, asked)
    named = dict(zip(names, values.tolist(), strict=True))
    reason = "The coefficients were given." if asked.coefficients else _soup_reason(asked)
    return Chosen(soup_plan(values.tolist(), way=_soup_way(way)), way, named, reason)


def anchors(manifest: Manifest) -> Float[ndarray, "experts objectives"]:
    """What each expert was trained for."""
    return np.array([record.anchor.direction for record in manifest.experts])


def _coefficients(manifest: Manifest, asked: Asked) -> Float[ndarray, " experts"]:
    if asked.coefficients is not None:
        return np.array(
            coefficients_from_mapping(asked.coefficients, experts=manifest.expert_names)
        )
    wanted = _preference(manifest, asked)
    return asked.strength * reward_space_coefficients(wanted, anchors=anchors(manifest))


def _shares(manifest: Manifest, asked: Asked) -> Float[ndarray, " experts"]:
    """Shares of a mixture, which cannot subtract an expert as soups can."""
    if asked.coefficients is not None:
        return _coefficients(manifest, asked)
    return simplex_coefficients(_preference(manifest, asked), basis=anchors(manifest).T)


def _preference(manifest: Manifest, asked: Asked) -> Float[ndarray, " objectives"]:
    if asked.preference is None:
        raise InvalidInputError("This way needs a preference; give shares by objective.")
    return Preference.from_mapping(asked.preference, objectives=manifest.objective_names).vector()


def _certified(manifest: Manifest, asked: Asked, portfolio: LibraryPortfolio) -> Chosen:
    """The member that is worth most to the preference, and what the certificate says of it."""
    route = portfolio.route(_preference(manifest, asked))
    coefficients = dict(portfolio.policies[route.member].coefficients)
    return Chosen(route.plan, "portfolio", coefficients, portfolio.reason(route))


def _member(manifest: Manifest, asked: Asked) -> Chosen:
    """The expert whose anchor is closest to the preference in the L1 norm."""
    wanted = _preference(manifest, asked)
    distances = np.abs(anchors(manifest) - wanted).sum(axis=1)
    index = int(distances.argmin())
    name = manifest.expert_names[index]
    reason = (
        f"Expert {name!r} was trained for the closest anchor (L1 distance {distances[index]:.2f}); "
        "no certificate was read."
    )
    plan = member_plan(index=index, n_experts=len(manifest.experts))
    return Chosen(plan, "portfolio", {name: 1.0}, reason)


def _mixture(names: tuple[str, ...], values: Float[ndarray, " experts"]) -> Chosen:
    shares = np.where(np.abs(values) < MIN_SHARE, 0.0, values)
    if np.any(shares < 0) or shares.sum() <= 0:
        raise InvalidCoefficientsError(
            f"A mixture needs shares of zero or more, but has {values.round(4).tolist()}; use a "
            f"soup."
        )
    shares = shares / shares.sum()
    active = [int(k) for k in np.flatnonzero(shares)]
    plan = mixture_plan(
        experts=active, n_experts=len(names), shares=[float(shares[k]) for k in active]
    )
    named = {names[k]: float(shares[k]) for k in active}
    reason = "Fixed shares, the same at every token; no controller was used."
    return Chosen(plan.normal_form(), "mixture", named, reason)


def _soup_way(way: Way) -> Literal["soup", "output-soup"]:
    return "output-soup" if way == "output-soup" else "soup"


def _soup_reason(asked: Asked) -> str:
    return f"The anchors' combination equal to the preference, at strength {asked.strength:g}" + (
        ", in one pass of the model." if asked.way in ("auto", "soup") else "."
    )
