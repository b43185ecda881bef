"""The tables of the newest schema; `migrations` says how to get there.

Vectors are kept as little-endian float64, so that they are read bit for bit as they were written.
`users.name` is the only place of a user's identifier; every other table refers to it by number,
and goes with it.
"""

import json
import time
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json


class _Json(TypeDecorator[Any]):
    """A column of JSON text; lists are read as tuples."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:  # noqa: ARG002
        return None if value is None else _storable(dump_json(value, indent=None))

    def process_result_value(self, value: str | None, dialect: object) -> Any:  # noqa: ARG002
        return None if value is None else _tuples(json.loads(value))


class _Text(TypeDecorator[str]):
    """A column of text of users, which databases take or refuse alike."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002
        return None if value is None else _storable(value)


def _storable(value: str) -> str:
    if value != value.replace("\0", "").encode(errors="ignore").decode():
        raise InvalidInputError(
            f"The text {value[:40]!r} holds NUL or half a surrogate pair; remove it."
        )
    return value


class _Vector(TypeDecorator[Any]):
    """A column of numbers: read flat, whatever shape was written, and free to change."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> bytes:  # noqa: ARG002
        return np.ascontiguousarray(value, dtype="<f8").tobytes()

    def process_result_value(self, value: Any, dialect: object) -> np.ndarray:  # noqa: ARG002
        return np.frombuffer(value, dtype="<f8").astype(np.float64)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


metadata = MetaData()
Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by INTEGER only

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created_at", Double, nullable=False, default=time.time),
)
users = Table(
    "users",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("tenant", String(64), ForeignKey("tenants.id"), nullable=False),
    Column("name", _Text, nullable=False),
    Column("created_at", Double, nullable=False, default=time.time),
    Column("preference", _Json),  # as the user stated it
    Column("instruction", _Text),  # in the user's own words
    Column("forgotten", Integer, nullable=False, default=0),  # feedback up to here is not learned
    UniqueConstraint("tenant", "name"),
    sqlite_autoincrement=True,  # the number of an erased user is never given again
)


def _owner(**options: Any) -> Column[int]:
    """The user whom a row belongs to and with whom it is erased."""
    return Column("user", Key, ForeignKey("users.id", ondelete="CASCADE"), **options)


beliefs = Table(
    "beliefs",
    metadata,
    _owner(primary_key=True),
    Column("mean", _Vector, nullable=False),
    Column("covariance", _Vector, nullable=False),
    Column("n_observations", Integer, nullable=False),
    Column("gain", Double, nullable=False),
    Column("learner", String(64), nullable=False),  # digest of prior and settings
    Column("is_converged", Boolean, nullable=False),
)
feedback = Table(
    "feedback",
    metadata,
    _owner(primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("key", _Text),
    Column("kind", String(16), nullable=False),
    Column("features", _Vector, nullable=False),
    Column("label", Double, nullable=False),
    Column("group", _Text, nullable=False),
    Column("created_at", Double, nullable=False, default=time.time),
    UniqueConstraint("user", "key"),
)
responses = Table(
    "responses",
    metadata,
    Column("id", _Text, primary_key=True),
    _owner(nullable=False, index=True),
    Column("prompt", _Text, nullable=False),
    Column("shown", _Json, nullable=False),  # answers
    Column("features", _Json, nullable=False),  # one vector for each answer, or none yet
    Column("method", String(64), nullable=False),
    Column("coefficients", _Json, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("tokens", _Json, nullable=False),  # token ids of each answer
    Column("created_at", Double, nullable=False, default=time.time),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("prefix", String(16), primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False, default=time.time),
    Column("is_revoked", Boolean, nullable=False),
    Column("role", String(16), nullable=False),
    Column("expires_at", Double),
)
erasures = Table(
    "erasures",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("n_rows", Integer, nullable=False),
    Column("erased_at", Double, nullable=False),
    Column("n_feedback", Integer, nullable=False),
    Column("n_responses", Integer, nullable=False),
    Column("remains", Text, nullable=False),  # in the database's files, and until when; or empty
)
marks = Table(
    "marks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
