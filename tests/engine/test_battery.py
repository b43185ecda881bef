"""Every engine obeys the laws of engines, the example of sixty lines too."""

import runpy
from pathlib import Path

import pytest

from engine_battery import PLANS, require_alone_is_the_expert, require_engine
from palate.core.plan import Plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.local import LocalEngine
from palate.engine.openai.endpoint import OpenAISettings
from palate.engine.openai.engine import OpenAIEngine, open_engine
from palate.engine.parts import EngineParts
from palate.engine.protocol import Engine
from palate.library import engines
from palate.library.library import Library
from vllm_stand_in import StandIn

NAMES = ("short", "wide", "head")


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


@pytest.fixture(params=["local", "vllm", "openai", "plain"])
def engine(
    request: pytest.FixtureRequest, local: LocalEngine, connected, black_boxes, project_root: Path
) -> Engine:
    own_engine = runpy.run_path(str(project_root / "examples/own_engine/engine.py"))
    make = {
        "local": lambda: local,
        "vllm": connected,
        "openai": black_boxes,
        "plain": lambda: own_engine["PlainEngine"](local.base),
    }
    return make[request.param]()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_every_engine_obeys_the_laws(engine: Engine, plan: Plan) -> None:
    if engine.name == "plain" and plan is not PLANS["base"]:
        pytest.skip("the example has no experts")
    require_engine(engine, plan)


def test_everything_on_one_expert_is_that_expert(engine: Engine) -> None:
    if engine.name != "plain":
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


def test_the_example_answers_by_its_name_in_the_table(
    project_root: Path, tiny_full_library: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(project_root / "examples/own_engine"))
    monkeypatch.setattr(engines, "ENGINES", dict(engines.ENGINES))
    example = runpy.run_path(str(project_root / "examples/own_engine/answer.py"))
    example["main"](str(tiny_full_library), "Why?")
    opened = Library.load(tiny_full_library)
    greedy = SamplingParams(temperature=0.0)
    assert (
        capsys.readouterr().out
        == opened.generate("Why?", method="base", sampling=greedy).text + "\n"
    )
