"""The tables of the newest schema; `migrations` says how to get there.

Vectors are kept as little-endian float64, so that they are read bit for bit as they were written.
`users.name` is the only place of a user's identifier; every other table refers to it by number,
and goes with it.
"""

import json
import time
from typing import Any

import numpy as np
import sqlalchemy as sa

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json


class _Json(sa.TypeDecorator[Any]):
    """A column of JSON text; lists are read as tuples."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:  # noqa: ARG002
        return None if value is None else _storable(dump_json(value, indent=None))

    def process_result_value(self, value: str | None, dialect: object) -> Any:  # noqa: ARG002
        return None if value is None else _tuples(json.loads(value))


class _Text(sa.TypeDecorator[str]):
    """A column of text of users, which databases take or refuse alike."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002
        return None if value is None else _storable(value)


def _storable(value: str) -> str:
    if value != value.replace("\0", "").encode(errors="ignore").decode():
        raise InvalidInputError(
            f"The text {value[:40]!r} holds NUL or half a surrogate pair; remove it."
        )
    return value


class _Vector(sa.TypeDecorator[Any]):
    """A column of numbers: read flat, whatever shape was written, and free to change."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> bytes:  # noqa: ARG002
        return np.ascontiguousarray(value, dtype="<f8").tobytes()

    def process_result_value(self, value: Any, dialect: object) -> np.ndarray:  # noqa: ARG002
        return np.frombuffer(value, dtype="<f8").astype(np.float64)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


metadata = sa.MetaData()
Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows by INTEGER only

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created_at", sa.Double, nullable=False, default=time.time),
)
users = sa.Table(
    "users",
    metadata,
    sa.Column("id", Key, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
    sa.Column("name", _Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False, default=time.time),
    sa.Column("preference", _Json),  # as the user stated it
    sa.Column("instruction", _Text),  # in the user's own words
    sa.Column("forgotten", sa.Integer, nullable=False, default=0),  # feedback before: not learned
    sa.UniqueConstraint("tenant", "name"),
    sqlite_autoincrement=True,  # the number of an erased user is never given again
)


def _owner(**options: Any) -> sa.Column[int]:
    """The user whom a row belongs to and with whom it is erased."""
    return sa.Column("user", Key, sa.ForeignKey("users.id", ondelete="CASCADE"), **options)


beliefs = sa.Table(
    "beliefs",
    metadata,
    _owner(primary_key=True),
    sa.Column("mean", _Vector, nullable=False),
    sa.Column("covariance", _Vector, nullable=False),
    sa.Column("n_observations", sa.Integer, nullable=False),
    sa.Column("gain", sa.Double, nullable=False),
    sa.Column("learner", sa.String(64), nullable=False),  # digest of prior and settings
    sa.Column("is_converged", sa.Boolean, nullable=False),
)
feedback = sa.Table(
    "feedback",
    metadata,
    _owner(primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", _Text),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("features", _Vector, nullable=False),
    sa.Column("label", sa.Double, nullable=False),
    sa.Column("group", _Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False, default=time.time),
    sa.UniqueConstraint("user", "key"),
)
responses = sa.Table(
    "responses",
    metadata,
    sa.Column("id", _Text, primary_key=True),
    _owner(nullable=False, index=True),
    sa.Column("prompt", _Text, nullable=False),
    sa.Column("shown", _Json, nullable=False),  # answers
    sa.Column("features", _Json, nullable=False),  # one vector for each answer, or none yet
    sa.Column("method", sa.String(64), nullable=False),
    sa.Column("coefficients", _Json, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("tokens", _Json, nullable=False),  # token ids of each answer
    sa.Column("log_probs", _Json),  # of each answer as it was sampled, where known
    sa.Column("created_at", sa.Double, nullable=False, default=time.time),
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("prefix", sa.String(16), primary_key=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Double, nullable=False, default=time.time),
    sa.Column("is_revoked", sa.Boolean, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("expires_at", sa.Double),
)
erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("n_rows", sa.Integer, nullable=False),
    sa.Column("erased_at", sa.Double, nullable=False),
    sa.Column("n_feedback", sa.Integer, nullable=False),
    sa.Column("n_responses", sa.Integer, nullable=False),
    sa.Column("remains", sa.Text, nullable=False),  # in files, and until when; or empty
)
marks = sa.Table(
    "marks",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
