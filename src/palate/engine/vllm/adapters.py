"""Merged soups on a running vLLM: loaded when they are needed, the least recently used one evicted.

An adapter that an answer is using is never evicted; a request for another one waits for a free
slot. The files of an evicted adapter stay until as many others were evicted: the server may still
begin a request that was cancelled, and vLLM dies of an adapter whose files are missing. For the
same reason the last files stay when the cache is closed. Names are hashes of the process's place,
the experts and the coefficients, so users of one process share a soup, and processes do not.
"""

import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.models.adapter import Adapter, as_factor, as_factors, save_adapter
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
