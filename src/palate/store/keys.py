"""API keys: who may speak for a tenant. The database holds only a digest of each.

A key is `pk_PREFIX_SECRET`. The secret has 256 random bits, so a plain SHA-256 of it cannot be
guessed back; the key is shown once, when it is issued.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

from sqlalchemy import insert, select, update

from palate.core.errors import InvalidInputError
from palate.store.database import Database
from palate.store.rows import require_tenant
from palate.store.tables import api_keys

Role = Literal["user", "admin", "operator"]


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; not the key itself."""

    prefix: str  # names the key
    tenant: str
    label: str
    created_at: float  # seconds since 1970
    is_revoked: bool
    # `admin` may also list, export and erase users and read the tenant's metrics; `operator` reads
    # those of the whole server
    role: Role = "user"
    expires_at: float | None = None  # seconds since 1970 at which it stops working, if ever


_COLUMNS = tuple(api_keys.c[field.name] for field in fields(ApiKey))


def issue_key(
    database: Database,
    *,
    tenant: str = "default",
    label: str = "",
    role: str = "user",
    lasts_seconds: float | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """A new key of the tenant; it can be seen only now.

    Raises:
        InvalidInputError: the role is unknown, or the key would end before it begins.
    """
    if role not in get_args(Role):
        raise InvalidInputError(f"The role {role!r} is unknown; use 'user', 'admin' or 'operator'.")
    if lasts_seconds is not None and not lasts_seconds > 0:
        raise InvalidInputError(f"A key cannot last {lasts_seconds} seconds; give more than 0.")
    prefix, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    key = f"pk_{prefix}_{secret}"
    with database.writing() as connection:
        now = clock()
        ends = None if lasts_seconds is None else now + lasts_seconds
        row = ApiKey(prefix, tenant, label, now, is_revoked=False, expires_at=ends)
        require_tenant(connection, tenant=tenant)
        connection.execute(
            insert(api_keys).values(**{**vars(row), "digest": _digest(key), "role": role})
        )
    return key


def find_key(
    database: Database, key: str, *, clock: Callable[[], float] = time.time
) -> ApiKey | None:
    """The key, if it was issued, not revoked and has not expired."""
    is_it = (api_keys.c.digest == _digest(key)) & api_keys.c.is_revoked.is_(False)
    with database.reading() as connection:
        row = connection.execute(select(*_COLUMNS).where(is_it)).first()
    if row is not None and row.expires_at is not None and clock() >= row.expires_at:
        end_keys(database, clock=clock)
        return None
    return None if row is None else ApiKey(*row)


def end_keys(database: Database, *, clock: Callable[[], float] = time.time) -> None:
    """Revoke the keys that have expired, so that they stay ended where the clock is set back."""
    ended = update(api_keys).where(api_keys.c.expires_at <= clock())
    with database.writing() as connection:
        connection.execute(ended.values(is_revoked=True))


def list_keys(database: Database) -> list[ApiKey]:
    """All keys, oldest first."""
    ordered = select(*_COLUMNS).order_by(api_keys.c.created_at, api_keys.c.prefix)
    with database.reading() as connection:
        return [ApiKey(*row) for row in connection.execute(ordered)]


def has_keys(database: Database) -> bool:
    """Whether a key was ever issued, so that every request needs one, also when all have ended."""
    with database.reading() as connection:
        return connection.execute(select(api_keys.c.prefix).limit(1)).first() is not None


def revoke_key(database: Database, *, prefix: str) -> None:
    """Stop the key from working, from now on and for good.

    Raises:
        InvalidInputError: no key has this prefix.
    """
    with database.writing() as connection:
        result = connection.execute(
            update(api_keys).where(api_keys.c.prefix == prefix).values(is_revoked=True)
        )
        if result.rowcount == 0:
            raise InvalidInputError(
                f"No key has the prefix {prefix!r}; see the keys with `palate keys list`."
            )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
