"""Both databases for every test that asks for `database`; PostgreSQL where a server is given."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database, connect, open_database
from palate.store.store import SqlProfileStore

POSTGRES = "PALATE_TEST_POSTGRES_URL"


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)],
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'users.db'}"
    server = os.environ.get(POSTGRES)
    if not server:
        pytest.skip(f"{POSTGRES} is not set; `source .ci/postgres.sh` starts a server")
    name = f"test_{os.getpid()}_{np.random.default_rng().integers(10**12)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def empty_database(url: str) -> Iterator[Database]:
    opened = connect(url)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> SqlProfileStore:
    return SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))


@pytest.fixture
def make_items() -> Callable[..., list[Feedback]]:
    def make(user: str, n: int, *, seed: int = 0) -> list[Feedback]:
        generator = np.random.default_rng(seed)
        return [
            Feedback(
                user=user,
                kind="comparison",
                features=tuple(generator.normal(size=3).tolist()),
                label=float(generator.integers(2)),
                key=f"{seed}-{number}",
            )
            for number in range(n)
        ]

    return make
