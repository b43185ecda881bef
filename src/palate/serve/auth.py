"""Who calls: an API key, with its tenant and role.

Where no key was ever issued and the server listens on a loopback address only, everybody on the
machine is the administrator of the tenant `default`; requests must then name a loopback host, so
that a page of another site cannot reach the server through a name that leads here.
"""

from ipaddress import ip_address

from starlette.requests import HTTPConnection

from palate.core.errors import InvalidInputError
from palate.serve.errors import ApiError
from palate.store.database import Database
from palate.store.keys import ApiKey, find_key

LOOPBACK_NAMES = frozenset({"localhost", "testserver"})
MAX_KEY = 256
OPEN = ApiKey("open", "default", "without a key", 0.0, is_revoked=False, role="admin")


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
    """Refuse an address that others reach while no key protects it with InvalidInputError."""
    if not has_keys and not is_loopback(host):
        raise InvalidInputError(
            f"The address {host!r} can be reached from other machines, but no key was issued; "
            "make one with `palate keys issue`, or use --host 127.0.0.1."
        )


def require_loopback_name(connection: HTTPConnection) -> None:
    """Refuse requests under a foreign name while no key is needed with ApiError."""
    host = connection.headers.get("host", "").rsplit(":", 1)[0]
    if host and not is_loopback(host):
        raise ApiError(
            403,
            "Without keys the server answers to localhost only; issue a key to use other names.",
            code="foreign_host",
        )


def require_key(text: str, database: Database) -> ApiKey:
    """The key with this text; ApiError where there is none that works."""
    is_plausible = text.isascii() and 0 < len(text) <= MAX_KEY
    key = find_key(database, text) if is_plausible else None
    if key is None:
        raise ApiError(
            401,
            "The key is missing or wrong, was revoked or has expired; send "
            "'Authorization: Bearer KEY'.",
            code="invalid_api_key",
        )
    return key


def require_admin(caller: ApiKey) -> None:
    """Refuse what only administrators may do with ApiError."""
    if caller.role != "admin":
        raise ApiError(403, "This needs a key of the role 'admin'.", code="not_admin")
