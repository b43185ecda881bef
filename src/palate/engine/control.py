"""What gives the linear coefficients of controlled requests while the engine decodes."""

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from palate.engine.request import RunningRequest


class ControlRun(Protocol):
    """One controller during one run of the engine; it may keep state for each request."""

    def shares(self, requests: Sequence[RunningRequest], /) -> Sequence[Float[Tensor, " rows"]]:
        """For the next token of each request one share per row, on the simplex.

        It is called once per step with every running request under this controller. A request that
        was not there before has joined, with any number of tokens; one that is missing has ended;
        all others have exactly one token more than at the last call.
        """
        ...


class Controller(Protocol):
    """Gives the linear coefficients of controlled requests, token by token."""

    def start(self) -> ControlRun:
        """The state for one run of the engine; runs are independent."""
        ...
