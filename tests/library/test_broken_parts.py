"""Broken files of a library are refused when it is opened for serving, one sentence each."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from palate.core.errors import PalateError
from palate.core.files import hash_bytes
from palate.engine.bank import AdapterBank
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.policy import Measured, Policy, PolicyFile, save_policy
from palate.library.rewards import library_rewards
from palate.models.load import Base, load_base
from palate.portfolio.payoff_file import load_payoffs, save_payoffs
from palate.portfolio.record import load_record

FILES = [
    "library.json",
    "soup.json",
    "portfolio.json",
    "methods.json",
    "payoff.json",
    "policies/kind.json",
    "experts/kind/adapter_config.json",
    "rewards/kind/rule.json",
    "controller/run.json",
    "controller/config.json",
]
# places that may be absent, because they have a default or are data by name
DEFAULTS = re.compile(
    r"text_fingerprint|description|instruction|opposite|phrases|direction\.|files\.|rewards\.\w+$|^controller$"
    r"|effective_rank\.|settings\.|strength|experts_key|slack|level_stderr|reward_range|optimum"
    r"|stderr|\.kl$|\.preference|^answers|coefficients\.|rule\.unit|objective$"
    r"|decoder\.(?!model_type$)"
)
# peft's that loading does not use, and the grid's points, which follow from its denominator
UNREAD = re.compile(r"lora_dropout|qalora_group_size|^r$|^preferences(\.|$)")
SECONDS = 1.0  # of processor time, since the machine may be busy


@pytest.fixture(scope="module")
def folder(tiny_full_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a file of every kind; tests put back what they change."""
    copy = shutil.copytree(tiny_full_library, tmp_path_factory.mktemp("broken") / "library")
    manifest = LibraryFolder.open(copy).manifest
    table = load_record(copy / "portfolio.json").payoffs
    save_payoffs(copy / "payoff.json", table)
    policy = Policy("kind", "expert", (1.0, 0.0, 0.0), {"kind": 1.0})
    measured = Measured(table.table.values[:1], table.table.kl[:1], (("a",),))
    key = {"kind": manifest.expert("kind").key}
    save_policy(copy / "policies/kind.json", PolicyFile(policy, measured, "k", key))
    return copy


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(LibraryFolder.open(folder).manifest.base.path)


def _open(folder: Path, base: Base) -> None:
    """What `Library.load` and the start of a server read."""
    files = LibraryFolder.open(folder)
    bank = AdapterBank.load(base, files.expert_folders())
    library = Library(files, base, bank)
    _ = library.portfolio, library.controller, library.method_table, library.floor
    _ = library.sampling, library_rewards(files), load_payoffs(folder / "payoff.json")
    bank.close()


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if place:
        yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*place, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value[:2]):
            yield from _places(inner, (*place, key))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _changed(whole: Any, place: tuple[Any, ...], value: Any = None, *, is_gone: bool) -> str:
    copy = deepcopy(whole)
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    if is_gone:
        del inner[place[-1]]
    return json.dumps(copy).replace('"1e999"', "1e999")


def _each(whole: Any, value: Any, *, of: type | None = None) -> dict[str, str]:
    """The value instead of each number, or of each value of another type."""
    return {
        ".".join(map(str, place)): _changed(whole, place, value, is_gone=False)
        for place, inner in _places(whole)
        if place[0] != "schema_version"
        and (_is_number(inner) if of is None else isinstance(inner, of))
    }


DAMAGE = {
    "torn": lambda text, _: {"": text[: len(text) // 2]},
    "empty": lambda *_: {"": ""},
    "deep": lambda *_: {"": "[" * 100_000},
    "of another kind": lambda *_: {"": '{"kind": "other", "schema_version": 1}'},
    "a list": lambda _, whole: {"": "[]", **_each(whole, [], of=dict)},
    "text": lambda _, whole: {"": '"text"', **_each(whole, "text")},
    "NaN": lambda _, whole: _each(whole, float("nan")),
    "Infinity": lambda _, whole: _each(whole, float("inf")),
    "too large": lambda _, whole: _each(whole, "1e999"),
    "no key": lambda _, whole: {
        ".".join(map(str, place)): _changed(whole, place, is_gone=True)
        for place, _ in _places(whole)
        if isinstance(place[-1], str)
    },
    "beta below zero": lambda _, whole: {
        name: text for name, text in _each(whole, -0.1).items() if name.endswith("beta")
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_refused(name: str, damage: str, folder: Path, base: Base) -> None:
    path, manifest = folder / name, folder / "library.json"
    text, entered = path.read_text(), manifest.read_text()
    _open(folder, base)
    faults: dict[str, str] = {}
    try:
        for place, broken in DAMAGE[damage](text, json.loads(text)).items():
            if _is_optional(name, damage, place):
                continue
            # entered under its new hash, as if it had been written so
            hashes = hash_bytes(text.encode()), hash_bytes(broken.encode())
            manifest.write_text(entered.replace(*hashes))
            path.write_text(broken)
            if fault := _fault(folder, base, path):
                faults[place] = fault
    finally:
        path.write_text(text)
        manifest.write_text(entered)
    assert not faults


def _is_optional(name: str, damage: str, place: str) -> bool:
    is_of_adapter = "experts/" in name and damage in ("a list", "no key")
    return bool(
        UNREAD.search(place)
        or (damage == "no key" and DEFAULTS.search(place))
        or (is_of_adapter and place not in ("", "lora_alpha", "peft_type"))
    )


def _fault(folder: Path, base: Base, path: Path) -> str | None:
    """What is wrong with how the library is refused."""
    started = time.process_time()
    try:
        _open(folder, base)
    except PalateError as error:
        is_named = str(path) in str(error) and "\n" not in str(error)
        is_fast = time.process_time() - started < SECONDS
        return None if is_named and is_fast else f"does not name the file at once: {error}"
    except Exception as error:  # noqa: BLE001  a traceback is what is looked for
        return repr(error)
    return "was accepted"
