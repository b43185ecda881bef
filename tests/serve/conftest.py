"""A server on the tiny library: in this process, with settings of the test's own."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from openai import OpenAI
from starlette.testclient import TestClient

from palate.library.library import Library
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings
from palate.serve.state import Served
from palate.store.keys import issue_key
from tiny import save_tiny_library
from tiny_parts import SharesMethod, save_tiny_offered_library

FREE: dict[str, Any] = {"requests_per_minute": 10_000_000, "burst": 1_000_000}
LOCAL = "http://localhost"  # the name that a server without keys answers to
MakeServed = Callable[..., Served]


@pytest.fixture(scope="session")
def opened(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The tiny library with a portfolio, a controller, and a method of its own."""
    folder = tmp_path_factory.mktemp("served") / "library"
    library = Library.load(save_tiny_offered_library(tiny_library, folder))
    library.methods["shares"] = SharesMethod()
    return library


CALLS = """{% if tools %}[tools]{{ tools | tojson }}
{% endif %}{% for message in messages %}[{{ message.role }}]{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}
{% endfor %}[assistant]"""  # a chat template that takes tools


@pytest.fixture(scope="session")
def tooled(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A tiny library whose base reads long prompts, by a chat template that takes tools."""
    root = tmp_path_factory.mktemp("tooled")
    return Library.load(save_tiny_library(root, n_positions=8192, chat_template=CALLS))


@pytest.fixture(scope="session")
def make_served(opened: Library, tmp_path_factory: pytest.TempPathFactory) -> MakeServed:
    """Makes the parts of a server with a new database."""

    def make(*, has_keys: bool = False, library: Library = opened, **settings: Any) -> Served:
        url = f"sqlite:///{tmp_path_factory.mktemp('users')}/users.db"
        values = {**FREE, "default_tokens": 12, "max_tokens": 64, "max_prompt_tokens": 150}
        served = assemble(library, ServeSettings(**{**values, **settings}), database=url)
        served.has_keys = has_keys
        return served

    return make


@pytest.fixture
def client_of(make_served: MakeServed) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of an application that runs until the test ends."""
    running: list[TestClient] = []

    def make(**settings: Any) -> TestClient:
        served = make_served(**settings)
        client = TestClient(make_app(served), base_url=LOCAL, raise_server_exceptions=False)
        client.__enter__()
        running.append(client)
        return client

    yield make
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def web(make_served: MakeServed) -> Iterator[TestClient]:
    """A client of one application for a whole file of tests; nobody needs a key."""
    app = make_app(make_served())
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(make_served: MakeServed) -> Iterator[TestClient]:
    """The same where everybody needs a key; keys are in `client.app.state.keys`."""
    served = make_served(has_keys=True)
    app = make_app(served)
    app.state.keys = {
        "user": issue_key(served.database, tenant="a"),
        "admin": issue_key(served.database, tenant="a", role="admin"),
        "other": issue_key(served.database, tenant="b", role="admin"),
    }
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def listen() -> Callable[[Served], tuple[str, Callable[[], None]]]:
    """Serves on a free port of this machine; gives the address and what stops it."""

    def start(served: Served) -> tuple[str, Callable[[], None]]:
        config = uvicorn.Config(make_app(served), port=0, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]

        def stop() -> None:
            server.should_exit = True
            thread.join(timeout=30)

        return f"http://127.0.0.1:{port}", stop

    return start


@pytest.fixture(scope="module")
def running(make_served: MakeServed, listen) -> Iterator[tuple[Served, str]]:
    """A server that listens, and its address."""
    served = make_served()
    address, stop = listen(served)
    yield served, address
    stop()


@pytest.fixture(scope="module")
def openai_client(running: tuple[Served, str]) -> Iterator[OpenAI]:
    client = OpenAI(base_url=f"{running[1]}/v1", api_key="none", max_retries=0)
    yield client
    client.close()
