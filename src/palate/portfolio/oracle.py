"""Oracles: who turns an anchor preference into a policy, and who prices policies.

The searches know nothing of how a policy comes about. An oracle may train an adapter, decode from
several experts with log-linear coefficients, average parameters, or solve a small problem exactly;
to a search it is a name for a preference and a payoff table for names. Because the table is asked
for as a whole, its values are measured on the same prompts and its standard errors are paired; and
because a policy is a name, an oracle that finds it already made returns it at once, which is how
an interrupted search resumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.portfolio.payoffs import Payoffs


class Oracle(Protocol):
    """Makes policies and prices them."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the order of a preference's shares."""
        ...

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """Name of the policy made for this preference; the same preference, the same name."""
        ...

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """What these policies are worth, measured together; preferences filled in."""
        ...


@dataclass
class Ledger:
    """An oracle that writes down what it is asked for; repeated preferences are not new calls.

    Attributes:
        oracle: Who does the work.
        calls: Preferences asked for, in order, each once.
        names: The policies made for them.
    """

    oracle: Oracle
    calls: list[tuple[float, ...]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The oracle's objectives."""
        return self.oracle.objectives

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """The oracle's policy; a new one is written down."""
        key = tuple(float(share) for share in np.round(preference, 12))
        if key in self.calls:
            return self.names[self.calls.index(key)]
        name = self.oracle.policy(preference)
        self.calls.append(key)
        self.names.append(name)
        return name

    def payoffs(self, policies: Sequence[str] = ()) -> Payoffs:
        """The oracle's payoffs, of everything written down unless names are given."""
        return self.oracle.payoffs(policies or self.names)
