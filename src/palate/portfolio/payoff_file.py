"""Payoff files: the table as plain JSON, so that policies may come from anywhere.

    {"objectives": ["a", "b"], "beta": 0.1,
     "policies": [{"name": "p", "values": [0.7, null], "stderr": [0.01, 0.01] | null,
                   "kl": 1.3 | null, "preference": [0.5, 0.5] | null}],
     "optimum": [{"preference": [1, 0], "value": 0.8}] | null,
     "level_stderr": [0.02, 0.02] | null, "reward_range": [0, 1] | null,
     "slacks": [0.01, null] | null, "slack_confidence": 0.975 | null}

The last four keys may be left out. A value of `null` was not measured, a slack of `null` is
unknown. Unknown keys are errors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, Field

from palate.core.errors import InvalidInputError
from palate.core.files import read_json, reading, write_json
from palate.core.settings import Settings
from palate.core.simplex import require_simplex
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Payoffs, require_payoffs
from palate.portfolio.shapes import ByObjective, PolicyValues

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Numbers = list[Number | None]


class _Policy(Settings):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    name: str
    values: Numbers
    stderr: Numbers | None = None
    kl: Number | None = None
    preference: list[Number] | None = None


class _Optimum(Settings):
    preference: list[Number]
    value: Number


class _Table(Settings):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    objectives: Annotated[list[str], Field(min_length=1)]
    beta: Number
    policies: Annotated[list[_Policy], Field(min_length=1)]
    optimum: list[_Optimum] | None = None
    level_stderr: Numbers | None = None
    reward_range: tuple[Number, Number] | None = None
    slacks: Numbers | None = None
    slack_confidence: Number | None = None


def load_payoffs(path: Path) -> Payoffs:
    """The payoffs in a file.

    Raises:
        InvalidInputError: missing, not JSON, or not a usable table.
    """
    content = read_json(path, what="payoff file")
    with reading(path):
        return parse_payoffs(content)


def save_payoffs(path: Path, payoffs: Payoffs) -> None:
    """Write the payoffs as plain JSON, atomically."""
    write_json(path, render_payoffs(payoffs))


def render_payoffs(payoffs: Payoffs) -> dict[str, Any]:
    """The payoffs as plain data; `parse_payoffs` gives them back."""
    table = payoffs.table
    content: dict[str, Any] = {
        "objectives": list(table.objectives),
        "beta": table.beta,
        "policies": [
            {
                "name": name,
                "values": _or_null(table.values[index]),
                "stderr": _unless_zero(table.standard_errors[index]),
                "kl": None if np.isnan(table.kl[index]) else float(table.kl[index]),
                "preference": None
                if np.any(np.isnan(table.preferences[index]))
                else table.preferences[index].tolist(),
            }
            for index, name in enumerate(table.policies)
        ],
        "optimum": [
            {"preference": preference.tolist(), "value": float(value)}
            for preference, value in zip(
                payoffs.optimum_preferences, payoffs.optimum_values, strict=True
            )
        ]
        or None,
        "level_stderr": _unless_zero(payoffs.level_errors),
        "reward_range": None if payoffs.reward_range is None else list(payoffs.reward_range),
    }
    if payoffs.slacks is not None:
        content |= {
            "slacks": _or_null(payoffs.slacks),
            "slack_confidence": payoffs.slack_confidence,
        }
    return content


def parse_payoffs(content: object) -> Payoffs:
    """The payoffs that plain data describe.

    Raises:
        InvalidInputError: a key is unknown or missing, or a number is not usable.
    """
    file = _Table.checked(content, source="the payoff table")
    n_objectives, n_policies = len(file.objectives), len(file.policies)
    optima = file.optimum or []
    if file.reward_range is not None and not file.reward_range[0] < file.reward_range[1]:
        raise InvalidInputError(
            f"The reward_range {list(file.reward_range)} must go from low to high."
        )
    payoffs = Payoffs(
        table=PayoffTable(
            objectives=tuple(file.objectives),
            policies=tuple(policy.name for policy in file.policies),
            values=_rows(file.policies, "values", n_objectives, absent=np.nan),
            standard_errors=_rows(file.policies, "stderr", n_objectives, absent=0.0),
            beta=file.beta,
            kl=np.array([np.nan if p.kl is None else p.kl for p in file.policies]),
            preferences=_preferences(file.policies, n_objectives),
        ),
        level_errors=_numbers(file.level_stderr, "level_stderr", n_objectives, absent=0.0),
        optimum_preferences=_preferences(optima, n_objectives),
        optimum_values=np.array([optimum.value for optimum in optima]),
        reward_range=file.reward_range,
        slacks=None
        if file.slacks is None
        else _numbers(file.slacks, "slacks", n_policies, absent=np.nan),
        slack_confidence=1.0
        if file.slacks is None or file.slack_confidence is None
        else file.slack_confidence,
    )
    require_payoffs(payoffs)
    return payoffs


def _numbers(
    values: Sequence[float | None] | None, name: str, length: int, *, absent: float
) -> Float[np.ndarray, " numbers"]:
    """One number each; `null` for the list, or for an entry of it, is `absent`."""
    if values is None:
        return np.full(length, absent)
    if len(values) != length:
        raise InvalidInputError(f"The {name} {list(values)!r} must list {length} numbers.")
    return np.array([absent if value is None else value for value in values])


def _rows(
    policies: Sequence[_Policy], key: str, n_objectives: int, *, absent: float
) -> PolicyValues:
    rows = [
        _numbers(
            getattr(policy, key), f"{key} of policy {policy.name!r}", n_objectives, absent=absent
        )
        for policy in policies
    ]
    return np.array(rows).reshape(-1, n_objectives)


def _preferences(
    entries: Sequence[_Policy | _Optimum], n_objectives: int
) -> Float[np.ndarray, "entries objectives"]:
    rows = [
        _numbers(entry.preference, "preference", n_objectives, absent=np.nan) for entry in entries
    ]
    checked = [row if np.any(np.isnan(row)) else require_simplex(row) for row in rows]
    return np.array(checked).reshape(-1, n_objectives)


def _or_null(values: Float[np.ndarray, " values"]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _unless_zero(values: ByObjective) -> list[float] | None:
    return values.tolist() if np.any(values) else None
