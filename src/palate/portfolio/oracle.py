"""Oracles: a preference becomes a policy, and policies become a payoff table.

An oracle may train an adapter, pool several experts log-linearly, average parameters, or solve a
small problem exactly. All policies of a table are measured on the same prompts, so their errors are
paired. An oracle that has the policy already returns its name at once, which is how an interrupted
search resumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from palate.portfolio.payoffs import Payoffs
from palate.portfolio.shapes import ByObjective


class Oracle(Protocol):
    """Makes policies and prices them."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the order of a preference's shares."""
        ...

    def policy(self, preference: ByObjective) -> str:
        """Name of the policy for this preference; the same preference gives the same name."""
        ...

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """What these policies are worth, measured together; preferences filled in."""
        ...


@dataclass
class Ledger:
    """An oracle with a record of its calls; a repeated preference is no new call."""

    oracle: Oracle
    calls: list[tuple[float, ...]] = field(default_factory=list)  # preferences, each once
    names: list[str] = field(default_factory=list)  # their policies

    @property
    def objectives(self) -> tuple[str, ...]:
        """The oracle's objectives."""
        return self.oracle.objectives

    def policy(self, preference: ByObjective) -> str:
        """The oracle's policy for a preference."""
        key = tuple(float(share) for share in np.round(preference, 12))
        if key in self.calls:
            return self.names[self.calls.index(key)]
        name = self.oracle.policy(preference)
        self.calls.append(key)
        self.names.append(name)
        return name

    def payoffs(self, policies: Sequence[str] | None = None) -> Payoffs:
        """The oracle's payoffs for these policies, or for all recorded ones."""
        return self.oracle.payoffs(self.names if policies is None else policies)
