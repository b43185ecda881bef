"""The safety floor: one expert with a least coefficient in every answer, whatever method decided.

The plan is changed last, so that no request and no feedback can go below:

- one pass of the model: the expert's coefficient is at least the floor;
- outputs pooled log-linearly: the expert's coefficient is at least the floor, the reference gives
  way; a token that the safety expert forbids is forbidden (a veto);
- outputs mixed linearly: the expert's share is at least the floor, the others shrink; `pi(v)` is
  at least the floor times the expert's probability (not a veto);
- a mixture under a controller: the expert has a row (the method adds it), and the controller's
  decoding keeps its share (`palate.mixture.decode.DecodeSettings.floor`).

Source: methods C12.
"""

from dataclasses import dataclass, replace

from palate.core.decision import Decision
from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.plan import Plan, Row, one_hot

MAX_SHARE = 0.95  # the rest is left for the user's preference


@dataclass(frozen=True)
class Floor:
    """An expert and its least coefficient."""

    name: str  # of the expert
    expert: int  # its place in the bank
    coefficient: float  # above 0; a linear mixture has at most `MAX_SHARE` of it

    def __post_init__(self) -> None:
        """Refuse coefficients out of range."""
        if not 0.0 < self.coefficient < float("inf"):
            raise InvalidInputError(
                f"The floor {self.coefficient} of the expert {self.name!r} is out of range; give "
                "a number above 0."
            )

    @property
    def share(self) -> float:
        """The least share in a linear mixture."""
        return min(self.coefficient, MAX_SHARE)


def floored(decision: Decision, floor: Floor | None) -> Decision:
    """The decision above the floor, with its reason; the same decision where it is so already.

    Raises:
        InvalidCoefficientsError: a controlled mixture has no row of the floor's expert.
    """
    plan = with_floor(decision.plan, floor)
    if floor is None or (plan is decision.plan and plan.pool.controller is None):
        return decision
    coefficients = dict(decision.coefficients)
    least = floor.share if plan.pool.kind == "linear" else floor.coefficient
    if plan.pool.kind == "linear":
        shrunk = 1.0 - least
        rest = sum(value for name, value in coefficients.items() if name != floor.name)
        if rest > shrunk:
            coefficients = {name: value * shrunk / rest for name, value in coefficients.items()}
    coefficients[floor.name] = max(coefficients.get(floor.name, 0.0), least)
    reason = f"{decision.reason} The safety floor holds {floor.name!r} at {least:g} or more."
    return replace(decision, plan=plan, coefficients=coefficients, reason=reason.strip())


def with_floor(plan: Plan, floor: Floor | None) -> Plan:
    """The plan above the floor, the same where it is so already; raises as `floored`."""
    if floor is None:
        return plan
    if plan.pool.controller is not None:
        if not any(row.coefficients[floor.expert] == 1.0 for row in plan.rows):
            raise InvalidCoefficientsError(
                f"The controlled mixture has no row of {floor.name!r}, whose share the safety "
                "floor keeps; add one with strength 0."
            )
        return plan
    if plan.pool.kind == "single":
        (row,) = plan.rows
        values = list(row.coefficients)
        values[floor.expert] = max(values[floor.expert], floor.coefficient)
        raised = replace(row, coefficients=tuple(values))
        return plan if raised == row else replace(plan, rows=(raised,))
    return _pooled(plan, floor)


def _pooled(plan: Plan, floor: Floor) -> Plan:
    alone = one_hot(index=floor.expert, n_experts=plan.n_experts)
    shares = dict(zip(plan.rows, plan.pool.coefficients, strict=True))
    safe = next((row for row in shares if row.coefficients == alone), Row(alone))
    least = floor.share if plan.pool.kind == "linear" else floor.coefficient
    missing = least - shares.get(safe, 0.0)
    if missing <= 0:
        return plan
    if plan.pool.kind == "linear":
        shrink = (1.0 - least) / (1.0 - shares.get(safe, 0.0))
        shares = {row: share * shrink for row, share in shares.items()}
    else:
        reference = Row((0.0,) * plan.n_experts)
        shares[reference] = shares.get(reference, 0.0) - missing
    shares[safe] = least
    pool = replace(plan.pool, coefficients=tuple(shares.values()))
    return Plan(tuple(shares), pool).normal_form()
