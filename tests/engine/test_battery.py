"""Every engine obeys the laws of engines; and an engine can be written in sixty lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from engine_battery import PLANS, require_alone_is_the_expert, require_engine
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request, Token
from palate.core.types import Completion
from palate.engine.local import LocalEngine
from palate.engine.openai.endpoint import OpenAISettings
from palate.engine.openai.engine import OpenAIEngine, open_engine
from palate.engine.parts import EngineParts
from palate.engine.protocol import Engine, ExecutionReport, StepOutput, finished, run
from palate.engine.request import RunningRequest
from palate.models.load import Base
from vllm_stand_in import StandIn

NAMES = ("short", "wide", "head")


class StubEngine:
    """The base alone, always greedy: one forward pass for each token, without a cache."""

    name = "stub"
    max_num_seqs = 4

    def __init__(self, base: Base) -> None:
        self.base = base

    def open_session(self) -> "StubSession":
        return StubSession(self.base)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [completion for _, completion in finished(self.open_session(), requests)]

    def stream(self, requests: Sequence[Request]) -> Iterator[Token]:
        return (token for _, token in run(self.open_session(), requests))

    def require_ready(self) -> None: ...

    def close(self) -> None: ...


class StubSession:
    def __init__(self, base: Base) -> None:
        self.base, self.requests, self.count = base, list[RunningRequest](), 0

    n_running = n_rows = property(lambda self: len(self.requests))
    is_idle = property(lambda self: not self.requests)

    def add_request(self, request: Request, *, is_traced=False, n_top=0) -> RunningRequest:
        if any(any(row.coefficients) for row in request.plan.rows) or is_traced or n_top:
            raise InvalidInputError("The stub has no experts, traces or lists; use the base.")
        self.requests.append(RunningRequest.start(request, self.base, index=self.count))
        self.count += 1
        return self.requests[-1]

    def abort_request(self, running: RunningRequest) -> None:
        self.requests = [one for one in self.requests if one is not running]

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


@pytest.fixture
def black_boxes(server: StandIn, local: LocalEngine, adapter_folders: dict[str, Path]):
    """Makes engines whose experts are endpoints of one server."""
    opened: list[OpenAIEngine] = []

    def make(**changes) -> OpenAIEngine:
        models = {name: {"url": server.url, "model": name} for name in ("base", *NAMES)}
        values = {"endpoints": models, "top_k": 259, "n_retries": 0, **changes}
        folders = {name: adapter_folders[name] for name in NAMES}
        parts = EngineParts(local.base, local.bank, folders, local.controllers, list)
        opened.append(open_engine(OpenAISettings.checked(values, source="test"), parts))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


@pytest.fixture(params=["local", "vllm", "openai", "stub"])
def engine(request: pytest.FixtureRequest, local: LocalEngine, connected, black_boxes) -> Engine:
    make = {
        "local": lambda: local,
        "vllm": connected,
        "openai": black_boxes,
        "stub": lambda: StubEngine(local.base),
    }
    return make[request.param]()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_every_engine_obeys_the_laws(engine: Engine, plan: Plan) -> None:
    if engine.name == "stub" and plan is not PLANS["base"]:
        pytest.skip("the stub has no experts")
    require_engine(engine, plan)


def test_everything_on_one_expert_is_that_expert(engine: Engine) -> None:
    if engine.name != "stub":
        require_alone_is_the_expert(engine)


@pytest.mark.parametrize("method", ["vllm", "openai"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_greedy_answers_elsewhere_are_those_of_this_process(
    connected, black_boxes, local: LocalEngine, plan: Plan, method: str
) -> None:
    from engine_battery import GREEDY

    engine = {"vllm": connected, "openai": black_boxes}[method]()
    requests = [Request(prompt, plan, GREEDY) for prompt in ("A cat", "Why?")]
    own = local.generate(requests)
    assert [a.tokens for a in engine.generate(requests)] == [a.tokens for a in own]
    assert [a.text for a in engine.generate(requests)] == [a.text for a in own]
