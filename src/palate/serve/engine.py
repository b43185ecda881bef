"""What the server needs of an engine: the one in this process, or one elsewhere.

Whoever writes the answers, base and bank are in this process: they tokenise, and read finished
answers for feedback and explanations.
"""

from collections.abc import Sequence
from typing import Protocol

from palate.core.protocols import Request
from palate.engine.bank import AdapterBank
from palate.engine.batch import RunningRequest
from palate.engine.session import Drawn
from palate.engine.vllm.parts import Account
from palate.models.load import Base
from palate.serve.wire.palate import EngineOut


class AnswerSession(Protocol):
    """An open-ended run that answers join and leave; it belongs to one thread."""

    @property
    def n_running(self) -> int:
        """Answers under way."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of them."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        ...

    def add_request(
        self, request: Request, *, is_traced: bool = False, n_top: int = 0
    ) -> RunningRequest:
        """Begin an answer.

        Raises:
            InvalidInputError: the engine cannot execute it, and says why.
        """
        ...

    def abort_request(self, running: RunningRequest) -> None:
        """Let go of an answer; one that has ended is no error."""
        ...

    def step(self) -> Drawn:
        """Tokens that have come; the last one of an answer says why it ended."""
        ...

    def account(self, running: RunningRequest) -> Account | None:
        """What was approximated in an answer; `None` where nothing ever is. Any thread may ask."""
        ...


class AnswerEngine(Protocol):
    """Executes plans for the server."""

    @property
    def base(self) -> Base:
        """In this process."""
        ...

    @property
    def bank(self) -> AdapterBank:
        """In this process."""
        ...

    @property
    def max_num_seqs(self) -> int:
        """What it runs at a time, for whoever estimates waiting times."""
        ...

    def open_session(self) -> AnswerSession:
        """An open-ended run."""
        ...

    def require_ready(self) -> None:
        """Return when answers can be written now.

        Raises:
            ProviderError: they cannot.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds elsewhere; no answer is asked for any more."""
        ...


def engine_out(accounts: Sequence[Account], *, names: Sequence[str]) -> EngineOut:
    """What several answers to one request are off by, at most: the largest bound of each kind."""
    rows, bounds = accounts[0].coefficients, [one.rounding_bound for one in accounts]
    known = [bound for bound in bounds if bound is not None]
    return EngineOut(
        name="vllm",
        coefficients=dict(zip(names, rows[0], strict=True)) if len(rows) == 1 else None,
        parameter_change=max(one.parameter_change for one in accounts),
        rounding_bound=max(known) if len(known) == len(bounds) else None,
        list_bound=max((bound for one in accounts for bound in one.list_bounds), default=0.0),
        is_exact=all(one.is_exact for one in accounts),
        n_certified=sum(sum(one.certified) for one in accounts),
        n_calls=sum(one.n_calls for one in accounts),
    )
