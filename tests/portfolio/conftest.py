"""The exact cases and small random problems."""

from tabular_problems import (  # noqa: F401  pytest finds fixtures by name
    case_problem,
    grid_case,
    small_problem,
    tabular_case,
)
