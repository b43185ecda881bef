"""Answers of implicit output soups with what they cost: proposals, and tokens that fell back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.core.plan import Plan
from palate.core.protocols import Request, Token
from palate.core.types import Completion
from palate.engine.batch import RunningRequest
from palate.engine.local import LocalEngine, completion_of


@dataclass(frozen=True)
class Counted:
    """Answers drawn by rejection.

    Attributes:
        completions: In the order of the requests.
        n_tokens: Of all answers.
        n_proposals: For them.
        n_fallbacks: Tokens that reached the cap and were drawn from the explicit soup.
    """

    completions: tuple[Completion, ...]
    n_tokens: int
    n_proposals: int
    n_fallbacks: int

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted; a fallback counts as none."""
        return (self.n_tokens - self.n_fallbacks) / max(self.n_proposals, 1)


def implicit_plan(plan: Plan) -> Plan:
    """The plan, to be drawn from by rejection where several rows are pooled log-linearly."""
    normal = plan.normal_form()
    if normal.pool.kind != "log_linear":
        return normal
    return replace(normal, pool=replace(normal.pool, is_implicit=True))


def draw_counted(engine: LocalEngine, requests: Sequence[Request]) -> Counted:
    """Answer the requests and count what that took.

    Raises:
        InvalidInputError: as `LocalEngine.generate`.
    """
    session = engine.open_session()
    running_requests = [session.add_request(request) for request in requests]
    ends: dict[int, tuple[RunningRequest, Token]] = {}
    while not session.is_idle:
        ends |= {running.index: (running, token) for running, token in session.step() if token.finish}
    return Counted(
        completions=tuple(completion_of(*ends[running.index]) for running in running_requests),
        n_tokens=sum(len(running.tokens) for running in running_requests),
        n_proposals=sum(running.n_proposals for running in running_requests),
        n_fallbacks=sum(running.n_fallbacks for running in running_requests),
    )
