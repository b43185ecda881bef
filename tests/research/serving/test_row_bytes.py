"""Bytes of rows: of the size that their content has, in a real PostgreSQL."""

import os

import psycopg
import pytest

from palate.core.errors import InvalidInputError
from research.serving.row_bytes import RowSettings, measure_rows


@pytest.mark.postgres
def test_rows_take_what_they_hold_and_some_more() -> None:
    server = os.environ.get("PALATE_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("no PostgreSQL; `source .ci/postgres.sh` starts one")
    name = f"rows_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    url = server.rsplit("/", 1)[0] + f"/{name}"
    settings = RowSettings(
        n_users=150, n_answers=3, n_feedback=4, prompt_tokens=100, answer_tokens=300
    )
    found = measure_rows(url, settings)
    # eight features are 64 bytes, the key is 55; with tuple, page and indices at most 6 times that
    assert 64 + 55 < found["bytes_per_feedback"] < 6 * (64 + 55)
    # a belief over eight experts is (8 + 64) numbers of eight bytes
    assert 576 < found["bytes_per_user"] < 4 * 576
    # 1,200 letters and the prompt's 400 compress to half at best; 300 ids of up to 5 digits
    assert 1200 < found["bytes_per_answer"] < 4 * (1600 + 300 * 7)
    with pytest.raises(InvalidInputError, match="without users"):
        measure_rows(url, settings)


def test_a_file_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="give --database postgresql"):
        measure_rows("users.db", RowSettings())
