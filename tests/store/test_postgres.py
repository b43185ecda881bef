"""What only a server of PostgreSQL does: break in the middle, isolate more, let many in at once."""

import select
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest
from sqlalchemy.engine import make_url

from palate.core.errors import ProviderError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import open_database
from palate.store.store import SqlProfileStore

MakeItems = Callable[..., list[Feedback]]
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.parametrize("url", ["postgresql"], indirect=True),
]


def cutting_proxy(server: tuple[str, int]) -> tuple[int, threading.Event]:
    """Port of a relay to the server, which drops the answer to COMMIT once the event is set."""
    listener, is_cutting = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection(server) as upstream:
            while True:
                for ready in select.select([client, upstream], [], [])[0]:
                    part = ready.recv(65536)
                    (upstream if ready is client else client).sendall(part)
                    if not part:
                        return
                    if ready is client and is_cutting.is_set() and b"COMMIT\0" in part:
                        upstream.recv(65536)  # it is stored, but nobody hears of it
                        return

    def serve() -> None:
        while True:
            threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], is_cutting


def test_a_connection_that_breaks_in_the_commit_leaves_it_open_whether_it_is_stored(
    url: str, make_items: MakeItems
) -> None:
    parsed = make_url(url)
    port, is_cutting = cutting_proxy((str(parsed.host), int(parsed.port or 0)))
    database = open_database(
        parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    )
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    first, second = make_items("ann", 2)
    assert store.append(first)
    is_cutting.set()
    with pytest.raises(ProviderError, match="not known whether it did; send it again") as caught:
        store.append(second)
    assert caught.value.is_retryable
    is_cutting.clear()
    assert not store.append(second)  # its key tells that it was stored
    assert store.history("ann") == [first, second]
    database.close()


def test_no_verdict_fails_where_the_server_isolates_more_by_default(
    url: str, make_items: MakeItems
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        name = url.rsplit("/", 1)[1]
        changed = f"ALTER DATABASE {name} SET default_transaction_isolation = serializable"
        connection.execute(changed)  # type: ignore[arg-type]
    database = open_database(url)
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(store.append, make_items("ann", 24)))
    assert all(kept)
    assert len(store.history("ann")) == 24
    database.close()
