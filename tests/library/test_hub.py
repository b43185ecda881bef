"""A library goes to the hub and comes back the same; a stranger's runs nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hub_server import Hub, running_hub
from palate.core.errors import InvalidInputError
from palate.library.folder import LibraryFolder
from palate.library.hub import library_card, push_library

ROUND = """
import json, sys
import palate
from palate.core.errors import PalateError

def sentence(work):
    try:
        work()
    except PalateError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"

folder, name = sys.argv[1:]
own = palate.Library.load(folder)
url = own.push_to_hub(name, licence="apache-2.0", data="Toy pairs (CC0).")
first = url.rpartition("/")[2]
pulled = palate.Library.load(name)
again = palate.Library.load(name, revision=first)
known = dict(coefficients={"short": 0.7, "kind": -0.2}, method="soup", seed=3)
answers = [one.generate("Why is the sky blue?", **known).text for one in (own, pulled, again)]
print(json.dumps({
    "url": url,
    "answers": answers,
    "names": sorted(p.relative_to(pulled.files.folder).as_posix()
                    for p in pulled.files.folder.rglob("*") if p.is_file()),
    "nobody": sentence(lambda: palate.Library.load("nobody/nothing")),
    "evil": sentence(lambda: palate.Library.load("owner/evil").rewards),
    "lost": sentence(lambda: palate.Library.load("owner/lost")),
    "changed": sentence(lambda: palate.Library.load("owner/changed")),
    "imported": "antigravity" in sys.modules,
    "refused": sentence(lambda: own.push_to_hub("not a name", licence="mit")),
}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a library, by their place in it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def strangers(hub: Hub, library: Path) -> None:
    """Libraries with a reward that names a function, without a base, and with a changed part."""
    files = files_of(library)
    manifest = json.loads(files["library.json"])
    objective = manifest["objectives"][0]["name"]
    function = {
        "kind": "palate-reward-function",
        "schema_version": 1,
        "objective": objective,
        "function": "antigravity:geohash",
        "hash": "0",
        "source": None,
        "mean": 0.0,
        "scale": {"kind": "clip", "low": 0.0, "high": 1.0},
    }
    part = {"key": "k", "files": {}}
    rewards = {one["name"]: part for one in manifest["objectives"]}
    evil = {**manifest, "rewards": rewards}
    function_files = {
        f"rewards/{name}/function.json": json.dumps(function).encode() for name in rewards
    }
    pickle = {"experts/short/adapter_model.bin": b"pickle", "modeling_evil.py": b"import os"}
    hub.commit("owner/evil", {**files, **function_files, **pickle, **as_manifest(evil)})
    lost = {**manifest, "base": {**manifest["base"], "path": "nobody/base"}}
    hub.commit("owner/lost", {**files, **as_manifest(lost)})
    name = next(name for name in files if name.endswith("adapter_model.safetensors"))
    hub.commit("owner/changed", {**files, name: files[name][:-1] + b"x"})


def as_manifest(content: dict[str, object]) -> dict[str, bytes]:
    return {"library.json": json.dumps(content).encode()}


@pytest.mark.slow
def test_a_library_makes_the_round_and_a_strangers_runs_nothing(
    hub: Hub, tiny_library: Path, tmp_path: Path
) -> None:
    strangers(hub, tiny_library)
    words = [sys.executable, "-c", ROUND, str(tiny_library), "owner/tiny"]
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["url"].startswith(f"{hub.url}/owner/tiny/commit/")
    first, *others = result["answers"]
    assert first
    assert others == [first, first]
    pushed = hub.repositories["owner/tiny"][-1][1]
    assert "README.md" in pushed
    assert all(pushed[name] == content for name, content in files_of(tiny_library).items())
    assert not any(name.endswith((".py", ".bin")) for name in result["names"])
    assert result["nobody"].startswith("InvalidInputError: The base model 'nobody/nothing'")
    assert "imports and asks nothing" in result["evil"]
    assert not result["imported"]
    asked = [line for line in hub.asked if "modeling_evil" in line or ".bin" in line]
    assert not [line for line in asked if line.startswith("GET")]
    assert result["lost"].startswith("InvalidInputError: The base model 'nobody/base'")
    assert result["changed"].startswith("FormatError: The file")
    assert result["refused"].startswith("ProviderError: The library cannot be pushed")


def test_the_card_says_licence_base_objectives_and_how_to_load(tiny_library: Path) -> None:
    files = LibraryFolder.open(tiny_library)
    card = library_card(files.manifest, "owner/tiny", licence="mit", data="Toy pairs (CC0).")
    _, front, body = card.split("---\n", 2)
    head = yaml.safe_load(front)
    assert (head["license"], head["library_name"]) == ("mit", "palate")
    assert "base_model" not in head  # the tiny base is a folder of this machine
    assert str(tiny_library.parent) not in card
    assert 'palate.Library.load("owner/tiny")' in body
    assert "Data: Toy pairs (CC0)." in body
    assert files.manifest.base.fingerprint in body
    for record in files.manifest.experts:
        assert f"| {record.anchor.name} | " in body
        assert record.key[:16] in body


def test_a_library_without_a_licence_is_not_pushed(tiny_library: Path) -> None:
    with pytest.raises(InvalidInputError, match="licence is empty"):
        push_library(LibraryFolder.open(tiny_library), "a/b", licence=" ", data="", is_private=True)
