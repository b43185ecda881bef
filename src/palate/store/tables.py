"""The tables of the newest schema; `migrations` says how to get there.

Vectors are kept as little-endian float64, so that what is read is bit for bit what was written.
`users.name` is the only place of a user's identifier; every other table refers to it by number,
and goes with it.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
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
    UniqueConstraint,
)

metadata = MetaData()
Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by INTEGER only

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created_at", Double, nullable=False),
)
users = Table(
    "users",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("tenant", String(64), ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("preference", Text),  # JSON, as the user stated it
    Column("instruction", Text),  # in the user's own words
    Column("forgotten", Integer, nullable=False, default=0),  # feedback up to here is not learned
    UniqueConstraint("tenant", "name"),
    sqlite_autoincrement=True,  # the number of an erased user is never given again
)
beliefs = Table(
    "beliefs",
    metadata,
    Column("user", Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("mean", LargeBinary, nullable=False),
    Column("covariance", LargeBinary, nullable=False),
    Column("n_observations", Integer, nullable=False),
    Column("gain", Double, nullable=False),
    Column("learner", String(64), nullable=False),  # digest of prior and settings
)
feedback = Table(
    "feedback",
    metadata,
    Column("user", Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("key", Text),
    Column("kind", String(16), nullable=False),
    Column("features", LargeBinary, nullable=False),
    Column("label", Double, nullable=False),
    Column("group", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("user", "key"),
)
responses = Table(
    "responses",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user", Key, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("prompt", Text, nullable=False),
    Column("shown", Text, nullable=False),  # JSON list of answers
    Column("features", Text, nullable=False),  # JSON list of vectors, one for each answer
    Column("method", String(64), nullable=False),
    Column("coefficients", Text, nullable=False),  # JSON
    Column("seed", BigInteger, nullable=False),
    Column("tokens", Text, nullable=False),  # JSON list of token ids, one list for each answer
    Column("created_at", Double, nullable=False),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("prefix", String(16), primary_key=True),
    Column("tenant", String(64), ForeignKey("tenants.id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
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
)
marks = Table(
    "marks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)


def pack(values: Float[ndarray, "*shape"]) -> bytes:
    """Numbers as little-endian float64."""
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def unpack(content: bytes) -> Float[ndarray, " values"]:
    """The numbers written by `pack`, flat and free to change."""
    return np.frombuffer(content, dtype="<f8").astype(np.float64)
