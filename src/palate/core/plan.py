"""A plan is data: rows of the adapter bank and a pool.

A row is one pass of the base model with a coefficient per expert of the bank; a pool turns the
rows' next-token distributions into one:

    single                        p = p_1
    log_linear(a), sum a = 1      log p(v) = sum_m a_m log p_m(v) - log Z
    linear(alpha), simplex        p(v) = sum_m alpha_m p_m(v)

A controller may give a and alpha token by token; then they lie on the simplex. Plans with the same
normal form give the same distribution.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from palate.core.errors import InvalidCoefficientsError
from palate.core.simplex import require_simplex

PoolKind = Literal["single", "log_linear", "linear"]
SUM_TOLERANCE = 1e-6
ROUNDING = 1e-12  # a reference with a smaller coefficient is not run


@dataclass(frozen=True)
class Row:
    """One pass of the base model."""

    coefficients: tuple[float, ...]  # per expert, in bank order; all zero is the reference
    context: tuple[int, ...] | None = None  # token ids to condition on instead of the prompt's

    def __post_init__(self) -> None:
        """Refuse coefficients that are not finite."""
        object.__setattr__(self, "coefficients", tuple(float(c) for c in self.coefficients))
        if not all(math.isfinite(c) for c in self.coefficients):
            raise InvalidCoefficientsError(
                f"The row coefficients {list(self.coefficients)} hold a value that is not finite; "
                "give finite coefficients."
            )


@dataclass(frozen=True)
class Pool:
    """How the rows' next-token distributions become one."""

    kind: PoolKind  # `single`, `log_linear` or `linear`
    coefficients: tuple[float, ...] = ()  # per row; empty for `single` and for a controlled pool
    controller: str | None = None  # its name, where it gives the coefficients at every token
    context: tuple[int, ...] | None = None  # the controller's token ids instead of the prompt's
    # the controller's preference by row, on the simplex; empty: uniform. Zero gets at most a floor
    strengths: tuple[float, ...] = ()
    # by rejection: one row proposes, the pool accepts; for `log_linear` with fixed coefficients
    is_implicit: bool = False

    @property
    def has_authors(self) -> bool:
        """Whether shares of rows say who wrote a token: of probabilities, or a controller's."""
        return self.kind == "linear" or self.controller is not None

    def __post_init__(self) -> None:
        """Refuse coefficients that the kind does not allow."""
        object.__setattr__(self, "coefficients", tuple(float(c) for c in self.coefficients))
        object.__setattr__(self, "strengths", tuple(float(s) for s in self.strengths))
        _require_pool(self)


@dataclass(frozen=True)
class Plan:
    """Rows and the pool that joins them; see the module's text."""

    rows: tuple[Row, ...]
    pool: Pool  # `single` with one row; otherwise one coefficient per row, or a controller

    def __post_init__(self) -> None:
        """Refuse a pool that does not fit the rows."""
        object.__setattr__(self, "rows", tuple(self.rows))
        if not self.rows:
            raise InvalidCoefficientsError("The plan has no rows; give at least one.")
        lengths = {len(row.coefficients) for row in self.rows}
        if len(lengths) != 1:
            raise InvalidCoefficientsError(
                f"The plan's rows have {sorted(lengths)} coefficients; give one per expert."
            )
        if self.pool.kind == "single" and len(self.rows) != 1:
            raise InvalidCoefficientsError(
                f"The pool 'single' takes one row, but the plan has {len(self.rows)}."
            )
        for name in ("coefficients", "strengths"):
            values = getattr(self.pool, name)
            if values and len(values) != len(self.rows):
                raise InvalidCoefficientsError(
                    f"The pool has {len(values)} {name} for {len(self.rows)} rows, not one per row."
                )

    @property
    def n_experts(self) -> int:
        """Number of experts the rows speak of."""
        return len(self.rows[0].coefficients)

    def to_json(self) -> dict[str, object]:
        """The plan as plain data."""
        return asdict(self)

    def normal_form(self) -> "Plan":
        """The plan with equal rows merged and rows of coefficient zero dropped.

        A pool of one row becomes `single`; a controlled pool stays as it is.

        Example:
            >>> row = Row((1.0, 0.0))
            >>> Plan((row, row), Pool("linear", (0.5, 0.5))).normal_form().pool.kind
            'single'
        """
        if self.pool.kind == "single" or self.pool.controller is not None:
            return self
        merged: dict[Row, float] = {}
        for row, coefficient in zip(self.rows, self.pool.coefficients, strict=True):
            merged[row] = merged.get(row, 0.0) + coefficient
        active = {row: coefficient for row, coefficient in merged.items() if coefficient != 0.0}
        if len(active) == 1:
            return Plan(tuple(active), Pool("single"))
        return Plan(tuple(active), replace(self.pool, coefficients=tuple(active.values())))


def reference_plan(*, n_experts: int) -> Plan:
    """The base model itself."""
    return Plan((Row((0.0,) * n_experts),), Pool("single"))


def member_plan(*, index: int, n_experts: int) -> Plan:
    """One expert of the bank, as a portfolio serves it."""
    return Plan((Row(one_hot(index=index, n_experts=n_experts)),), Pool("single"))


def parameter_soup_plan(coefficients: Sequence[float]) -> Plan:
    """One row with a dense coefficient vector: the parameter soup."""
    return Plan((Row(tuple(coefficients)),), Pool("single"))


def output_soup_plan(coefficients: Sequence[float]) -> Plan:
    """The explicit output soup: `(1 - sum lambda) l_ref + sum_k lambda_k l_k`.

    Coefficients that sum to one up to rounding leave the reference out, which saves its pass.

    Source: Spectral Souping, arXiv 2605.20408, explicit rule.
    """
    n_experts = len(coefficients)
    rows = [Row((0.0,) * n_experts)]
    rows += [Row(one_hot(index=k, n_experts=n_experts)) for k in range(n_experts)]
    reference = 1.0 - math.fsum(coefficients)
    reference = 0.0 if abs(reference) < ROUNDING else reference
    pool = Pool("log_linear", (reference, *coefficients))
    return Plan(tuple(rows), pool).normal_form()


def implicit_plan(plan: Plan) -> Plan:
    """The plan, to be sampled by rejection where several rows are pooled log-linearly.

    Source: Spectral Souping, arXiv 2605.20408, implicit rule.
    """
    normal = plan.normal_form()
    if normal.pool.kind != "log_linear":
        return normal
    return replace(normal, pool=replace(normal.pool, is_implicit=True))


def one_hot(*, index: int, n_experts: int) -> tuple[float, ...]:
    """The coefficient vector that is one expert; InvalidCoefficientsError where there is none."""
    if not 0 <= index < n_experts:
        raise InvalidCoefficientsError(
            f"Expert {index} does not exist; the bank has experts 0 to {n_experts - 1}."
        )
    return tuple(1.0 if k == index else 0.0 for k in range(n_experts))


def coefficients_from_mapping(
    named: Mapping[str, float], *, experts: Sequence[str]
) -> tuple[float, ...]:
    """Coefficients in bank order; experts that are not named get zero.

    Raises:
        InvalidCoefficientsError: an expert is unknown or a number is not finite.
    """
    unknown = [name for name in named if name not in experts]
    if unknown:
        raise InvalidCoefficientsError(
            f"The coefficients name the unknown expert {unknown[0]!r}; "
            f"known are {', '.join(experts)}."
        )
    return Row(tuple(float(named.get(name, 0.0)) for name in experts)).coefficients


def _require_pool(pool: Pool) -> None:
    values, total = list(pool.coefficients), math.fsum(pool.coefficients)
    is_single, is_linear = pool.kind == "single", pool.kind == "linear"
    is_controlled = pool.controller is not None
    is_off = not (is_single or is_controlled) and abs(total - 1.0) > SUM_TOLERANCE
    has_control = pool.context is not None or bool(pool.strengths)
    rules = {
        f"The pool coefficients {values} hold a value that is not finite.": not all(
            math.isfinite(value) for value in values
        ),
        "The pool 'single' takes no coefficients; leave them out.": is_single and bool(values),
        "A controller belongs to a 'linear' or 'log_linear' pool without fixed coefficients; "
        "give one or the other.": is_controlled and (is_single or bool(values)),
        f"The {pool.kind} pool coefficients {values} sum to {total:.6g}, not 1.": is_off,
        f"The linear pool coefficients {values} hold a negative share; use shares >= 0.": is_linear
        and any(value < 0.0 for value in values),
        "Only a log_linear pool with fixed coefficients can be sampled by rejection; leave "
        "is_implicit out.": pool.is_implicit and (is_single or is_linear or is_controlled),
        "A pool's context and strengths belong to a controller; name one or leave them out.": (
            has_control and not is_controlled
        ),
        "The controller's context is empty; give token ids, or leave it out for the prompt.": (
            pool.context is not None and not pool.context
        ),
    }
    for sentence, is_broken in rules.items():
        if is_broken:
            raise InvalidCoefficientsError(sentence)
    if pool.strengths:
        require_simplex(pool.strengths, name="pool's strengths")
