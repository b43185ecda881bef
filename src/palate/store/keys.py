"""API keys: who may speak for a tenant. Only a digest is kept.

A key is `pk_PREFIX_SECRET`. The secret has 256 random bits, so a plain SHA-256 of it cannot be
guessed back; the key is shown once, when it is issued.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from sqlalchemy import Row, insert, select, update

from palate.core.errors import InvalidInputError
from palate.store.database import Database
from palate.store.rows import require_tenant
from palate.store.tables import api_keys

Role = Literal["user", "admin"]


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; not the key itself.

    Attributes:
        prefix: Names the key.
        tenant: For whom it speaks.
        label: What users call it.
        created_at: Seconds since 1970.
        is_revoked: Whether it has stopped working.
        role: `admin` may also list, export and erase users.
        expires_at: Seconds since 1970 from which on it does not work; `None` for never.
    """

    prefix: str
    tenant: str
    label: str
    created_at: float
    is_revoked: bool
    role: Role = "user"
    expires_at: float | None = None


def issue_key(
    database: Database,
    *,
    tenant: str = "default",
    label: str = "",
    role: Role = "user",
    lasts_seconds: float | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """A new key of the tenant; the only time that it is seen.

    Raises:
        InvalidInputError: the role is unknown, or the key would end before it begins.
    """
    if role not in get_args(Role):
        raise InvalidInputError(f"The role {role!r} is unknown; use 'user' or 'admin'.")
    if lasts_seconds is not None and not lasts_seconds > 0:
        raise InvalidInputError(f"A key cannot last {lasts_seconds} seconds; give more than 0.")
    prefix, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    key = f"pk_{prefix}_{secret}"
    with database.writing() as connection:
        now = clock()
        require_tenant(connection, tenant=tenant, now=now)
        connection.execute(
            insert(api_keys).values(
                prefix=prefix,
                tenant=tenant,
                label=label,
                digest=_digest(key),
                created_at=now,
                is_revoked=False,
                role=role,
                expires_at=None if lasts_seconds is None else now + lasts_seconds,
            )
        )
    return key


def find_key(
    database: Database, key: str, *, clock: Callable[[], float] = time.time
) -> ApiKey | None:
    """The key, if it was issued, not revoked and has not expired."""
    with database.reading() as connection:
        row = connection.execute(
            select(api_keys).where(
                api_keys.c.digest == _digest(key), api_keys.c.is_revoked.is_(False)
            )
        ).first()
    if row is None or (row.expires_at is not None and clock() >= row.expires_at):
        return None
    return _from_row(row)


def list_keys(database: Database, *, tenant: str | None = None) -> list[ApiKey]:
    """Keys, oldest first, of one tenant or all."""
    statement = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.prefix)
    if tenant is not None:
        statement = statement.where(api_keys.c.tenant == tenant)
    with database.reading() as connection:
        rows = connection.execute(statement).all()
    return [_from_row(row) for row in rows]


def revoke_key(database: Database, *, prefix: str) -> None:
    """Stop the key from working, from now on and for good.

    Raises:
        InvalidInputError: no key has this prefix.
    """
    with database.writing() as connection:
        done = connection.execute(
            update(api_keys).where(api_keys.c.prefix == prefix).values(is_revoked=True)
        )
        if done.rowcount == 0:
            raise InvalidInputError(
                f"No key has the prefix {prefix!r}; see the keys with `palate users keys list`."
            )


def _from_row(row: Row[Any]) -> ApiKey:
    return ApiKey(
        prefix=row.prefix,
        tenant=row.tenant,
        label=row.label,
        created_at=row.created_at,
        is_revoked=row.is_revoked,
        role=cast(Role, row.role),
        expires_at=row.expires_at,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
