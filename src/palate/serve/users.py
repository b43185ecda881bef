"""`/v1/users`: add, list, show, change, reset, export and erase users."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator

from palate.core.simplex import vector_from_mapping
from palate.serve.auth import require_admin
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.palate import user_id
from palate.serve.wire.users import Export, UserChange, UserIn, UserOut, UserRow, UsersOut
from palate.store.erase import Receipt, erase_user, list_receipts
from palate.store.export import export_user
from palate.store.users import add_user, change_user, find_user, list_users, start_afresh

router = APIRouter(tags=["users"])
# the middleware leaves `%2F` and `%25` of an address as they are: the router splits at slashes
UserPath = Annotated[
    str, Path(examples=["ana"]), AfterValidator(lambda text: user_id(unquote(text)))
]
ReceiptId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
MAX_NUMBER = 2**63 - 1


@router.post("/v1/users", status_code=201)
async def create(body: UserIn, served: Parts, caller: KnownCaller) -> UserOut:
    """Add a user, with a stated preference if there is one."""
    _require_preference(served, body.preference)
    await served.require_room(caller.tenant, body.user)
    is_new = await served.write(
        add_user, tenant=caller.tenant, name=body.user, preference=body.preference
    )
    if not is_new:
        raise ApiError(409, f"The user {body.user!r} exists already.", "user_exists", "user")
    return await _user_out(served, caller.tenant, body.user)


@router.get("/v1/users")
async def list_(
    served: Parts,
    caller: KnownCaller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER)] = 0,
) -> UsersOut:
    """All users, by arrival; for administrators."""
    require_admin(caller)
    users = await served.read(list_users, tenant=caller.tenant, after=after, limit=limit)
    rows = [UserRow(user=u.name, created_at=u.created_at, n_feedback=u.n_feedback) for u in users]
    return UsersOut(users=rows, next_after=None if len(users) < limit else users[-1].number)


@router.get("/v1/users/{user}")
async def show(user: UserPath, served: Parts, caller: KnownCaller) -> UserOut:
    """What is believed of a user."""
    return await _user_out(served, caller.tenant, user)


@router.patch("/v1/users/{user}")
async def change(user: UserPath, body: UserChange, served: Parts, caller: KnownCaller) -> UserOut:
    """Change the stated preference, or the user's own words, from which a belief starts."""
    _require_preference(served, body.preference)
    changes = body.model_dump(include=body.model_fields_set)
    await served.write(change_user, tenant=caller.tenant, name=user, **changes)
    return await _user_out(served, caller.tenant, user)


@router.post("/v1/users/{user}/reset")
async def reset(user: UserPath, served: Parts, caller: KnownCaller) -> UserOut:
    """Learn only from later feedback, but keep the log."""
    await served.write(start_afresh, tenant=caller.tenant, name=user)
    return await _user_out(served, caller.tenant, user)


@router.delete("/v1/users/{user}/feedback/{key}")
async def withdraw(user: UserPath, key: str, served: Parts, caller: KnownCaller) -> UserOut:
    """Learn as if this feedback had never been given; the log keeps it."""
    await _require_user(served, caller.tenant, user)
    store = served.store(caller.tenant)
    await served.in_database(lambda: store.withdraw(user, unquote(key)), is_writing=True)
    return await _user_out(served, caller.tenant, user)


@router.get("/v1/users/{user}/export")
async def export(user: UserPath, served: Parts, caller: KnownCaller) -> Export:
    """Everything that is stored of a user; for administrators."""
    require_admin(caller)
    await _require_user(served, caller.tenant, user)
    return await served.read(export_user, tenant=caller.tenant, user=user)


@router.delete("/v1/users/{user}")
async def erase(user: UserPath, served: Parts, caller: KnownCaller) -> Receipt:
    """Erase everything about a user; for administrators."""
    require_admin(caller)
    await _require_user(served, caller.tenant, user)
    try:
        return await served.write(erase_user, tenant=caller.tenant, user=user)
    finally:
        served.forget_prefixes(caller.tenant)


@router.get("/v1/receipts/{receipt}")
async def receipt_(receipt: ReceiptId, served: Parts, caller: KnownCaller) -> Receipt:
    """The receipt of an erasure, and what remains of it by now; for administrators."""
    require_admin(caller)
    for result in await served.read(list_receipts, tenant=caller.tenant, identifier=receipt):
        return result
    raise ApiError(404, f"The receipt {receipt} is not known here.", code="receipt_not_found")


async def _user_out(served: Served, tenant: str, name: str) -> UserOut:
    """The user for users to read."""

    def read() -> UserOut:
        store, user = served.store(tenant), find_user(served.database, tenant=tenant, name=name)
        if user is None:
            raise _unknown(name)
        return UserOut(
            user=name,
            created_at=user.created_at,
            preference=user.preference,
            instruction=user.instruction,
            belief=served.believer.out(
                store.belief(name), store.history(name), learner=store.learner_of(name)
            ),
        )

    return await served.in_database(read)


async def _require_user(served: Served, tenant: str, name: str) -> None:
    if await served.read(find_user, tenant=tenant, name=name) is None:
        raise _unknown(name)


def _unknown(name: str) -> ApiError:
    return ApiError(404, f"The user {name!r} is not known here.", "user_not_found")


def _require_preference(served: Served, preference: dict[str, float] | None) -> None:
    """Refuse a preference that is off the simplex or names an unknown objective."""
    if preference is not None:
        vector_from_mapping(preference, objectives=served.library.manifest.objective_names)
