"""What every engine does, whoever makes it: sessions that execute plans.

An engine opens sessions. Requests are added to a session at any time, every `step` returns the
tokens that have arrived since, and the last token of a request carries its finish. `generate` and
`stream` below are the same for all engines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from palate.core.errors import ProviderError
from palate.core.protocols import Request, Token
from palate.core.types import Completion
from palate.engine.request import FAILED, RunningRequest

EXACT = 1e-6  # bounds below this are rounding errors of floating-point numbers

StepOutput = list[tuple[RunningRequest, Token]]


@dataclass(frozen=True)
class ExecutionReport:
    """How far an answer's tokens can be from those of the exact plan."""

    coefficients: tuple[tuple[float, ...], ...]  # by row, as they were executed
    parameter_change: float  # Frobenius norm by which rounding coefficients changed the parameters
    # bound on the total variation per token from that rounding; `None` where it is not known
    rounding_bound: float | None
    # per token, bound on the total variation from truncated lists of log-probabilities
    list_bounds: tuple[float, ...]
    leads: tuple[float, ...]  # per token, probability by which the most probable led the second
    is_greedy: bool  # whether the most probable token was taken
    n_calls: int  # requests to other servers
    notes: tuple[str, ...] = ()  # one sentence for each expert that was dropped

    @property
    def is_exact(self) -> bool:
        """Whether nothing was approximated."""
        return self.rounding_bound == 0.0 and not any(b > EXACT for b in self.list_bounds)

    @property
    def certified(self) -> tuple[bool, ...]:
        """Per token, whether the exact plan takes the same token after the same context.

        A list bound `b` is probability that is missing from the lists, so the lead of a greedy
        token is at least `(1 - b) lead - b`; rounding of total variation `r` takes at most `2 r`
        of it. Sampled tokens are certified where the plan is exact.
        """
        rounding = self.rounding_bound
        if rounding is None:
            return (False,) * len(self.leads)
        return tuple(
            b + rounding <= EXACT or (self.is_greedy and (1 - b) * lead - b > 2 * rounding)
            for lead, b in zip(self.leads, self.list_bounds, strict=True)
        )


class Session(Protocol):
    """An open-ended run that requests join and leave; one thread uses it."""

    @property
    def n_running(self) -> int:
        """Requests that are being answered."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of the requests that are being answered."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        ...

    def add_request(
        self, request: Request, *, is_traced: bool = False, n_top: int = 0
    ) -> RunningRequest:
        """Queue a request; traced, with every row's log-probability of every token.

        At every step its `n_top` most probable tokens are recorded.

        Raises:
            InvalidInputError: the engine cannot execute the request; the message says why.
        """
        ...

    def abort_request(self, running: RunningRequest) -> None:
        """Drop a request at once; one that has ended is no error."""
        ...

    def forget(self, scope: str) -> None:
        """Drop what is cached of prompts in this scope, as far as it lies in this process."""
        ...

    def step(self) -> StepOutput:
        """Tokens that have arrived; the last token of a request has a finish."""
        ...

    def report(self, running: RunningRequest) -> ExecutionReport | None:
        """What was approximated so far; `None` from engines that are exact. Any thread may ask."""
        ...

    def close(self) -> None:
        """Abort all requests; the session is not used again."""
        ...


class Engine(Protocol):
    """Executes plans; classes that name it as their base get `generate` and `stream`."""

    name: str  # its name in the table of engines
    max_num_seqs: int  # most requests or rows at a time, for estimates of waiting times

    def open_session(self) -> Session:
        """A new session."""
        ...

    def require_ready(self) -> None:
        """Return when requests can be answered now, otherwise ProviderError."""
        ...

    def close(self) -> None:
        """Release everything outside this process; the engine is not used again."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            InvalidInputError: this engine cannot execute a plan.
            ProviderError: a server failed.
            NotCertifiedError: a server's lists were too short for the budget.
        """
        return [completion for _, completion in finished(self.open_session(), requests)]

    def stream(self, requests: Sequence[Request]) -> Iterator[Token]:
        """Tokens of all requests as they are sampled; raises as `generate`."""
        for _, token in run(self.open_session(), requests):
            yield token


def run(
    session: Session, requests: Sequence[Request], *, is_traced: bool = False
) -> Iterator[tuple[RunningRequest, Token]]:
    """Every token of the requests with its request; closes the session at the end.

    Raises:
        PalateError: a request failed; the others are aborted.
    """
    try:
        for request in requests:
            session.add_request(request, is_traced=is_traced)
        while not session.is_idle:
            for running, token in session.step():
                if token.finish == FAILED:
                    raise running.error or ProviderError("The engine failed without an error.")
                yield running, token
    finally:
        session.close()


def finished(
    session: Session, requests: Sequence[Request], *, is_traced: bool = False
) -> list[tuple[RunningRequest, Completion]]:
    """Every request with its completion, in order; raises as `run`."""
    ends: dict[int, tuple[RunningRequest, Completion]] = {}
    for running, token in run(session, requests, is_traced=is_traced):
        if token.finish:
            completion = Completion(
                prompt=running.request.prompt,
                text=running.text.text,
                tokens=tuple(running.tokens),
                log_probs=tuple(running.log_probs),
                finish="stop" if token.finish == "stop" else "length",
            )
            ends[running.index] = (running, completion)
    return [ends[index] for index in sorted(ends)]
