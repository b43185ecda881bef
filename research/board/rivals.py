"""Rivals that need no training: methods that decide with what `palate` gives everybody.

| name | what it is |
|---|---|
| examples@N | the user's first N comparisons in the system prompt, and nothing else |
| rewarded-soup | mean of the experts' parameters, shares of sum one (Rame et al. 2023) |
| mod | log-linear pool of the experts, no reference (Shi et al. 2024) |
| portfolio-K | the certified choice of K members from the library's payoff table |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library
from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.files import read_json
from palate.core.plan import Plan, parameter_soup_plan
from palate.portfolio.choice import PortfolioRequest, choose
from palate.portfolio.record import Record
from palate.soup.plans import mod_plan, reward_space_coefficients, rewarded_soup_plan
from research.board.comparisons import Comparison

SHOWN_CHARACTERS = 160  # of each text of a comparison in a prompt
HEADER = "Answer as this user likes it. The user preferred these answers to others:"


@dataclass(frozen=True)
class Examples:
    """A system prompt that holds the user's comparisons."""

    name: str
    text: str

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The base's plan under the comparisons."""
        plain = library.methods["base"].decide(library, messages, known)
        prompted = with_instruction(messages, self.text)
        reason = "One pass of the base, the user's comparisons in the prompt."
        return Decision(prompted, plain.plan, self.name, reason=reason)


def examples_text(own: Sequence[Comparison]) -> str:
    """The comparisons as a prompt holds them, each text cut after `SHOWN_CHARACTERS`."""
    parts = [HEADER]
    for one in own:
        question, good, bad = (
            _cut(text) for text in (one.chosen.prompt, one.chosen.text, one.rejected.text)
        )
        parts.append(f"Question: {question}\nPreferred: {good}\nNot preferred: {bad}")
    return "\n\n".join(parts)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARACTERS else f"{flat[:SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class Shares:
    """A mean over the experts with the stated shares."""

    name: str
    plan: Callable[[Sequence[float]], Plan]  # of coefficients of sum one

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The plan of the preference's shares.

        Raises:
            InvalidInputError: no preference is known, or no expert is trained for what is wanted.
        """
        shares = _shares(library, known)
        plan = self.plan(shares.tolist())
        named = dict(zip(library.require_experts(), shares.tolist(), strict=True))
        return Decision(messages, plan, self.name, named, reason="The preference's own shares.")


RIVALS = (Shares("rewarded-soup", rewarded_soup_plan), Shares("mod", mod_plan))


def _shares(library: Library, known: Known) -> Float[ndarray, " experts"]:
    wanted = library.preference(known)
    if wanted is None:
        raise InvalidInputError("No preference is known, which a mean of experts needs.")
    values = np.maximum(reward_space_coefficients(wanted, anchors=library.anchors), 0.0)
    if values.sum() <= 0:
        raise InvalidInputError("No expert of the library is trained for what the user wants.")
    return values / values.sum()


@dataclass(frozen=True, eq=False)
class FewMembers:
    """Of a few members, the one that is worth most to the user by the payoff table."""

    name: str
    members: tuple[str, ...]
    values: Float[ndarray, "members objectives"]
    plans: tuple[Plan, ...]

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The member's plan.

        Raises:
            InvalidInputError: no preference is known.
        """
        wanted = library.preference(known)
        if wanted is None:
            raise InvalidInputError("No preference is known, which a portfolio routes by.")
        best = int(np.argmax(self.values @ wanted))
        reason = f"Of {len(self.members)} members {self.members[best]!r} is worth most."
        named = {self.members[best]: 1.0}
        return Decision(messages, self.plans[best], self.name, named, reason=reason)


def portfolio_of(library: Library, size: int) -> FewMembers:
    """The best portfolio of so many members of the library's payoff table.

    Raises:
        InvalidInputError: the library has no portfolio, or its table has fewer policies.
    """
    if library.portfolio is None:
        raise InvalidInputError("The library has no portfolio, so none of another size is chosen.")
    record: Record = library.portfolio.record
    names = record.payoffs.table.policies
    if size > len(names):
        raise InvalidInputError(
            f"The library's payoff table has {len(names)} policies, fewer than {size} members."
        )
    chosen = _members(record, size)
    places = [names.index(name) for name in chosen]
    plans = tuple(_plan(library, name) for name in chosen)
    return FewMembers(f"portfolio-{size}", chosen, record.payoffs.table.values[places], plans)


def _members(record: Record, size: int) -> tuple[str, ...]:
    """All policies where so many are wanted, else those that lose any user least."""
    names = record.payoffs.table.policies
    if size == len(names):
        return tuple(names)
    try:
        return choose(
            record.payoffs, request=PortfolioRequest(size=size), terms=record.terms
        ).members
    except NotCertifiedError as error:
        raise InvalidInputError(f"No portfolio of {size} members can be chosen: {error}") from error


def _plan(library: Library, name: str) -> Plan:
    """A policy's plan: from its file in the library's folder, or the expert of that name."""
    experts = library.require_experts()
    path: Path = library.files.folder / "policies" / f"{name}.json"
    named: dict[str, Any] = {name: 1.0} if name in experts else {}
    if path.is_file():
        named = read_json(path, what="policy")["coefficients"]
    elif not named and name != "base":
        raise InvalidInputError(
            f"The library's portfolio has the policy {name!r}, but {str(path)!r} does not exist; "
            "select the portfolio anew."
        )
    return parameter_soup_plan([float(named.get(expert, 0.0)) for expert in experts])
