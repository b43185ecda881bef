"""How a response tells what its engine approximated."""

from collections.abc import Sequence

from palate.engine.protocol import ExecutionReport
from palate.serve.wire.palate import EngineOut


def engine_out(
    name: str, reports: Sequence[ExecutionReport], *, experts: Sequence[str]
) -> EngineOut:
    """Bounds on several answers to one request: the largest of each kind."""
    rows, bounds = reports[0].coefficients, [one.rounding_bound for one in reports]
    known = [bound for bound in bounds if bound is not None]
    return EngineOut(
        name=name,
        coefficients=dict(zip(experts, rows[0], strict=True)) if len(rows) == 1 else None,
        parameter_change=max(one.parameter_change for one in reports),
        rounding_bound=max(known) if len(known) == len(bounds) else None,
        list_bound=max((bound for one in reports for bound in one.list_bounds), default=0.0),
        is_exact=all(one.is_exact for one in reports),
        n_certified=sum(sum(one.certified) for one in reports),
        n_calls=sum(one.n_calls for one in reports),
        notes=[note for one in reports for note in one.notes],
    )
