"""Exact tables and whole searches, as studies and tests need them."""

import numpy as np

from palate.core.types import PayoffTable
from palate.portfolio.adaptive import Oracle, Proposal, SearchSettings, steps
from palate.portfolio.payoffs import Payoffs, require_payoffs


def exact_payoffs(table: PayoffTable) -> Payoffs:
    """A table without level error, known optima or missing values."""
    n_objectives = len(table.objectives)
    payoffs = Payoffs(table, np.zeros(n_objectives), np.zeros((0, n_objectives)), np.zeros(0))
    require_payoffs(payoffs)
    return payoffs


def search(oracle: Oracle, settings: SearchSettings) -> Proposal:
    """The last state of `steps`."""
    states = steps(oracle, settings)
    state = next(states)
    for later in states:
        state = later
    return state
