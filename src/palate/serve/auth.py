"""Who calls: the key's tenant and role.

Where no key was ever issued and the server listens on a loopback address only, everybody on the
machine is the administrator of the tenant `default`; requests must then name a loopback host, so
that a page of another site cannot reach the server through a name that leads here.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from palate.core.errors import InvalidInputError
from palate.serve.errors import ApiError
from palate.store.database import Database
from palate.store.keys import ApiKey, Role, find_key

LOOPBACK_NAMES = frozenset({"localhost", "testserver"})
MAX_KEY = 256


@dataclass(frozen=True)
class Caller:
    """Who calls.

    Attributes:
        tenant: Whose users may be spoken for.
        role: `admin` may also list, export and erase users and read metrics.
        name: Of the bucket that limits the rate: the key's prefix.
    """

    tenant: str
    role: Role
    name: str


OPEN = Caller("default", "admin", "open")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    name = host.strip("[]")
    if name in LOOPBACK_NAMES:
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def require_safe_host(host: str, *, has_keys: bool) -> None:
    """Refuse to listen on an address that others reach while no key protects it.

    Raises:
        InvalidInputError: it is one.
    """
    if not has_keys and not is_loopback(host):
        raise InvalidInputError(
            f"The address {host!r} can be reached from other machines, but no key was issued; "
            "make one with `palate users keys issue`, or use --host 127.0.0.1."
        )


def bearer(connection: HTTPConnection) -> str | None:
    """The key that the request carries."""
    kind, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.strip() else None


def require_loopback_name(connection: HTTPConnection) -> None:
    """Refuse requests under a foreign name while no key is needed.

    Raises:
        ApiError: the Host header is not this machine's.
    """
    host = connection.headers.get("host", "").rsplit(":", 1)[0]
    if host and not is_loopback(host):
        raise ApiError(
            403,
            "Without keys the server answers to localhost only; issue a key to use other names.",
            code="foreign_host",
        )


def caller_of(key: ApiKey | None) -> Caller:
    """Who the key speaks for.

    Raises:
        ApiError: there is no such key, or it was revoked or has expired.
    """
    if key is None:
        raise ApiError(
            401,
            "The key is missing or wrong, was revoked or has expired; send "
            "'Authorization: Bearer KEY'.",
            code="invalid_api_key",
        )
    return Caller(key.tenant, key.role, key.prefix)


def look_up(database: Database, key: str | None) -> ApiKey | None:
    """The key in the database; a strange text is none."""
    if key is None or len(key) > MAX_KEY or not key.isascii():
        return None
    return find_key(database, key)


def require_admin(caller: Caller) -> None:
    """Refuse what only administrators may do.

    Raises:
        ApiError: the caller is none.
    """
    if caller.role != "admin":
        raise ApiError(403, "This needs a key of the role 'admin'.", code="not_admin")
