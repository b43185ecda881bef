"""`/v1/experts`: an expert joins the running server, or leaves it; for administrators."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from typing_extensions import TypedDict

from palate.core.errors import FormatError
from palate.library.experts import add_expert, remove_expert
from palate.library.library import Library
from palate.library.store import TENANT
from palate.serve.auth import require_admin
from palate.serve.errors import ApiError
from palate.serve.renew import renew, require_renewable
from palate.serve.state import KnownCaller, Served, Whole
from palate.serve.wire.palate import Name, Preference, WireIn
from palate.store.keys import ApiKey

router = APIRouter(tags=["library"])
ExpertName = Annotated[str, InPath(max_length=128)]


class ExpertIn(WireIn):
    """An adapter in the server's `experts_folder`, and the preference that it was trained for."""

    name: Name
    preference: Preference


class ExpertsOut(TypedDict):
    """The experts that new requests are answered with."""

    experts: list[str]
    fingerprint: str


@router.post("/v1/experts", status_code=201)
async def add(body: ExpertIn, whole: Whole, caller: KnownCaller) -> ExpertsOut:
    """Let an expert join: copied into the library, and there for requests from now on."""
    source = _folder(whole, caller) / body.name
    change = partial(add_expert, name=body.name, source=source, wanted=body.preference)
    return await _changed(whole, change)


@router.delete("/v1/experts/{name}")
async def remove(name: ExpertName, whole: Whole, caller: KnownCaller) -> ExpertsOut:
    """Let an expert leave: requests in progress end with it; its folder stays."""
    _folder(whole, caller)
    return await _changed(whole, partial(remove_expert, name=name))


def _folder(served: Served, caller: ApiKey) -> Path:
    """Where adapters may be added from; ApiError for all but administrators of the server."""
    require_admin(caller)
    if caller.tenant != TENANT:  # experts answer all tenants
        message = f"Only administrators of the tenant {TENANT!r} change the experts of all."
        raise ApiError(403, message, code="not_admin")
    folder = served.settings.experts_folder
    if folder is None:
        message = "Experts are fixed here; start the server with --set experts_folder=FOLDER."
        raise ApiError(403, message, code="experts_fixed")
    require_renewable(served)
    return folder


async def _changed(served: Served, change: Callable[[Library], None]) -> ExpertsOut:
    """Change the library's folder and load it; what is begun ends, also without the client."""

    async def work() -> ExpertsOut:
        async with served.renewing:
            await asyncio.to_thread(change, served.library)
            await renew(served)
        names = list(served.library.manifest.expert_names)
        return ExpertsOut(experts=names, fingerprint=served.fingerprint)

    try:
        return await asyncio.shield(asyncio.ensure_future(work()))
    except FormatError as error:
        raise ApiError(400, str(error), code="invalid_value", param="name") from error
    except OSError as error:
        message = (
            f"The library's folder cannot be changed ({error.strerror}); let the server write."
        )
        raise ApiError(403, message, code="read_only") from error
