"""What only a server of PostgreSQL does: break in the middle, isolate more, let many in at once."""

import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from palate.core.errors import ProviderError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database, open_database, retried
from palate.store.erase import clear_erased, erase_user, list_receipts
from palate.store.responses import Response, record_response
from palate.store.rows import lock_user
from palate.store.store import SqlProfileStore
from palate.store.users import add_user
from store_steps import found_in_files

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


def test_a_transaction_that_a_deadlock_undid_is_tried_again(database: Database) -> None:
    numbers = [add_user(database, tenant="default", name=name) for name in ("ann", "bob")]
    assert all(numbers)
    meeting, n_begun = threading.Barrier(2), list[str]()

    def change(first: str, second: str) -> None:
        with database.writing() as connection:
            n_begun.append(first)
            lock_user(connection, tenant="default", name=first)
            if len(n_begun) <= 2:
                meeting.wait(timeout=10)
            lock_user(connection, tenant="default", name=second)

    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(retried, lambda pair=pair: change(*pair))
            for pair in (("ann", "bob"), ("bob", "ann"))
        ]:
            done.result(timeout=30)
    assert len(n_begun) == 3  # one of the two was undone once


def test_clearing_what_was_erased_undoes_nobody(
    database: Database, store: SqlProfileStore, make_items: MakeItems
) -> None:
    record_response(database, Response("r", "bob", "Why?", ("x",), (), "soup"))
    store.append(make_items("ann", 1)[0])
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as connection:
            connection.execute(text("SELECT count(*) FROM responses"))
            erasing = pool.submit(erase_user, database, user="ann")
            time.sleep(1.5)  # longer than PostgreSQL waits until it looks for deadlocks
            lock_user(connection, tenant="default", name="bob")
            time.sleep(1.5)
        assert erasing.result(timeout=30).is_cleared


def test_a_reader_of_long_ago_keeps_a_receipt_open_until_it_ends(
    database: Database, store: SqlProfileStore, make_items: MakeItems
) -> None:
    store.append(make_items("unmistakable-ann", 1)[0])
    with database.reading() as reader:
        reader.execute(text("SELECT count(*) FROM feedback"))
        receipt = erase_user(database, user="unmistakable-ann")
        assert not receipt.is_cleared
        assert "deleted rows" in receipt.remains
        assert found_in_files(database, "unmistakable-ann")
    clear_erased(database)
    assert all(receipt.is_cleared for receipt in list_receipts(database))
    assert found_in_files(database, "unmistakable-ann") == []


def test_a_role_without_rights_on_the_log_says_so_and_another_clears_it(
    url: str, make_items: MakeItems
) -> None:
    role = f"weak_{make_url(url).database}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")  # type: ignore[arg-type]
        connection.execute(f"ALTER DATABASE {make_url(url).database} OWNER TO {role}")  # type: ignore[arg-type]
    weak = open_database(make_url(url).set(username=role).render_as_string())
    store = SqlProfileStore(weak, Learner(Belief(np.zeros(3), np.eye(3))))
    store.append(make_items("unmistakable-bob", 1)[0])
    receipt = erase_user(weak, user="unmistakable-bob")
    assert "write-ahead log" in receipt.remains
    weak.close()
    strong = open_database(url)
    clear_erased(strong)
    (receipt,) = list_receipts(strong, identifier=receipt.id)
    assert receipt.is_cleared
    assert found_in_files(strong, "unmistakable-bob") == []
    strong.close()
