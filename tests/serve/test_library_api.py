"""The library over HTTP: experts with size and card, members' blends, methods' cost and gain."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from palate.library.library import Library
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings

LOCAL = "http://localhost"


@pytest.fixture(scope="module")
def folder(tiny_full_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured library of which one expert's card was removed."""
    copy = tmp_path_factory.mktemp("measured") / "library"
    shutil.copytree(tiny_full_library, copy)
    (copy / "experts/short/README.md").unlink(missing_ok=True)
    (copy / "experts/kind/README.md").write_text("# Expert kind, whose card is märked\n")
    return copy


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    database = f"sqlite:///{tmp_path_factory.mktemp('users')}/users.db"
    served = assemble(Library.load(folder), ServeSettings(), database=database)
    with TestClient(make_app(served), base_url=LOCAL) as client:
        yield client


def costs(client: TestClient, *preferences: dict[str, float]) -> Any:
    return client.post("/v1/methods", json={"preferences": list(preferences)})


def test_experts_have_their_size_and_the_card_that_lies_there(
    measured: TestClient, folder: Path
) -> None:
    rows = {row["name"]: row for row in measured.get("/v1/library").json()["experts"]}
    for name, row in rows.items():
        files = [path for path in (folder / "experts" / name).iterdir() if path.is_file()]
        assert row["size_bytes"] == sum(len(path.read_bytes()) for path in files)
    assert rows["kind"]["card"] == "# Expert kind, whose card is märked\n"
    assert rows["short"]["card"] == ""


def test_members_name_the_experts_they_are_made_of(measured: TestClient) -> None:
    members = measured.get("/v1/library").json()["portfolio"]["members"]
    assert [(row["name"], row["coefficients"]) for row in members] == [
        ("kind", {"kind": 1.0}),
        ("short", {"short": 1.0}),
    ]


def test_gains_at_a_measured_preference_are_those_of_the_librarys_file(
    measured: TestClient, folder: Path
) -> None:
    table = json.loads((folder / "methods.json").read_text())
    place = table["preferences"].index([1.0, 0.0, 0.0])
    gains = {
        row["method"]: row["gains"][place] for row in table["rows"] if row["n_candidates"] == 1
    }
    found = costs(measured, {table["objectives"][0]: 1.0}).json()
    assert found["n_prompts"] == table["n_prompts"] > 0
    assert found["self_judged"] == table["self_judged"]
    checked = 0
    for row in found["points"][0]:
        utility = row["predicted_utility"]
        if row["n_candidates"] == 1 and row["method"] in gains and utility is not None:
            assert utility["estimate"] == pytest.approx(gains[row["method"]])
            assert utility["low"] <= utility["estimate"] <= utility["high"]
            checked += 1
    assert checked >= 4


def test_auto_names_the_method_that_decides_and_costs_what_that_costs(measured: TestClient) -> None:
    for rows in costs(measured, {"kind": 1.0}, {"kind": 0.5, "plain": 0.5}).json()["points"]:
        by_name = {row["method"]: row for row in rows}
        taken = by_name["auto"]["decides"]
        assert taken != "auto"
        assert by_name["auto"]["n_passes"] == by_name[taken]["n_passes"]


def test_passes_are_counted_for_each_preference(web: TestClient) -> None:
    one, two = costs(web, {"kind": 1.0}, {"kind": 0.5, "short": 0.5}).json()["points"]
    passes = [{row["method"]: row["n_passes"] for row in rows} for rows in (one, two)]
    assert passes[0]["soup"] == passes[1]["soup"] == 1.0
    # one row for each expert that is wanted; the reference's part is one less their sum: none
    assert (passes[0]["output-soup"], passes[1]["output-soup"]) == (1.0, 2.0)


def test_an_unmeasured_library_says_so(web: TestClient) -> None:
    found = costs(web, {"kind": 1.0}).json()
    assert (found["n_prompts"], found["self_judged"]) == (0, [])
    assert {row["predicted_utility"] for row in found["points"][0]} == {None}


@pytest.mark.parametrize(
    ("preferences", "sentence"),
    [
        ([{"kind": 0.7}], "sums to 0.7, not 1"),
        ([{"fast": 1.0}], "fast"),
        ([], "at least 1"),
        ([{"kind": 1.0}] * 65, "at most 64"),
    ],
)
def test_preferences_that_are_none_are_refused_in_one_sentence(
    web: TestClient, preferences: list[dict[str, float]], sentence: str
) -> None:
    refused = costs(web, *preferences)
    assert refused.status_code == 400
    assert sentence in refused.json()["error"]["message"]
