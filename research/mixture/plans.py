"""The plan of a mixture with fixed shares, as studies and benchmarks of engines ask for it."""

from collections.abc import Sequence

from palate.core.plan import Plan, Pool, Row, one_hot


def mixture_plan(
    *,
    experts: Sequence[int],
    n_experts: int,
    shares: Sequence[float] | None = None,
    controller: str | None = None,
) -> Plan:
    """One row per active expert, pooled linearly: MoPE, arXiv 2407.04181.

    Experts are indices into the bank; their shares lie on the simplex, and `None` is uniform. A
    controller of that name gives the shares instead, token by token.
    """
    rows = tuple(Row(one_hot(index=k, n_experts=n_experts)) for k in experts)
    if controller is not None:
        return Plan(rows, Pool("linear", (), controller))
    shares = shares if shares is not None else (1.0 / len(rows),) * len(rows)
    return Plan(rows, Pool("linear", tuple(shares)))
