import pytest

from palate.build.run_file import PortfolioSettings
from palate.core.errors import InvalidInputError
from palate.portfolio.grid import ratio_grid, ratio_grid_size


def test_the_grid_of_two_objectives_is_affordable_by_default():
    settings = PortfolioSettings(search="grid")
    epsilon, delta = settings.grid_tolerances(2)
    grid = ratio_grid(n_objectives=2, epsilon=epsilon, delta=delta)
    assert epsilon == delta < 1.0
    assert 2 <= len(grid) <= settings.max_policies
    finer = ratio_grid_size(n_objectives=2, epsilon=epsilon - 0.001, delta=delta - 0.001)
    assert finer > settings.max_policies  # as tight as the budget allows


def test_the_grid_of_three_objectives_is_affordable_or_says_what_it_needs():
    with pytest.raises(InvalidInputError, match=r"has 37 preferences, more than .*max_policies=14"):
        PortfolioSettings(search="grid").grid_tolerances(3)
    allowed = PortfolioSettings(search="grid", max_policies=37)
    epsilon, delta = allowed.grid_tolerances(3)
    assert ratio_grid_size(n_objectives=3, epsilon=epsilon, delta=delta) <= 37


def test_tolerances_that_are_given_are_kept():
    assert PortfolioSettings(epsilon=0.5, delta=0.25).grid_tolerances(3) == (0.5, 0.25)
    epsilon, delta = PortfolioSettings(epsilon=0.9, max_policies=37).grid_tolerances(3)
    assert epsilon == 0.9
    assert 0.0 < delta < 1.0
