"""Places on a vLLM that several processes use: what a process loads is its own alone.

A place is a folder below `adapters_folder`, held by a lock that ends with the process, however that
ends. The names of a place's soups carry the folder, which the server reads by the same path, so
no process meets, replaces or evicts an adapter of another one. A process that takes a place unloads
the adapters that a dead process left there.

The lock is `flock`: processes on several machines need a file system that carries it between them,
such as NFS 4.
"""

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.engine.vllm.client import VllmSettings

LOCK = "lock"
WAIT_SECONDS = 10.0  # for a process that is about to end, such as a replica being replaced
LOOK_SECONDS = 0.2


@dataclass(frozen=True, eq=False)
class Place:
    """A folder that is this process's own."""

    folder: Path  # for the soups' files
    prefix: str  # begins the names of all soups that are loaded from there
    release: Callable[[], None]  # lets another process have it; a second call does nothing


def share_of(settings: VllmSettings) -> VllmSettings:
    """Settings of one process: all of them together load and ask no more than the settings say.

    Raises:
        InvalidInputError: there is less than one of something for each.
    """
    n = settings.n_processes
    shares = {name: getattr(settings, name) // n for name in ("max_adapters", "max_concurrent")}
    for name, share in shares.items():
        if share < 1:
            raise InvalidInputError(
                f"{name} is {getattr(settings, name)} for {n} processes, which is less than one "
                "for each; raise it, and what the vLLM was started with, or use fewer processes."
            )
    return settings.model_copy(update=shares)


def take_place(adapters_folder: Path, *, n_places: int) -> Place:
    """The first place that nobody holds; waits a moment for one to become free.

    Raises:
        InvalidInputError: all are held, or the file system knows no locks.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        for number in range(n_places):
            folder = (adapters_folder / f"place-{number}").resolve()
            release = _hold(folder)
            if release is not None:
                return Place(folder, f"palate-soup-{hash_value(str(folder))[:8]}-", release)
        if time.monotonic() > until:
            raise InvalidInputError(
                f"All {n_places} places on the vLLM below {str(adapters_folder)!r} are held by "
                "other processes; set n_processes to how many use the server, the same in each, "
                "or give this one an adapters_folder of its own."
            )
        time.sleep(LOOK_SECONDS)


def _hold(folder: Path) -> Callable[[], None] | None:
    """Lock the folder; gives what unlocks it, or `None` if another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise InvalidInputError(
            f"The file system of {str(folder)!r} locks no files ({os.strerror(error.errno or 0)}); "
            "put adapters_folder on one that does."
        ) from error
    return file.close
