"""The safety floor: one expert that always has a say, in every way of answering.

The plan is changed last, after whatever was asked or learned, so no request can go below:

- one pass of the model: the expert's coefficient is at least the floor;
- outputs pooled log-linearly: the expert's coefficient is at least the floor, the reference gives
  way; a token that the safety expert forbids is forbidden (a veto);
- outputs mixed linearly: the expert's share is at least the floor, the others shrink; `pi(v)` is
  at least the floor times the expert's probability (not a veto).

Source: methods C12.
"""

from dataclasses import dataclass, replace

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row, one_hot

MAX_SHARE = 0.95  # something must be left for what the person wants


@dataclass(frozen=True)
class Floor:
    """An expert and the least coefficient that it has in every answer.

    Attributes:
        name: The expert's.
        expert: Its place in the bank.
        coefficient: Above 0; of a linear mixture at most `MAX_SHARE` is kept.
    """

    name: str
    expert: int
    coefficient: float

    def __post_init__(self) -> None:
        """Refuse coefficients out of range."""
        if not 0.0 < self.coefficient < float("inf"):
            raise InvalidInputError(
                f"The floor {self.coefficient} of the expert {self.name!r} is out of range; give "
                "a number above 0."
            )

    @property
    def share(self) -> float:
        """Of a linear mixture."""
        return min(self.coefficient, MAX_SHARE)


def with_floor(plan: Plan, floor: Floor | None) -> Plan:
    """The plan with the floor kept; the same plan where it is kept already.

    Raises:
        InvalidInputError: a controller decides the shares; the floor is its own setting then.
    """
    if floor is None:
        return plan
    if plan.pool.kind == "single":
        return replace(plan, rows=(_raised(plan.rows[0], floor),))
    if plan.pool.controller is not None:
        raise InvalidInputError("A controlled mixture keeps its floor by its own setting.")
    return _pooled(plan, floor)


def _raised(row: Row, floor: Floor) -> Row:
    values = list(row.coefficients)
    values[floor.expert] = max(values[floor.expert], floor.coefficient)
    return replace(row, coefficients=tuple(values))


def _pooled(plan: Plan, floor: Floor) -> Plan:
    safe = Row(one_hot(index=floor.expert, n_experts=plan.n_experts))
    shares = dict(zip(plan.rows, plan.pool.coefficients, strict=True))
    least = floor.share if plan.pool.kind == "linear" else floor.coefficient
    missing = least - shares.get(safe, 0.0)
    if missing <= 0:
        return plan
    if plan.pool.kind == "linear":
        kept = (1.0 - least) / (1.0 - shares.get(safe, 0.0))
        shares = {row: share * kept for row, share in shares.items()}
    else:
        reference = Row((0.0,) * plan.n_experts)
        shares[reference] = shares.get(reference, 0.0) - missing
    shares[safe] = least
    pool = Pool(plan.pool.kind, tuple(shares.values()))
    return Plan(tuple(shares), pool).normal_form()
