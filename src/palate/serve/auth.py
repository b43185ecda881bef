"""Who calls: an API key, with its tenant and role.

Where no key was ever issued and the server listens on a loopback address only, everybody on the
machine is the administrator of the tenant `default`; requests must then name a loopback host, so
that a page of another site cannot reach the server through a name that leads here.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers

from palate.core.errors import InvalidInputError
from palate.serve.errors import ApiError
from palate.store.database import Database
from palate.store.keys import ApiKey, find_key

MAX_KEY = 256
HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
OPEN = ApiKey("open", "default", "without a key", 0.0, is_revoked=False, role="admin")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe_host(host: str, *, has_keys: bool) -> None:
    """Refuse an address that others reach while no key protects it with InvalidInputError."""
    if not has_keys and not is_loopback(host):
        raise InvalidInputError(
            f"The address {host!r} can be reached from other machines, but no key was issued; "
            "make one with `palate keys issue`, or use --host 127.0.0.1."
        )


def require_loopback_name(headers: Headers) -> None:
    """Refuse requests under a foreign name while no key is needed with ApiError."""
    host = headers.get("host", "")
    name = HOST.fullmatch(host)
    if host and not (name and is_loopback(name[1] or name[2])):
        message = (
            "Without keys the server answers to localhost only; issue a key to use other names."
        )
        raise ApiError(403, message, "foreign_host")


def require_own_site(headers: Headers, *, others: Collection[str] = ()) -> None:
    """Refuse what a page of a site but these sent, as the browser says, with ApiError."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_own = site in ("same-origin", "none") or origin in others
    if site is None and not is_own:  # an older browser, or no browser
        is_own = origin is None or origin.partition("://")[2] == headers.get("host")
    if not is_own:
        message = "A page of another site sent this; name its origin in cors_origins, or use ours."
        raise ApiError(403, message, code="foreign_origin")


def require_key(text: str, database: Database) -> ApiKey:
    """The key with this text; ApiError where there is none that works."""
    is_plausible = text.isascii() and 0 < len(text) <= MAX_KEY
    key = find_key(database, text) if is_plausible else None
    if key is None:
        message = (
            "The key is missing or wrong, was revoked or has expired; send "
            "'Authorization: Bearer KEY'."
        )
        raise ApiError(401, message, code="invalid_api_key")
    return key


def require_admin(caller: ApiKey) -> None:
    """Refuse what only administrators may do with ApiError."""
    if caller.role != "admin":
        raise ApiError(403, "This needs a key of the role 'admin'.", code="not_admin")
