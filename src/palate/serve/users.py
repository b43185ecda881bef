"""`/v1/users`: who is known, what is believed of one, change, reset, export, erase."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from palate.core.errors import InvalidInputError
from palate.core.types import Preference as CheckedPreference
from palate.serve.auth import require_admin
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.users import (
    Export,
    ReceiptOut,
    UserChange,
    UserIn,
    UserOut,
    UserRow,
    UsersOut,
)
from palate.store.erase import erase_user
from palate.store.export import export_user
from palate.store.users import (
    User,
    add_user,
    find,
    list_users,
    start_afresh,
    state_preference,
)

router = APIRouter(tags=["users"])
UserPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$", examples=["ana"])]
MAX_NUMBER = 2**63 - 1


@router.post("/v1/users", status_code=201)
async def create(asked: UserIn, served: Parts, caller: KnownCaller) -> UserOut:
    """Make a user, with what the user says to want."""
    _require_preference(served, asked.preference)
    is_new = await served.in_database(
        lambda: add_user(
            served.database,
            tenant=caller.tenant,
            name=asked.user,
            preference=asked.preference,
        )
    )
    if not is_new:
        raise ApiError(409, f"The user {asked.user!r} exists already.", "user_exists", "user")
    return await shown(served, caller.tenant, asked.user)


@router.get("/v1/users")
async def list_(
    served: Parts,
    caller: KnownCaller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER)] = 0,
) -> UsersOut:
    """Everybody, by arrival; for administrators."""
    require_admin(caller)
    found = await served.in_database(
        lambda: list_users(served.database, tenant=caller.tenant, after=after, limit=limit)
    )
    rows = [
        UserRow(user=row.name, created_at=row.created_at, n_feedback=row.n_feedback)
        for row in found
    ]
    is_whole = len(found) < limit
    return UsersOut(users=rows, next_after=None if is_whole else found[-1].number)


@router.get("/v1/users/{user}")
async def show(user: UserPath, served: Parts, caller: KnownCaller) -> UserOut:
    """What is believed of a user."""
    return await shown(served, caller.tenant, user)


@router.patch("/v1/users/{user}")
async def change(user: UserPath, asked: UserChange, served: Parts, caller: KnownCaller) -> UserOut:
    """Change what the user says to want."""
    _require_preference(served, asked.preference)
    await served.in_database(
        lambda: state_preference(
            served.database, tenant=caller.tenant, name=user, preference=asked.preference
        )
    )
    return await shown(served, caller.tenant, user)


@router.post("/v1/users/{user}/reset")
async def reset(user: UserPath, served: Parts, caller: KnownCaller) -> UserOut:
    """Learn only from what the user says from now on; the log is kept."""
    await served.in_database(lambda: start_afresh(served.database, tenant=caller.tenant, name=user))
    return await shown(served, caller.tenant, user)


@router.get("/v1/users/{user}/export")
async def export(user: UserPath, served: Parts, caller: KnownCaller) -> Export:
    """Everything that is kept of a user; for administrators."""
    require_admin(caller)
    await _require(served, caller.tenant, user)
    found: dict[str, Any] = await served.in_database(
        lambda: export_user(served.database, tenant=caller.tenant, user=user)
    )
    return found


@router.delete("/v1/users/{user}")
async def erase(user: UserPath, served: Parts, caller: KnownCaller) -> ReceiptOut:
    """Erase everything about a user; for administrators."""
    require_admin(caller)
    await _require(served, caller.tenant, user)
    receipt = await served.in_database(
        lambda: erase_user(served.database, tenant=caller.tenant, user=user)
    )
    return ReceiptOut.model_validate(receipt.to_json())


async def shown(served: Served, tenant: str, name: str) -> UserOut:
    """The user for users to read.

    Raises:
        ApiError: there is no such user.
    """
    user = await _require(served, tenant, name)

    def read() -> UserOut:
        store = served.store(tenant)
        belief = store.belief(name) or served.believer.start()
        return UserOut(
            user=user.name,
            created_at=user.created_at,
            preference=user.preference,
            belief=served.believer.out(belief, lambda: store.history(name)),
        )

    return await served.in_database(read)


async def _require(served: Served, tenant: str, name: str) -> User:
    found = await served.in_database(lambda: find(served.database, tenant=tenant, name=name))
    if found is None:
        raise ApiError(404, f"The user {name!r} is not known here.", "user_not_found")
    return found


def _require_preference(served: Served, preference: Mapping[str, float] | None) -> None:
    """Refuse what no objective or no simplex holds.

    Raises:
        InvalidInputError: it is refused.
    """
    if preference is None:
        return
    names = served.library.manifest.objective_names
    unknown = [name for name in preference if name not in names]
    if unknown:
        raise InvalidInputError(
            f"The preference names the unknown objective {unknown[0][:80]!r}; known are "
            f"{', '.join(names)}."
        )
    CheckedPreference.from_mapping(preference, objectives=names)
