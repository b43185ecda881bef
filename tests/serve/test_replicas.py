"""Several servers on one database: any of them serves anybody."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from palate.build import ray_cluster as scale_ray
from palate.core.errors import InvalidInputError, MissingExtraError
from palate.library.library import Library
from palate.serve.app import make_app
from palate.serve.assemble import ServeJob, assemble
from palate.serve.replicas import REPLICA, serve_replicas, share_of
from palate.serve.settings import ServeSettings
from palate.serve.state import Served
from research.serving.replicas_under_load import replica_processes
from research.serving.server_process import FREE, ServerProcess
from vllm_stand_in import StandIn, standing_in

TALK = [{"role": "user", "content": "Tell me about rain."}]


@pytest.fixture
def two(tiny_library: Path, tmp_path: Path) -> Iterator[tuple[TestClient, TestClient]]:
    """Two servers with base, engine and memory of their own, and one database."""
    url = f"sqlite:///{tmp_path / 'users.db'}"
    settings = ServeSettings(default_tokens=8, max_tokens=16, apply_after=1)
    parts = [assemble(Library.load(tiny_library), settings, database=url) for _ in range(2)]
    with (
        TestClient(make_app(parts[0]), base_url="http://localhost") as first,
        TestClient(make_app(parts[1]), base_url="http://localhost") as second,
    ):
        yield first, second


def test_what_one_server_showed_is_judged_at_another(two: tuple[TestClient, TestClient]) -> None:
    first, second = two
    chat = {"model": "palate", "messages": TALK, "n": 2, "palate": {"user": "ana"}}
    shown = first.post("/v1/chat/completions", json=chat).json()
    verdict = {"response": shown["id"], "kind": "comparison", "preferred": 0, "key": "one"}
    said = second.post("/v1/feedback", json=verdict).json()
    assert said["is_new"]
    again = first.post("/v1/feedback", json=verdict).json()  # a retry that another server gets
    assert not again["is_new"]
    assert again["belief"] == said["belief"]
    other = first.post("/v1/feedback", json={**verdict, "preferred": 1})
    assert other.status_code == 409
    question = second.post("/v1/questions", json={"user": "ana", "messages": TALK}).json()
    verdict = {"response": question["response"], "kind": "comparison", "preferred": 1}
    assert first.post("/v1/feedback", json=verdict).json()["belief"]["n_feedback"] == 2


def test_every_server_answers_from_the_newest_belief_at_once(
    two: tuple[TestClient, TestClient],
) -> None:
    first, second = two
    chat = {"model": "palate", "messages": TALK, "seed": 4, "palate": {"user": "bo"}}
    for number in range(4):  # in turns: each has seen and kept an older belief before
        teller, asker = (first, second) if number % 2 else (second, first)
        shown = asker.post("/v1/chat/completions", json=chat).json()
        verdict = {"response": shown["id"], "kind": "thumbs", "thumbs": "up"}
        assert teller.post("/v1/feedback", json=verdict).status_code == 200
        answers = [one.post("/v1/chat/completions", json=chat).json() for one in two]
        assert answers[0]["palate"]["n_feedback"] == number + 1
        assert answers[0]["palate"]["coefficients"] == answers[1]["palate"]["coefficients"]
        assert answers[0]["choices"] == answers[1]["choices"]
    assert first.get("/v1/users/bo").json() == second.get("/v1/users/bo").json()
    assert first.delete("/v1/users/bo").status_code == 200
    assert second.get("/v1/users/bo").status_code == 404


def test_all_replicas_together_allow_the_rate_that_was_set() -> None:
    settings = ServeSettings(requests_per_minute=600, burst=60, max_num_seqs=9)
    share = share_of(settings, n_replicas=4)
    assert (share.requests_per_minute, share.burst, share.max_num_seqs) == (150, 15, 9)
    least = share_of(ServeSettings(requests_per_minute=2, burst=1), n_replicas=3)
    assert (least.requests_per_minute, least.burst) == (1, 1)  # nobody is shut out


def test_every_answer_names_its_replica(make_served: Callable[..., Served]) -> None:
    served = make_served()
    served.headers[REPLICA] = "server#one"
    with TestClient(make_app(served), base_url="http://localhost") as client:
        for path, status in (("/health", 200), ("/v1/nothing", 404)):
            found = client.get(path)
            assert (found.status_code, found.headers[REPLICA]) == (status, "server#one")


def test_a_file_as_database_and_a_missing_ray_are_told(
    tiny_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings()
    job = ServeJob(tiny_library, "users.db", "127.0.0.1", 1, None, "cpu", "float32", settings)
    monkeypatch.setattr(scale_ray, "find_spec", lambda _name: object())
    with pytest.raises(InvalidInputError, match=r"'users\.db' is a file; give --database p"):
        serve_replicas(job, n_replicas=2)
    monkeypatch.setattr(scale_ray, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match="replicas need Ray"):
        serve_replicas(job, n_replicas=2)


@pytest.fixture
def vllm(tiny_library: Path) -> Iterator[StandIn]:
    opened = Library.load(tiny_library)
    with standing_in(opened.base, dict(opened.files.expert_folders())) as running:
        yield running


def asked_of_all_ways() -> list[dict[str, Any]]:
    """Greedy completions of which nothing is rounded, more soups than a share has room for."""
    ways: list[dict[str, Any]] = [{"method": "soup", "preference": {"kind": 1.0}}]
    for step in range(1, 6):
        coefficients = {"kind": 0.5, "short": -0.05 * step, "plain": 0.75}
        ways += [
            {"method": method, "coefficients": coefficients} for method in ("soup", "output-soup")
        ]
    return [
        {
            "model": "palate",
            "prompt": "Rain",
            "max_tokens": 10,
            "temperature": 0,
            "palate": {"user": f"user-{place}", **method},
        }
        for place, method in enumerate(ways)
    ]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.postgres
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed; docs/scale.md says how")
def test_replicas_share_one_vllm_and_one_that_dies_leaves_nothing_there(
    tiny_library: Path, tmp_path: Path, vllm: StandIn
) -> None:
    postgres = os.environ.get("PALATE_TEST_POSTGRES_URL")
    if not postgres:
        pytest.skip("no PostgreSQL; `source .ci/postgres.sh` starts one")
    name = f"vllm_replicas_{os.getpid()}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    url = postgres.rsplit("/", 1)[0] + f"/{name}"
    parts = assemble(Library.load(tiny_library), ServeSettings(), database=f"{tmp_path}/own.db")
    bodies = asked_of_all_ways()
    with TestClient(make_app(parts), base_url="http://localhost") as client:
        own = [client.post("/v1/completions", json=one).json() for one in bodies]
    words = ["serve", "--replicas", "2", "--engine", "vllm", "--url", vllm.url]
    words += ["--no-rates"]
    use = {"max_adapters": 4, "top_k": 259, "max_top_k": 259, "pools": "server"}
    for key, value in (use | {"adapters_folder": tmp_path / "adapters"}).items():
        words += ["--engine-set", f"{key}={value}"]
    server = ServerProcess(tiny_library, url, FREE, log=tmp_path / "log", words=words)
    server.start()

    def ask(body: dict[str, Any]) -> tuple[str, str]:
        found = server.must("POST", "/v1/completions", body)
        assert found["palate"]["engine"]["is_exact"], found
        return found["choices"][0]["text"], found["palate"]["method"]

    try:
        with ThreadPoolExecutor(6) as users:
            deadline = time.monotonic() + 90
            while len(places(vllm.loaded)) < 2:  # whom a request goes to is the router's choice
                assert time.monotonic() < deadline
                assert list(users.map(ask, bodies)) == [
                    (one["choices"][0]["text"], one["palate"]["method"]) for one in own
                ]
            both = places(vllm.loaded)
            assert max(Counter(map(place, soups_on(vllm))).values()) <= 2  # a share each
            victims = replica_processes(server.process_id)
            assert len(victims) == 2
            victims[0].kill()
            n_loaded, deadline = len(vllm.loaded), time.monotonic() + 90
            while places(vllm.loaded[n_loaded:]) != both:  # the dead one's place has an heir
                assert time.monotonic() < deadline
                assert [text for text, _ in users.map(ask, bodies)] == [
                    one["choices"][0]["text"] for one in own
                ]
        assert vllm.most_loaded <= 4  # the dead one's soups made room
    finally:
        code = server.stop()
    assert code == 0
    assert soups_on(vllm) == []


def soups_on(vllm: StandIn) -> list[str]:
    return [name for name in list(vllm.models) if name.startswith("palate-soup-")]


def place(soup: str) -> str:
    return soup.rsplit("-", 1)[0]


def places(soups: list[str]) -> set[str]:
    return set(map(place, soups))
