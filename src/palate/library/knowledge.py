"""From what is known of a user to what methods use: shares, coefficients, instruction, ranking."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
from jaxtyping import Float

from palate.core.decision import MAX_CANDIDATES, Decision, Known
from palate.core.errors import InvalidInputError
from palate.core.plan import coefficients_from_mapping
from palate.core.seeds import generator_for
from palate.core.simplex import vector_from_mapping
from palate.core.types import Belief
from palate.soup.plans import reward_space_coefficients

if TYPE_CHECKING:
    from palate.library.library import Library


class KnownOf(Protocol):
    """A store of users, for a library."""

    def known(self, user: str) -> Known:
        """All that is known of a user."""
        ...


class KnownFields(TypedDict, total=False):
    """Keywords of a call: the fields of `Known`, or a user of a store."""

    preference: Mapping[str, float] | None
    coefficients: Mapping[str, float] | None
    belief: Belief | None
    instruction: str | None
    strength: float | None
    max_passes: float | None
    user: str | None
    store: KnownOf | None


CLEAR = 1e-9  # shares below are zero
N_DRAWS = 64  # samples of a belief
CLEAR_SHARE = 0.2  # objectives with less than this part of the largest share are not put into words


def known_from(fields: KnownFields) -> Known:
    """The record behind a call's keywords; they go before what a store knows.

    Raises:
        InvalidInputError: a user is named without a store, or a store without a user.
    """
    stated = dict(fields)
    user, store = stated.pop("user", None), fields.get("store")
    stated.pop("store", None)
    if (user is None) != (store is None):
        raise InvalidInputError(
            "A user is looked up in a store; give both `user` and `store`, or neither."
        )
    given = Known(**{name: value for name, value in stated.items() if value is not None})  # type: ignore[arg-type]
    return given if user is None or store is None else merged(given, store.known(str(user)))


def merged(given: Known, stored: Known) -> Known:
    """A request's `Known` completed by a store's; the same at every door.

    A preference, coefficients or a belief in the request go before those that are stored, and its
    instruction before the stored one.
    """
    is_stated = not (given.preference is None and given.coefficients is None)
    source = given if is_stated or given.belief is not None else stored
    return replace(
        given,
        preference=source.preference,
        coefficients=source.coefficients,
        belief=source.belief,
        instruction=given.instruction or stored.instruction,
    )


def require_known(library: "Library", known: Known) -> None:
    """Return when everything that is known fits the library.

    Raises:
        InvalidInputError: a number is out of range.
        InvalidPreferenceError: the preference is off the simplex or names an unknown objective.
        InvalidCoefficientsError: coefficients name an unknown expert.
    """
    manifest = library.manifest
    if known.preference is not None:
        vector_from_mapping(known.preference, objectives=manifest.objective_names)
    if known.coefficients is not None:
        coefficients_from_mapping(known.coefficients, experts=manifest.expert_names)
    if known.strength is not None and not 0.0 <= known.strength < np.inf:
        raise InvalidInputError(
            f"The strength {known.strength} is out of range; use a number of 0 or more."
        )
    if known.max_passes is not None and not known.max_passes >= 1.0:
        raise InvalidInputError(
            f"The limit of {known.max_passes} passes a token is out of range; use 1 or more."
        )


def require_candidates(n: int | None) -> None:
    """Return when the number of candidates is in range or `None`; InvalidInputError where not."""
    if n is not None and not 1 <= n <= MAX_CANDIDATES:
        raise InvalidInputError(
            f"The number of candidates {n} is out of range; use 1 to {MAX_CANDIDATES}."
        )


def settled(known: Known | None) -> Known:
    """The record without fields that do not count: coefficients go before preference and belief.

    An instruction of blanks is none.
    """
    known = known or Known()
    if known.coefficients is not None:
        known = replace(known, preference=None, belief=None)
    return replace(known, instruction=(known.instruction or "").strip() or None)


def preference_of(library: "Library", known: Known) -> Float[np.ndarray, " objectives"] | None:
    """`[objectives]`: the stated preference, or that of coefficients or a belief, if any."""
    if known.coefficients is not None:
        names = library.manifest.expert_names
        given = np.array(coefficients_from_mapping(known.coefficients, experts=names))
        wanted = np.maximum(library.anchors.T @ given, 0.0)
        return wanted / wanted.sum() if wanted.sum() > CLEAR else None
    named = known.preference
    if named is None and known.belief is not None and library.manifest.experts:
        named = library.soups.preference(known.belief)
    if named is None:
        return None
    return vector_from_mapping(named, objectives=library.manifest.objective_names)


def preference_draws(
    library: "Library", known: Known
) -> Float[np.ndarray, "draws objectives"] | None:
    """`[draws, objectives]`: the stated preference alone, or draws from the belief.

    A draw of coefficients becomes the preference that its anchors add up to, clipped at zero. The
    draws depend on the belief alone. `None` where neither is known.
    """
    if known.preference is None and known.belief is not None and library.manifest.experts:
        return belief_draws(known.belief, anchors=library.anchors)
    shares = preference_of(library, known)
    return None if shares is None else shares[None, :]


def belief_draws(
    belief: Belief, *, anchors: Float[np.ndarray, "experts objectives"], n_draws: int = N_DRAWS
) -> Float[np.ndarray, "draws objectives"]:
    """`[draws, objectives]`: preferences drawn from a belief over coefficients."""
    generator = generator_for(0, "preference draws")
    draws = generator.multivariate_normal(
        belief.mean, belief.covariance, size=n_draws, method="eigh"
    )
    wanted = np.maximum(draws @ anchors, 0.0)
    totals = wanted.sum(axis=1, keepdims=True)
    even = np.full_like(wanted, 1.0 / wanted.shape[1])
    return np.where(totals > CLEAR, wanted / np.maximum(totals, CLEAR), even)


def coefficients_of(library: "Library", known: Known) -> tuple[Float[np.ndarray, " experts"], str]:
    """`[experts]`: coefficients of a soup, and their source in a sentence.

    Given coefficients go before a stated preference, and that before a belief.

    Raises:
        InvalidInputError: there are no experts, or too little is known of the user.
    """
    names = library.require_experts()
    if known.coefficients is not None:
        given = coefficients_from_mapping(known.coefficients, experts=names)
        return np.array(given), "The coefficients were given."
    if known.preference is not None:
        objectives = library.manifest.objective_names
        wanted = vector_from_mapping(known.preference, objectives=objectives)
        strength = library.strength if known.strength is None else known.strength
        reason = f"The anchors' combination equal to the preference, at strength {strength:g}."
        return strength * reward_space_coefficients(wanted, anchors=library.anchors), reason
    if known.belief is not None:
        learned = library.soups.soup(known.belief).coefficients
        words = "own words and any feedback" if known.instruction else "feedback"
        return learned, f"The coefficients were learned from the user's {words}."
    raise InvalidInputError(
        "Nothing is known of the user that a soup could follow; give a preference, coefficients "
        "or feedback."
    )


def instruction_of(library: "Library", known: Known) -> str:
    """The user's own instruction, or the sentences of the objectives of their preference.

    Objectives with less than a fifth of the largest share are left out, since a sentence does not
    say how large its share is. Empty where nothing is known.
    """
    if known.instruction:
        return known.instruction.strip()
    shares = preference_of(library, known)
    if shares is None or not shares.size or shares.max() <= 0:
        return ""
    sentences = [
        library.manifest.objectives[k].instruction
        for k in np.argsort(-shares, kind="stable")
        if shares[k] > 0 and shares[k] >= CLEAR_SHARE * shares.max()
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def ranked(library: "Library", decision: Decision, known: Known) -> Decision:
    """The decision with its candidates' ranking; InvalidInputError where nothing gives one."""
    if decision.n_candidates == 1 or decision.ranking or decision.learned_ranking:
        return decision
    if known.preference is not None:
        rewards = library.manifest.rewards
        missing = [name for name in library.manifest.objective_names if name not in rewards]
        if missing:
            raise InvalidInputError(
                f"The library {library.files.folder.name!r} has no reward for {missing[0]!r}, so "
                "answers cannot be ranked; build it again, or ask for one candidate."
            )
        return replace(decision, ranking=dict(known.preference))
    learned = known.coefficients
    if learned is None and known.belief is not None:
        names = library.manifest.expert_names
        learned = dict(zip(names, known.belief.mean.tolist(), strict=True))
    if learned is None:
        raise InvalidInputError(
            "Best of n ranks answers by the user's preference; give a preference, coefficients or "
            "feedback, or ask for one candidate."
        )
    return replace(decision, learned_ranking=dict(learned))


def can_serve(library: "Library", method: str) -> bool:
    """Whether the library has the part that the method of this name needs, if it needs any."""
    own: Any = library.methods.get(method)
    return not hasattr(own, "can_serve") or own.can_serve(library)


def part_key(library: "Library", method: str) -> str:
    """Hash of the part of the library that only this method reads; empty if there is none."""
    own: Any = library.methods.get(method)
    return own.part_key(library.files) if hasattr(own, "part_key") else ""


def predicted(library: "Library", decision: Decision, known: Known) -> Decision:
    """The decision with its method's measured utility.

    Given coefficients, strengths, instructions, other numbers of candidates were not measured.
    """
    table = library.method_table
    own = (known.coefficients, known.strength, known.instruction)
    utility = None
    if table is not None and all(value is None for value in own):
        row = table.row(decision.method, n_candidates=decision.n_candidates)
        draws = preference_draws(library, known)
        utility = None if row is None or draws is None else table.expected(row, draws)
    if utility is None and decision.predicted_utility is None:
        return decision
    return replace(decision, predicted_utility=utility)
