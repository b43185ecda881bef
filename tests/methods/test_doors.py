"""One decision behind every door: Python, command line, HTTP and evaluation agree."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from batteries import PREFERENCE, PROMPT, SAMPLING
from palate.cli.app import app as command_line
from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json
from palate.evaluate.evaluation import evaluate_library
from palate.evaluate.rows import AnswerRow
from palate.library.library import Library
from palate.methods.soup import SoupMethod
from palate.methods.table import METHODS
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings

SEED = 7
PREFERENCE_TEXT = ",".join(f"{name}={share}" for name, share in PREFERENCE.items())


class FakeMethod:
    """Half a soup: what a user would write in a few lines."""

    name = "fake"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        weaker = replace(known, strength=0.5)
        decision = SoupMethod().decide(library, messages, weaker)
        return replace(decision, method=self.name, reason="Half of a soup.")


@pytest.fixture(scope="module", autouse=True)
def fake_method() -> Iterator[None]:
    """One line in the table; every door below is built after it."""
    METHODS["fake"] = FakeMethod()
    yield
    del METHODS["fake"]


@pytest.fixture(scope="module", params=["full", "floored"])
def folder(
    request: pytest.FixtureRequest, tiny_full_library: Path, tiny_floored_library: Path
) -> Path:
    return tiny_full_library if request.param == "full" else tiny_floored_library


@pytest.fixture(scope="module")
def library(folder: Path, fake_method: None) -> Library:
    return Library.load(folder)


@pytest.fixture(scope="module")
def web(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    database = f"sqlite:///{tmp_path_factory.mktemp('users')}/users.db"
    settings = ServeSettings(requests_per_minute=1_000_000, burst=100_000)
    with TestClient(
        make_app(assemble(library, settings, database=database)), base_url="http://localhost"
    ) as client:
        yield client


def from_command_line(folder: Path, *options: str) -> dict[str, Any]:
    words = ["generate", str(folder), "--prompt", PROMPT, "--seed", str(SEED), "--json"]
    words += ["--max-tokens", str(SAMPLING.max_tokens), *options]
    result = CliRunner().invoke(command_line, words, catch_exceptions=False)
    return json.loads(result.stdout)


def from_http(web: TestClient, **palate: Any) -> dict[str, Any]:
    body = {
        "model": "palate",
        "messages": [{"role": "user", "content": PROMPT}],
        "seed": SEED,
        "temperature": 1.0,
        "max_tokens": SAMPLING.max_tokens,
        "palate": palate,
    }
    response = web.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("method", [*METHODS, "fake"])
def test_python_command_line_and_http_decide_and_answer_alike(
    library: Library, folder: Path, web: TestClient, method: str
) -> None:
    ours = library.generate(
        PROMPT, method=method, sampling=SAMPLING, seed=SEED, preference=PREFERENCE
    )
    typed = from_command_line(folder, "--preference", PREFERENCE_TEXT, "--method", method)
    sent = from_http(web, preference=PREFERENCE, method=method)
    said = sent["palate"]
    decision = ours.decision
    for found in (typed, said):
        assert found["method"] == decision.method
        assert found["coefficients"] == pytest.approx(dict(decision.coefficients))
        assert found["reason"] == decision.reason
        assert found["n_candidates"] == decision.n_candidates
        assert found["n_passes"] == decision.n_passes
    assert typed["plan"] == json.loads(dump_json(decision.plan.to_json()))
    assert typed["answers"][0]["text"] == ours.text
    assert sent["choices"][0]["message"]["content"] == ours.text


@pytest.mark.parametrize("method", [*METHODS, "fake"])
def test_a_stream_over_http_is_the_whole_answer(web: TestClient, method: str) -> None:
    whole = from_http(web, preference=PREFERENCE, method=method)
    body = {
        "model": "palate",
        "messages": [{"role": "user", "content": PROMPT}],
        "seed": SEED,
        "max_tokens": SAMPLING.max_tokens,
        "stream": True,
        "palate": {"preference": PREFERENCE, "method": method},
    }
    pieces: list[str] = []
    with web.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                pieces.extend(choice["delta"].get("content") or "" for choice in choices)
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown method": ({"preference": PREFERENCE, "method": "stew"}, "'stew' is unknown"),
    "off the simplex": ({"preference": {"kind": 0.4}}, "sums to 0.4, not 1"),
    "unknown objective": ({"preference": {"rude": 1.0}}, "unknown objective 'rude'"),
    "no candidates": ({"preference": PREFERENCE, "n_candidates": 0}, "candidates 0 is out of"),
    "too many": ({"preference": PREFERENCE, "n_candidates": 17}, "candidates 17 is out of"),
    "nothing known": ({"method": "soup"}, "Nothing is known of the user"),
}


def options_of(palate: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in palate.items():
        text = (
            ",".join(f"{key}={share}" for key, share in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        words += [f"--{name.replace('_', '-')}", text]
    return words


def sentence_of_python(library: Library, palate: dict[str, Any]) -> str:
    known = Known(preference=palate.get("preference"))
    with pytest.raises(InvalidInputError) as error:
        library.decide(
            PROMPT,
            known,
            method=palate.get("method", "auto"),
            n_candidates=palate.get("n_candidates"),
        )
    return str(error.value)


def sentence_of_command_line(folder: Path, palate: dict[str, Any]) -> str:
    words = ["generate", str(folder), "--prompt", PROMPT, *options_of(palate)]
    result = CliRunner().invoke(command_line, words)
    assert isinstance(result.exception, InvalidInputError)
    return str(result.exception)


def sentence_of_http(web: TestClient, palate: dict[str, Any]) -> str:
    body = {
        "model": "palate",
        "messages": [{"role": "user", "content": PROMPT}],
        "palate": palate,
    }
    response = web.post("/v1/chat/completions", json=body)
    assert response.status_code == 400, response.text
    return response.json()["error"]["message"]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_the_same_sentence_at_every_door(
    library: Library, folder: Path, web: TestClient, name: str
) -> None:
    palate, words = BAD[name]
    sentence = sentence_of_python(library, palate)
    assert words in sentence
    assert sentence_of_command_line(folder, palate) == sentence
    assert sentence_of_http(web, palate) == sentence


@pytest.mark.parametrize(
    ("method", "words"),
    [("mixture", "no controller"), ("portfolio", r"no portfolio.json"), ("best-of-n", "no reward")],
)
def test_what_a_library_cannot_do_is_the_same_sentence_at_every_door(
    tiny_library: Path, tmp_path: Path, method: str, words: str
) -> None:
    bare = Library.load(tiny_library)
    palate = {"preference": PREFERENCE, "method": method}
    settings = ServeSettings(requests_per_minute=1_000_000, burst=100_000)
    served = assemble(bare, settings, database=f"sqlite:///{tmp_path}/users.db")
    with TestClient(make_app(served), base_url="http://localhost") as client:
        sentence = sentence_of_python(bare, palate)
        assert words in sentence
        assert sentence_of_command_line(tiny_library, palate) == sentence
        assert sentence_of_http(client, palate) == sentence


@pytest.fixture(scope="module")
def rows(library: Library, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[AnswerRow]]:
    """Every method's rows of one evaluation of one user."""
    methods = [name for name in library.methods if name != "base"]
    evaluated = evaluate_library(
        library,
        {"ana": PREFERENCE, "bo": {"plain": 1.0}},
        [PROMPT, "c d"],
        methods=methods,
        output_dir=tmp_path_factory.mktemp("evaluated"),
        max_tokens=SAMPLING.max_tokens,
    )
    found: dict[str, list[AnswerRow]] = {}
    for row in evaluated.results.answers:
        if (row.user, row.prompt) != ("ana", PROMPT):
            continue
        found.setdefault(row.method, []).append(row)
    return found


@pytest.mark.parametrize("method", [*METHODS, "fake"])
def test_the_evaluation_measures_what_is_decided(
    library: Library, rows: dict[str, list[AnswerRow]], method: str
) -> None:
    decision = library.decide(PROMPT, Known(preference=PREFERENCE), method=method)
    (row,) = rows[method]
    assert row.taken == decision.method
    assert row.coefficients == pytest.approx(
        {name: value for name, value in decision.coefficients.items() if abs(value) > 1e-9}
    )
    assert row.reason == decision.reason
    assert (row.n_passes, row.n_candidates) == (decision.n_passes, decision.n_candidates)
    if decision.predicted_utility is not None:
        assert row.predicted is not None
        assert row.predicted[0] == pytest.approx(decision.predicted_utility.estimate)
