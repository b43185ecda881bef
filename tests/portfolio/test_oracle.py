import numpy as np

from palate.portfolio.adaptive import Ledger
from research.portfolio.tabular import TabularOracle


def test_the_ledger_counts_each_preference_once(case_problem):
    ledger = Ledger(TabularOracle(case_problem))
    first = ledger.policy(np.array([1.0, 0.0, 0.0]))
    assert ledger.policy(np.array([1.0, 1e-14, 0.0])) == first
    ledger.policy(np.array([0.0, 1.0, 0.0]))
    assert len(ledger.calls) == 2
    assert ledger.payoffs().table.policies == tuple(ledger.names)
    assert ledger.objectives == ("o1", "o2", "o3")
