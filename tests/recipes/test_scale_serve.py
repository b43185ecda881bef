"""Several servers on one database: any of them serves anybody."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.recipes import scale_serve
from palate.recipes.opened import open_library
from palate.recipes.scale_serve import REPLICA, Named, serve_replicas, share_of
from palate.recipes.serve import ServeJob, assemble
from palate.serve.app import make_app
from palate.serve.settings import ServeSettings

TALK = [{"role": "user", "content": "Tell me about rain."}]


@pytest.fixture
def two(tiny_library: Path, tmp_path: Path) -> Iterator[tuple[TestClient, TestClient]]:
    """Two servers with base, engine and memory of their own, and one database."""
    url = f"sqlite:///{tmp_path / 'people.db'}"
    settings = ServeSettings(default_tokens=8, max_tokens=16, apply_after=1)
    parts = [assemble(open_library(tiny_library), settings, database=url) for _ in range(2)]
    with TestClient(make_app(parts[0])) as first, TestClient(make_app(parts[1])) as second:
        yield first, second


def test_what_one_server_showed_is_judged_at_another(two: tuple[TestClient, TestClient]) -> None:
    first, second = two
    chat = {"model": "palate", "messages": TALK, "n": 2, "palate": {"person": "ana"}}
    shown = first.post("/v1/chat/completions", json=chat).json()
    verdict = {"response": shown["id"], "kind": "comparison", "preferred": 0, "key": "one"}
    said = second.post("/v1/feedback", json=verdict).json()
    assert said["is_new"]
    again = first.post("/v1/feedback", json=verdict).json()  # a retry that another server gets
    assert not again["is_new"]
    assert again["belief"] == said["belief"]
    other = first.post("/v1/feedback", json={**verdict, "preferred": 1})
    assert other.status_code == 409
    question = second.post("/v1/questions", json={"person": "ana", "messages": TALK}).json()
    verdict = {"response": question["response"], "kind": "comparison", "preferred": 1}
    assert first.post("/v1/feedback", json=verdict).json()["belief"]["n_feedback"] == 2


def test_every_server_answers_from_the_newest_belief_at_once(
    two: tuple[TestClient, TestClient],
) -> None:
    first, second = two
    chat = {"model": "palate", "messages": TALK, "seed": 4, "palate": {"person": "bo"}}
    for number in range(4):  # in turns: each has seen and kept an older belief before
        teller, asker = (first, second) if number % 2 else (second, first)
        shown = asker.post("/v1/chat/completions", json=chat).json()
        verdict = {"response": shown["id"], "kind": "thumbs", "thumbs": "up"}
        assert teller.post("/v1/feedback", json=verdict).status_code == 200
        answers = [one.post("/v1/chat/completions", json=chat).json() for one in two]
        assert answers[0]["palate"]["n_feedback"] == number + 1
        assert answers[0]["palate"]["coefficients"] == answers[1]["palate"]["coefficients"]
        assert answers[0]["choices"] == answers[1]["choices"]
    assert first.get("/v1/people/bo").json() == second.get("/v1/people/bo").json()
    assert first.delete("/v1/people/bo").status_code == 200
    assert second.get("/v1/people/bo").status_code == 404


def test_all_replicas_together_allow_the_rate_that_was_set() -> None:
    settings = ServeSettings(requests_per_minute=600, burst=60, max_rows=9)
    share = share_of(settings, n_replicas=4)
    assert (share.requests_per_minute, share.burst, share.max_rows) == (150, 15, 9)
    least = share_of(ServeSettings(requests_per_minute=2, burst=1), n_replicas=3)
    assert (least.requests_per_minute, least.burst) == (1, 1)  # nobody is shut out


def test_every_answer_names_its_replica() -> None:
    async def hello(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    app.add_middleware(Named, name="server#one")
    found = TestClient(app).get("/")
    assert (found.text, found.headers[REPLICA]) == ("hello", "server#one")


def test_a_file_as_database_and_a_missing_ray_are_told(
    tiny_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings()
    job = ServeJob(tiny_library, "people.db", "127.0.0.1", 1, None, "cpu", "float32", settings)
    monkeypatch.setattr(scale_serve, "find_spec", lambda _name: object())
    with pytest.raises(InvalidInputError, match=r"'people\.db' is a file; give --database p"):
        serve_replicas(job, n_replicas=2)
    monkeypatch.setattr(scale_serve, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match="Replicas need Ray"):
        serve_replicas(job, n_replicas=2)
