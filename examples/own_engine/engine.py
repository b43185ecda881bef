"""An engine of your own: the base alone, always greedy, one forward pass for each token."""

import torch

from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, Token
from palate.engine.protocol import Engine, ExecutionReport, StepOutput
from palate.engine.request import RunningRequest
from palate.models.load import Base


class PlainEngine(Engine):
    name, max_num_seqs = "plain", 4

    def __init__(self, base: Base) -> None:
        self.base = base

    def open_session(self) -> "PlainSession":
        return PlainSession(self.base)


class PlainSession:
    def __init__(self, base: Base) -> None:
        self.base, self.requests, self.count = base, list[RunningRequest](), 0

    n_running = n_rows = property(lambda self: len(self.requests))
    is_idle = property(lambda self: not self.requests)

    def add_request(self, request: Request, *, is_traced=False, n_top=0) -> RunningRequest:
        if any(any(row.coefficients) for row in request.plan.rows) or is_traced or n_top:
            raise InvalidInputError("This engine has no experts, traces or lists; use the base.")
        self.requests.append(RunningRequest.start(request, self.base, index=self.count))
        self.count += 1
        return self.requests[-1]

    def abort_request(self, running: RunningRequest) -> None:
        self.requests = [one for one in self.requests if one is not running]

    def forget(self, scope: str) -> None: ...

    def step(self) -> StepOutput:
        output = [(running, self.next_token(running)) for running in self.requests]
        self.requests = [running for running, token in output if token.finish is None]
        return output

    def next_token(self, running: RunningRequest) -> Token:
        with torch.no_grad():
            ids = torch.tensor([[*running.prompt, *running.tokens]])
            log_probs = self.base.model(ids).logits[0, -1].log_softmax(-1)
        token = int(log_probs.argmax())
        return running.take(token, float(log_probs[token]), stop_ids=self.base.stop_ids)

    def report(self, running: RunningRequest) -> ExecutionReport | None: ...

    def close(self) -> None:
        self.requests = []
