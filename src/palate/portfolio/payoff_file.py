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

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.files import is_finite_number, read_json, write_json
from palate.core.simplex import require_simplex
from palate.core.types import PayoffTable
from palate.portfolio.payoffs import Payoffs, require_payoffs

TABLE_KEYS = {
    "objectives",
    "beta",
    "policies",
    "optimum",
    "level_stderr",
    "reward_range",
    "slacks",
    "slack_confidence",
}
POLICY_KEYS = {"name", "values", "stderr", "kl", "preference"}
OPTIMUM_KEYS = {"preference", "value"}


def load_payoffs(path: Path) -> Payoffs:
    """The payoffs in a file.

    Raises:
        InvalidInputError: missing, not JSON, or not a usable table.
    """
    return parse_payoffs(read_json(path, what="payoff file"))


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


def parse_payoffs(content: Any) -> Payoffs:
    """The payoffs that plain data describe.

    Raises:
        InvalidInputError: a key is unknown or missing, or a number is not usable.
    """
    fields = _object(content, keys=TABLE_KEYS, what="payoff table")
    objectives = tuple(str(name) for name in _list(fields, "objectives"))
    policies = [
        _object(entry, keys=POLICY_KEYS, what="policy") for entry in _list(fields, "policies")
    ]
    if not policies or not objectives:
        raise InvalidInputError(
            f"The payoff table is empty ({len(policies)} policies, {len(objectives)} objectives); "
            "give at least one of each."
        )
    optima = [
        _object(entry, keys=OPTIMUM_KEYS, what="optimum") for entry in fields.get("optimum") or []
    ]
    n_objectives = len(objectives)
    names = tuple(str(_field(policy, "name", what="policy")) for policy in policies)
    payoffs = Payoffs(
        table=PayoffTable(
            objectives=objectives,
            policies=names,
            values=_rows(policies, names, "values", n_objectives),
            standard_errors=_rows(policies, names, "stderr", n_objectives, absent=0.0),
            beta=_number(_field(fields, "beta", what="payoff table"), name="beta"),
            kl=np.array([_kl(policy) for policy in policies]),
            preferences=np.array([_preference(policy, n_objectives) for policy in policies]),
        ),
        level_errors=_numbers(
            fields.get("level_stderr"), name="level_stderr", length=n_objectives, absent=0.0
        ),
        optimum_preferences=np.array(
            [_preference(entry, n_objectives) for entry in optima]
        ).reshape(-1, n_objectives),
        optimum_values=np.array([_number(entry.get("value"), name="optimum") for entry in optima]),
        reward_range=_range(fields.get("reward_range")),
        **_slacks(fields, n_policies=len(names)),
    )
    if np.any(np.isnan(payoffs.optimum_preferences)):
        raise InvalidInputError("An optimum has no preference; say where its value was reached.")
    require_payoffs(payoffs)
    return payoffs


def _object(value: Any, *, keys: set[str], what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"A {what} must be a JSON object with the keys {sorted(keys)}.")
    unknown = sorted(set(value) - keys)
    if unknown:
        raise InvalidInputError(
            f"The {what} has the unknown key {unknown[0]!r}; known are {sorted(keys)}."
        )
    return value


def _field(fields: Mapping[str, Any], key: str, *, what: str) -> Any:
    if key not in fields:
        raise InvalidInputError(f"The {what} lacks the key {key!r}; add it.")
    return fields[key]


def _list(fields: Mapping[str, Any], key: str) -> list[Any]:
    value = _field(fields, key, what="payoff table")
    if not isinstance(value, list):
        raise InvalidInputError(f"The payoff table's {key!r} must be a list.")
    return value


def _number(value: Any, *, name: str) -> float:
    if not is_finite_number(value):
        raise InvalidInputError(f"The {name} {value!r} is not a finite number; correct it.")
    return float(value)


def _numbers(value: Any, *, name: str, length: int, absent: float) -> Float[ndarray, " objectives"]:
    """One finite number per objective; `null` for the list, or an entry of it, is `absent`."""
    if value is None:
        return np.full(length, absent)
    if not isinstance(value, list) or len(value) != length:
        raise InvalidInputError(f"The {name} {value!r} must list {length} numbers.")
    return np.array([absent if entry is None else _number(entry, name=name) for entry in value])


def _rows(
    policies: list[Mapping[str, Any]],
    names: tuple[str, ...],
    key: str,
    n_objectives: int,
    *,
    absent: float = np.nan,
) -> Float[ndarray, "policies objectives"]:
    if key == "values":
        for policy in policies:
            _field(policy, key, what="policy")
    return np.array(
        [
            _numbers(
                policy.get(key),
                name=f"{key} of policy {name!r}",
                length=n_objectives,
                absent=absent,
            )
            for policy, name in zip(policies, names, strict=True)
        ]
    )


def _kl(policy: Mapping[str, Any]) -> float:
    value = policy.get("kl")
    return np.nan if value is None else _number(value, name="kl")


def _preference(fields: Mapping[str, Any], n_objectives: int) -> Float[ndarray, " objectives"]:
    value = fields.get("preference")
    if value is None:
        return np.full(n_objectives, np.nan)
    return require_simplex(_numbers(value, name="preference", length=n_objectives, absent=np.nan))


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = _numbers(value, name="reward_range", length=2, absent=np.nan).tolist()
    if not low < high:
        raise InvalidInputError(f"The reward_range {value} must go from low to high.")
    return low, high


def _slacks(fields: Mapping[str, Any], *, n_policies: int) -> dict[str, Any]:
    """The fields of `Payoffs` about slacks; empty where the file has none."""
    if fields.get("slacks") is None:
        return {}
    slacks = _numbers(fields["slacks"], name="slacks", length=n_policies, absent=np.nan)
    confidence = fields.get("slack_confidence")
    return {
        "slacks": slacks,
        "slack_confidence": 1.0
        if confidence is None
        else _number(confidence, name="slack_confidence"),
    }


def _or_null(values: Float[ndarray, " values"]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _unless_zero(values: Float[ndarray, " objectives"]) -> list[float] | None:
    return values.tolist() if np.any(values) else None
