"""`/v1/people`: who is known, what is believed of one, change, reset, export, erase."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from palate.core.errors import InvalidInputError
from palate.core.types import Preference as CheckedPreference
from palate.profiles.erase import erase_person
from palate.profiles.export import export_person
from palate.profiles.persons import (
    Person,
    add_person,
    find,
    list_persons,
    start_afresh,
    state_preference,
)
from palate.serve.auth import require_admin
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.people import (
    Export,
    PeopleOut,
    PersonChange,
    PersonIn,
    PersonOut,
    PersonRow,
    ReceiptOut,
)

router = APIRouter(tags=["people"])
PersonPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$", examples=["ana"])]
MAX_NUMBER = 2**63 - 1


@router.post("/v1/people", status_code=201)
async def create(asked: PersonIn, served: Parts, caller: KnownCaller) -> PersonOut:
    """Make a person, with what the person says to want."""
    _require_preference(served, asked.preference)
    is_new = await served.in_database(
        lambda: add_person(
            served.database,
            tenant=caller.tenant,
            name=asked.person,
            preference=asked.preference,
        )
    )
    if not is_new:
        raise ApiError(
            409, f"The person {asked.person!r} exists already.", "person_exists", "person"
        )
    return await shown(served, caller.tenant, asked.person)


@router.get("/v1/people")
async def list_(
    served: Parts,
    caller: KnownCaller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER)] = 0,
) -> PeopleOut:
    """Everybody, by arrival; for administrators."""
    require_admin(caller)
    found = await served.in_database(
        lambda: list_persons(served.database, tenant=caller.tenant, after=after, limit=limit)
    )
    rows = [
        PersonRow(person=row.name, created_at=row.created_at, n_feedback=row.n_feedback)
        for row in found
    ]
    is_whole = len(found) < limit
    return PeopleOut(people=rows, next_after=None if is_whole else found[-1].number)


@router.get("/v1/people/{person}")
async def show(person: PersonPath, served: Parts, caller: KnownCaller) -> PersonOut:
    """What is believed of a person."""
    return await shown(served, caller.tenant, person)


@router.patch("/v1/people/{person}")
async def change(
    person: PersonPath, asked: PersonChange, served: Parts, caller: KnownCaller
) -> PersonOut:
    """Change what the person says to want."""
    _require_preference(served, asked.preference)
    await served.in_database(
        lambda: state_preference(
            served.database, tenant=caller.tenant, name=person, preference=asked.preference
        )
    )
    return await shown(served, caller.tenant, person)


@router.post("/v1/people/{person}/reset")
async def reset(person: PersonPath, served: Parts, caller: KnownCaller) -> PersonOut:
    """Learn only from what the person says from now on; the log is kept."""
    await served.in_database(
        lambda: start_afresh(served.database, tenant=caller.tenant, name=person)
    )
    return await shown(served, caller.tenant, person)


@router.get("/v1/people/{person}/export")
async def export(person: PersonPath, served: Parts, caller: KnownCaller) -> Export:
    """Everything that is kept of a person; for administrators."""
    require_admin(caller)
    await _require(served, caller.tenant, person)
    found: dict[str, Any] = await served.in_database(
        lambda: export_person(served.database, tenant=caller.tenant, person=person)
    )
    return found


@router.delete("/v1/people/{person}")
async def erase(person: PersonPath, served: Parts, caller: KnownCaller) -> ReceiptOut:
    """Erase everything about a person; for administrators."""
    require_admin(caller)
    await _require(served, caller.tenant, person)
    receipt = await served.in_database(
        lambda: erase_person(served.database, tenant=caller.tenant, person=person)
    )
    return ReceiptOut.model_validate(receipt.to_json())


async def shown(served: Served, tenant: str, name: str) -> PersonOut:
    """The person for people to read.

    Raises:
        ApiError: there is no such person.
    """
    person = await _require(served, tenant, name)

    def read() -> PersonOut:
        store = served.store(tenant)
        belief = store.belief(name) or served.believer.start()
        return PersonOut(
            person=person.name,
            created_at=person.created_at,
            preference=person.preference,
            belief=served.believer.out(belief, lambda: store.history(name)),
        )

    return await served.in_database(read)


async def _require(served: Served, tenant: str, name: str) -> Person:
    found = await served.in_database(lambda: find(served.database, tenant=tenant, name=name))
    if found is None:
        raise ApiError(404, f"The person {name!r} is not known here.", "person_not_found")
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
