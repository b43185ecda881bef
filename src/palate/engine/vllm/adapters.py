"""What one process has on a running vLLM: its place there, and the merged soups it has loaded.

Adapters are loaded when they are needed, the least recently used one evicted. One that an answer is
using is never evicted; a request for another one waits for a free slot. The files of an evicted
adapter stay until as many others were evicted: the server may still begin a request that was
cancelled, and vLLM dies of an adapter whose files are missing. For the same reason the last files
stay when the cache is closed. Names are hashes of the process's place, the experts and the
coefficients, so users of one process share a soup, and processes do not.

A place is a folder below `adapters_folder`, held by a lock that ends with the process, however that
ends. The names of a place's soups carry the folder, which the server reads by the same path, so
no process meets, replaces or evicts an adapter of another one. A process that takes a place unloads
the adapters that a dead process left there. The lock is `flock`: processes on several machines need
a file system that carries it between them, such as NFS 4.
"""

import fcntl
import os
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.engine.control import Controller
from palate.engine.vllm.client import VllmClient, VllmSettings
from palate.engine.vllm.rounding import Rounding
from palate.models.adapter import Adapter, as_factor, as_factors, save_adapter
from palate.models.load import Base
from palate.soup.merge import merge_modules

END_SECONDS = 1.0  # in which threads of ended answers let go of their adapters


@dataclass(frozen=True, eq=False)
class SoupMaker:
    """Merges experts into one adapter."""

    adapters: Sequence[Adapter]  # in bank order
    base_path: str  # for the adapter's configuration
    key: str  # hash of the experts, for names
    prefix: str  # begins all names

    def name(self, coefficients: Sequence[float]) -> str:
        """The adapter's name on the server."""
        listed = [float(c) for c in coefficients]
        return self.prefix + hash_value({"experts": self.key, "coefficients": listed})[:16]

    def rank(self, coefficients: Sequence[float]) -> int:
        """Largest rank of any layer of the merged adapter."""
        layers = {layer for adapter in self.adapters for layer in adapter}
        used = [a for a, c in zip(self.adapters, coefficients, strict=True) if c != 0.0]
        ranks = [sum(a[layer].rank for a in used if layer in a) for layer in layers]
        return max([1, *ranks])

    def save(self, coefficients: Sequence[float], folder: Path) -> None:
        """Write the exact sum of the experts' changes as one PEFT adapter, of scale one.

        The sum with no coefficient but zero is an adapter of rank one that changes nothing.
        """
        merged = merge_modules([as_factors(a) for a in self.adapters], list(coefficients))
        save_adapter(
            {layer: as_factor(factors) for layer, factors in merged.items()},
            folder,
            base_path=self.base_path,
        )


class AdapterCache:
    """The adapters that this process has loaded."""

    def __init__(
        self,
        *,
        folder: Path,
        capacity: int,
        load: Callable[[str, Path], None],
        unload: Callable[[str], None],
    ) -> None:
        """Start with none; `load` and `unload` speak to the server.

        Adapters that lie in the folder already are treated as evicted ones.
        """
        self.capacity = capacity
        self.n_loads = 0
        self.n_evictions = 0
        self._folder = folder
        self._load = load
        self._unload = unload
        self._users: OrderedDict[str, int] = OrderedDict()  # least recently used first
        left = [path for path in folder.glob("*") if path.is_dir()]
        left.sort(key=lambda path: path.stat().st_mtime)
        self._evicted = deque(path.name for path in left)  # whose files are still there
        self._changed = threading.Condition()

    @property
    def names(self) -> tuple[str, ...]:
        """The loaded adapters, least recently used first."""
        with self._changed:
            return tuple(self._users)

    @contextmanager
    def held(self, wanted: Mapping[str, Callable[[Path], None]]) -> Generator[None]:
        """While in force, these adapters are on the server; waits for slots.

        `wanted` says by name what writes the adapter into a new folder.

        Raises:
            InvalidInputError: more are wanted than may be loaded.
            ProviderError: the server cannot load one.
        """
        if len(wanted) > self.capacity:
            raise InvalidInputError(
                f"The plan needs {len(wanted)} merged adapters at a time, but at most "
                f"{self.capacity} are loaded; raise max_adapters."
            )
        with self._changed:
            self._changed.wait_for(lambda: self._has_slots(wanted))
            for name, write in wanted.items():
                if name not in self._users:
                    self._bring(name, write, wanted)
                self._users.move_to_end(name)
            for name in wanted:
                self._users[name] += 1
        try:
            yield
        finally:
            with self._changed:
                for name in wanted:
                    if name in self._users:
                        self._users[name] -= 1
                self._changed.notify_all()

    def reload(self, wanted: Mapping[str, Callable[[Path], None]]) -> None:
        """Load held adapters once more, after the server forgot them."""
        with self._changed:
            for name, write in wanted.items():
                self._send(name, write)

    def close(self) -> None:
        """Unload the adapters that no answer uses."""
        with self._changed:
            self._changed.wait_for(lambda: not any(self._users.values()), timeout=END_SECONDS)
            for name in [name for name, n in self._users.items() if n == 0]:
                self._drop(name)

    def _has_slots(self, wanted: Mapping[str, object]) -> bool:
        fixed = {name for name, n in self._users.items() if n > 0} | wanted.keys()
        return len(fixed) <= self.capacity

    def _bring(
        self, name: str, write: Callable[[Path], None], wanted: Mapping[str, object]
    ) -> None:
        while len(self._users) >= self.capacity:
            self._drop(next(n for n, users in self._users.items() if not users and n not in wanted))
            self.n_evictions += 1
        self._send(name, write)
        self._users[name] = 0

    def _send(self, name: str, write: Callable[[Path], None]) -> None:
        folder = self._folder / name
        if name in self._evicted:
            self._evicted.remove(name)
        if not folder.is_dir():
            part = self._folder / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            write(part)
            part.rename(folder)
        self._load(name, folder)
        self.n_loads += 1

    def _drop(self, name: str) -> None:
        self._unload(name)
        del self._users[name]
        self._evicted.append(name)
        while len(self._evicted) > self.capacity:
            shutil.rmtree(self._folder / self._evicted.popleft(), ignore_errors=True)


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


Writers = dict[str, Callable[[Path], None]]  # by adapter name, what writes its folder


@dataclass(frozen=True, eq=False)
class VllmContext:
    """The parts of a vLLM engine."""

    base: Base  # tokenizer, stop tokens, size of the vocabulary; its parameters are not used
    names: tuple[str, ...]  # experts in bank order, as the server's LoRA modules are called
    client: VllmClient  # with this process's share of the settings
    place: Place  # this process's own
    cache: AdapterCache  # merged soups on the server
    maker: SoupMaker
    rounding: Rounding
    controllers: Mapping[str, Controller]  # by name
    row_threads: ThreadPoolExecutor  # for the rows of pooled answers
    context_length: int | None = None  # most tokens of prompt and answer, where the server says

    @property
    def settings(self) -> VllmSettings:
        """This process's share of the settings."""
        return self.client.settings

    @property
    def abort_id(self) -> int:
        """A token that no answer contains: it ends the rows of a group that the server split."""
        tokenizer: Any = self.base.tokenizer
        special = [int(token) for token in getattr(tokenizer, "all_special_ids", ())]
        idle = [token for token in special if token not in self.base.stop_ids]
        return idle[0] if idle else self.base.n_vocab - 1

    def model_of(self, coefficients: Sequence[float]) -> tuple[str, Writers]:
        """The server's name for a row's model, and how to write it if it must be loaded.

        Raises:
            InvalidInputError: the soup is larger than the server's adapters may be.
        """
        settings = self.settings
        active = [k for k, c in enumerate(coefficients) if c != 0.0]
        if not active and (not settings.base_as_adapter or not self.names):
            return settings.base_name, {}
        if len(active) == 1 and coefficients[active[0]] == 1.0:
            return self.names[active[0]], {}
        rank = self.maker.rank(coefficients)
        if rank > settings.max_lora_rank:
            raise InvalidInputError(
                f"The exact soup has rank {rank}, but max_lora_rank is {settings.max_lora_rank}; "
                "start the server with a larger --max-lora-rank and set it, or use fewer experts."
            )
        name, values = self.maker.name(coefficients), tuple(coefficients)
        return name, {name: lambda folder: self.maker.save(values, folder)}
