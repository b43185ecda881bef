"""A database that is locked, deleted, replaced or damaged; an engine whose thread has ended."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import DeadlockDetected
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from palate.core.errors import InvalidInputError
from palate.serve import users
from palate.serve.answers import _read
from palate.serve.app import make_app
from palate.serve.state import Served
from palate.store.database import connect, open_database
from palate.store.tables import responses
from palate.store.users import add_user

CHAT = "/v1/chat/completions"
TALK = {"model": "palate", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
MakeServed = Callable[..., Served]


@pytest.fixture
def web(make_served: MakeServed) -> Iterator[TestClient]:
    app = make_app(make_served(database_seconds=1.0))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def file_of(web: TestClient) -> Path:
    return Path(web.app.state.served.database.engine.url.database)  # type: ignore[attr-defined]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def seconds(call: Callable[[], int], status: int) -> float:
    started = time.monotonic()
    assert call() == status
    return time.monotonic() - started


def test_a_locked_database_is_not_ready_and_holds_up_nobody_who_does_not_write(
    web: TestClient,
) -> None:
    assert web.get("/ready").status_code == 200
    with locked(file_of(web)):
        assert seconds(lambda: web.get("/ready").status_code, 503) < 2
        refused = web.post("/v1/users", json={"user": "ana"})
        assert refused.status_code == 503
        assert "not known" in refused.json()["error"]["message"]
        assert web.post(CHAT, json=TALK).status_code == 200
    assert web.get("/ready").status_code == 200
    assert web.post("/v1/users", json={"user": "ana"}).status_code == 201


@pytest.mark.alone
def test_many_who_wait_to_write_hold_up_nobody_who_reads(web: TestClient) -> None:
    assert web.post("/v1/users", json={"user": "reader"}).status_code == 201
    with locked(file_of(web)), ThreadPoolExecutor(20) as pool:
        names = [{"user": f"writer-{k}"} for k in range(20)]
        writers = [pool.submit(web.post, "/v1/users", json=name) for name in names]
        time.sleep(0.3)
        assert seconds(lambda: web.get("/v1/users/reader").status_code, 200) < 0.6
        assert {writer.result().status_code for writer in writers} == {503}


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(web: TestClient, how: str) -> None:
    path = file_of(web)
    assert web.post("/v1/users", json={"user": "ana"}).status_code == 201
    moved = path.rename(path.with_name("moved"))
    if how == "replaced":
        open_database(str(path)).close()
    assert web.get("/ready").status_code == 503
    refused = web.post("/v1/users", json={"user": "bob"})
    assert refused.status_code == 503
    if how == "deleted":
        assert "deleted or replaced" in refused.json()["error"]["message"]
    assert path.exists() == (how == "replaced")  # no empty file is made
    if how == "replaced":
        return
    moved.rename(path)
    assert web.get("/ready").status_code == 200
    assert web.post("/v1/users", json={"user": "bob"}).status_code == 201


def test_a_damaged_database_is_not_ready(web: TestClient) -> None:
    path = file_of(web)
    for part in path.parent.iterdir():
        part.write_bytes(b"x" * 8192)
    assert web.get("/ready").status_code == 503


def test_an_engine_whose_thread_has_ended_answers_at_once(web: TestClient) -> None:
    served: Served = web.app.state.served  # type: ignore[attr-defined]
    body = {**TALK, "user": "ana"}
    answer = web.post(CHAT, json=body).json()
    served.worker.stop()
    assert web.get("/ready").status_code == 503
    assert seconds(lambda: web.post(CHAT, json=TALK).status_code, 503) < 2
    thumbs = {"response": answer["id"], "kind": "thumbs", "thumbs": "up"}
    assert seconds(lambda: web.post("/v1/feedback", json=thumbs).status_code, 503) < 2


def test_a_command_that_fails_does_not_end_the_engine(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: Served = web.app.state.served  # type: ignore[attr-defined]

    def fail(*_arguments: object) -> None:
        raise RuntimeError("in a command")

    served.worker._commands.put(fail)
    assert web.post(CHAT, json=TALK).status_code == 200
    assert web.get("/ready").status_code == 200


def test_a_new_file_is_its_owners_only(tmp_path: Path) -> None:
    open_database(str(tmp_path / "users.db")).close()
    assert (tmp_path / "users.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://a:b@host:port/name", "cannot be read"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "needs a file"),
        ("sqlite:///file:users.db?mode=memory&uri=true", "needs a file"),
    ],
)
def test_a_url_that_names_no_database_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        connect(url)


def test_a_tenant_stores_so_many_users_and_bytes(make_served: MakeServed) -> None:
    with TestClient(make_app(make_served(max_users=2)), base_url="http://localhost") as web:
        for name in ("a", "b"):
            assert web.post("/v1/users", json={"user": name}).status_code == 201
        web.app.state.served._usage.clear()  # type: ignore[attr-defined]  # as after ten seconds
        refused = web.post("/v1/users", json={"user": "c"})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "quota_exceeded"
        assert web.post(CHAT, json={**TALK, "user": "c"}).status_code == 403
        assert web.post(CHAT, json={**TALK, "user": "a"}).status_code == 200
        assert web.post(CHAT, json=TALK).status_code == 200
    with TestClient(make_app(make_served(max_stored_bytes=1)), base_url="http://localhost") as web:
        assert web.post(CHAT, json={**TALK, "user": "a"}).status_code == 200
        web.app.state.served._usage.clear()  # type: ignore[attr-defined]
        assert web.post(CHAT, json={**TALK, "user": "a"}).status_code == 403


def test_old_answers_are_deleted_and_users_stay(make_served: MakeServed) -> None:
    served = make_served(keep_days=1.0)
    app = make_app(served)
    with TestClient(app, base_url="http://localhost") as web:
        old, new = (web.post(CHAT, json={**TALK, "user": "a"}).json()["id"] for _ in range(2))
        with served.database.writing() as connection:
            is_old = responses.c.id == old
            connection.execute(update(responses).where(is_old).values(created_at=1.0))
    with TestClient(make_app(assembled_again(served)), base_url="http://localhost") as web:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            kept = [row["id"] for row in web.get("/v1/users/a/export").json()["responses"]]
            if kept == [new]:
                return
            time.sleep(0.1)
    raise AssertionError(kept)


def assembled_again(served: Served) -> Served:
    return Served(
        settings=served.settings,
        library=served.library,
        engine=served.engine,
        believer=served.believer,
        database=served.database,
        probe=served.probe,
        has_keys=False,
        fingerprint="palate-again",
    )


def test_cached_tokens_tell_of_the_own_users_prompts_only(web: TestClient) -> None:
    long = [{"role": "user", "content": "A question that is long enough for two whole blocks?"}]

    def cached(user: str | None) -> int:
        body = {**TALK, "messages": long, **({"user": user} if user else {})}
        usage = web.post(CHAT, json=body).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    first = [cached(user) for user in ("ana", "ben", None, "ana", "ben", None)]
    assert first[:3] == [0, 0, 0]
    assert min(first[3:]) > 0
    assert web.delete("/v1/users/ben").status_code == 200
    assert cached("ana") == 0  # the cache of before the erasure is out of reach


def test_special_tokens_that_a_user_types_are_text(make_served: MakeServed) -> None:
    served = make_served()
    base = served.library.base
    special = next(token for token in base.tokenizer.get_added_vocab() if not token.isspace())
    number = base.tokenizer.get_added_vocab()[special]
    plain = [{"role": "user", "content": f"Hi {special} there"}]

    def ids(*, is_trusted: bool) -> tuple[int, ...]:
        served.settings = served.settings.model_copy(update={"allow_special_tokens": is_trusted})
        _, (_, tokens) = _read(served, [plain, plain])
        return tokens

    trusted, typed = ids(is_trusted=True), ids(is_trusted=False)
    assert trusted.count(number) == typed.count(number) + 1
    said = base.tokenizer.decode(list(typed), skip_special_tokens=True)
    assert f"Hi {special} there" in said


def test_what_a_deadlock_undid_is_done_again(
    web: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_undone = []

    def undone_once(*arguments: Any, **named: Any) -> Any:
        if not n_undone:
            n_undone.append(1)
            raise OperationalError("UPDATE", {}, DeadlockDetected("deadlock detected"))
        return add_user(*arguments, **named)

    monkeypatch.setattr(users, "add_user", undone_once)
    assert web.post("/v1/users", json={"user": "ana"}).status_code == 201
    assert n_undone
