"""The whole board on a tiny library: rows once, the report, its check, and bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from palate import Library, SamplingParams
from palate.core.errors import InvalidInputError
from research import board as command
from research.board import check
from research.board.command import settings_of, store_settings
from research.board.estimate import estimate
from research.board.made_for import require_clean_judges, require_made_for
from research.board.methods import entrants
from research.board.report import About, content_of, write_report
from research.board.settings import BoardSettings
from research.board.work import Board, Job, answer, listed, missing_jobs, prepare, run_board
from research.command_line import program

RATES = {
    "ties_half": {"estimate": 0.6, "low": 0.5, "high": 0.7},
    "ties_out": {"estimate": 0.65, "low": 0.5, "high": 0.8},
}


@pytest.fixture(scope="module")
def finished(board_settings: BoardSettings, tmp_path_factory: pytest.TempPathFactory) -> Board:
    board = Board(board_settings, tmp_path_factory.mktemp("board"))
    run_board(board, listed(board))
    return board


def test_every_method_answers_every_user_alone_and_some_in_conversations(finished: Board) -> None:
    settings = finished.settings
    assert {row.method for row in finished.rows} == set(settings.methods)
    for method in settings.methods:
        own = [row for row in finished.rows if row.method == method]
        turns = [row.turns for row in own]
        assert turns.count(0) == 3 * 2, method
        assert turns.count(2) == (3 if method in settings.turn_methods else 0), method
    best = next(row for row in finished.rows if row.method == "prompt+best-of-4")
    assert (best.n_candidates, best.n_passes) == (4, 4.0)


def test_a_cell_is_never_computed_twice(finished: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    again = Board(finished.settings, finished.out)
    assert again.rows == finished.rows
    some = listed(again)
    assert missing_jobs(again, some) == []
    monkeypatch.setattr(Library, "generate", None)  # whoever calls it fails
    monkeypatch.setattr(Library, "score", None)
    run_board(again, some)
    assert len(Board(finished.settings, finished.out).rows) == len(finished.rows)


def test_lost_rows_are_the_same_when_made_again(finished: Board, tmp_path: Path) -> None:
    board = Board(finished.settings, tmp_path)
    board.add([row for row in finished.rows if row.method not in ("soup", "prompt+best-of-4")])
    some = [one for one in listed(board) if one.name in ("soup", "prompt+best-of-4")]
    run_board(board, some)
    assert {row.key: row for row in board.rows} == {row.key: row for row in finished.rows}


def test_learned_users_come_from_the_store_and_cost_no_adapter(finished: Board) -> None:
    parts = finished.parts(0)
    assert "one@10" in parts.store.users()
    assert len(parts.store.export("one@10")["feedback"]) == 10
    stored = {fact.method: fact.value for fact in finished.facts if fact.name == "bytes_per_user"}
    assert stored["soup@10"] == stored["auto@10"] == 4 * (3 + 6)
    assert stored["soup"] == 4  # one slider
    seconds = {f.method: f.value for f in finished.facts if f.name == "verdict_seconds"}
    assert min(seconds["soup@10"], seconds["auto@10"]) > 0 == seconds["prompt"]


def test_words_are_read_before_the_comparisons_and_both_are_known(finished: Board) -> None:
    parts = finished.parts(0)
    user = parts.user("one")
    known = entrants()["auto:instruction@3"].pose(parts, user).known
    assert known["instruction"] == user.wordings["instruction"]
    described = known["belief"]
    assert described.n_observations == len(parts.store.export("one@3:words")["feedback"]) == 3
    alone = parts.store.known("one@3").belief
    assert alone is not None
    assert not np.allclose(described.mean, alone.mean)  # "be short" moved the prior
    stored = {fact.method: fact.value for fact in finished.facts if fact.name == "bytes_per_user"}
    assert stored["auto:instruction@3"] == stored["auto@10"] + len("be short")
    seconds = {f.method: f.value for f in finished.facts if f.name == "verdict_seconds"}
    assert seconds["auto:instruction@3"] > 0
    assert not [name for name in parts.store.users() if name.startswith("timed-")]


def test_the_report_says_what_the_rows_say_and_its_check_sees_a_changed_figure(
    finished: Board,
) -> None:
    parts = finished.parts(0)
    judges = replace(parts.judges, known_to_auto=("kind",))
    about = About(finished.settings, parts.users, judges, ("conditioned",), {"soup": RATES})
    content = content_of(finished.rows, finished.facts, about)
    markdown = write_report(content, finished.out)
    assert "What to know first" in markdown
    assert "flatters them: kind, short, plain" in markdown
    assert (
        "The judge of meaning of kind also measured methods.json, from which auto chooses"
        in markdown
    )
    assert "| Auto, short instruction and 3 comparisons |" in markdown.partition("## Words and")[2]
    assert "cannot serve: conditioned" in markdown
    assert "| Soup | 60 [50, 70] | 65 [50, 80] |" in markdown
    page = (finished.out / "board.html").read_text()
    assert page.count("<svg") == 3
    assert "Utility against cost" in page
    assert check.differing(finished.out) == []
    rows = finished.out / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole.replace('"text": "', '"text": "\u2028', 1))  # ends a line, and no row
    assert rows.read_text() != whole
    assert check.differing(finished.out) == []
    rows.write_text(whole)
    report = json.loads((finished.out / "board.json").read_text())
    soup = next(one for one in report["methods"] if one["name"] == "soup")
    soup["gain"]["estimate"] += 0.01
    soup["gain"]["p_adjusted"] = 0.123456
    report["questions"][0]["estimate"] += 0.01
    report["pairwise"]["mod"]["ties_half"] += 0.01
    both = report["words_and_comparisons"][-1]
    both["over"]["auto@10"]["p_adjusted"] = 0.123456
    (finished.out / "board.json").write_text(json.dumps(report))
    faults = check.differing(finished.out)
    assert any(fault.startswith("gain soup: the report has") for fault in faults)
    for start in ("gains: p", "question auto prompt", "pairwise mod", "words and comparisons: p"):
        assert any(fault.startswith(start) for fault in faults), start
    done = CliRunner().invoke(program(check.main), [str(finished.out), "--json"])
    assert done.exit_code == 1
    write_report(content, finished.out)
    done = CliRunner().invoke(program(check.main), [str(finished.out)])
    assert (done.exit_code, "figures agree" in done.stdout) == (0, True)


@pytest.mark.slow
def test_two_processes_make_the_rows_of_one(finished: Board, tmp_path: Path) -> None:
    settings = finished.settings.model_copy(
        update={"methods": ("base", "prompt", "soup", "auto"), "turns": ()}
    )
    board = Board(settings, tmp_path)
    run_board(board, listed(board), n_workers=2)
    one = {row.key: row for row in finished.rows}
    assert len(board.rows) == 4 * 3 * 2
    for row in board.rows:
        assert (row.text, row.meaning) == (one[row.key].text, one[row.key].meaning)


@pytest.mark.slow
def test_adapters_are_trained_by_a_build_and_serve_their_user(
    finished: Board, tmp_path: Path
) -> None:
    settings = finished.settings.model_copy(
        update={"methods": ("base", "lora@10", "lora-everybody", "conditioned"), "n_lora_users": 2}
    )
    board = Board(settings, tmp_path)
    run_board(board, listed(board))
    own = [row for row in board.rows if row.method == "lora@10"]
    assert {row.user for row in own} == {"one", "two"}
    assert [list(row.coefficients) for row in own[:1]] == [["one"]]
    assert next(f.value for f in board.facts if f.name == "adapter_seconds") > 0
    everybody = {row.answer for row in board.rows if row.method == "lora-everybody"}
    assert everybody.isdisjoint({row.answer for row in board.rows if row.method == "base"})


def test_the_small_form_takes_at_most_twenty_minutes_on_two_idle_cores(
    finished: Board, tmp_path: Path
) -> None:
    settings = (
        BoardSettings()
        .small()
        .model_copy(
            update={
                name: getattr(finished.settings, name) for name in ("libraries", "users", "dtype")
            }
            | {"n_users": 3}
        )
    )
    board = Board(settings, tmp_path)
    some = listed(board)
    jobs = missing_jobs(board, some)
    told = estimate(board, some, jobs)
    assert told.minutes(2) * 8 / 3 < 20  # three of the eight users
    assert f"{len(jobs)} jobs are missing; about" in told.sentence(2, len(jobs))
    assert estimate(board, some, []).answering == 0.0


def test_the_command_plans_refuses_and_resumes(
    board_settings: BoardSettings, tmp_path: Path
) -> None:
    options = [
        *("--library", board_settings.libraries[0], "--small", "--workers", "1"),
        *("--set", f"users={board_settings.users}", "--set", "n_users=2", "--set", "dtype=float32"),
        *("--set", "max_tokens=3", "--set", "n_prompts=2", "--set", "turns=[]"),
        *("--only", "prompt,soup", "--out", str(tmp_path)),
    ]
    planned = CliRunner().invoke(program(command.main), [*options, "--plan"])
    assert planned.exit_code == 0
    assert not (tmp_path / "rows.jsonl").exists()
    done = CliRunner().invoke(program(command.main), [*options, "--json"])
    assert done.exit_code == 0
    content = json.loads(done.stdout)
    assert [one["name"] for one in content["methods"]] == ["base", "prompt", "soup"]
    assert content["n_rows"] == 3 * 2 * 2
    other = CliRunner().invoke(program(command.main), [*options, "--set", "max_tokens=4"])
    assert isinstance(other.exception, InvalidInputError)
    assert "rows of a board with another 'max_tokens'" in str(other.exception)


def test_more_methods_and_seeds_may_be_added_to_a_folder(tmp_path: Path) -> None:
    store_settings(BoardSettings(methods=("base", "soup")), tmp_path)
    store_settings(BoardSettings(turns=(1, 16), seeds=(0, 1, 2)), tmp_path)
    with pytest.raises(InvalidInputError, match="another 'n_users'"):
        store_settings(BoardSettings(n_users=30), tmp_path)
    with pytest.raises(InvalidInputError, match="another 'temperature'"):
        store_settings(BoardSettings(temperature=0.5), tmp_path)


def test_a_library_keeps_its_place_in_a_folder(tmp_path: Path) -> None:
    store_settings(BoardSettings(libraries=("a", "b")), tmp_path)
    store_settings(BoardSettings(libraries=("a", "b", "c")), tmp_path)
    store_settings(BoardSettings(libraries=("a",)), tmp_path)
    with pytest.raises(InvalidInputError, match="another 'libraries'"):
        store_settings(BoardSettings(libraries=("b", "a")), tmp_path)


def test_rows_of_a_library_or_of_users_that_changed_are_not_mixed_with_others(
    board_settings: BoardSettings, tmp_path: Path
) -> None:
    own = tmp_path / "library"
    shutil.copytree(board_settings.libraries[0], own)
    settings = board_settings.model_copy(update={"libraries": (str(own),)})
    users = Path(str(settings.users))

    def require(settings: BoardSettings) -> None:
        require_made_for(Board(settings, tmp_path / "out").parts(0), users=users)

    require(settings)
    require(settings)
    with pytest.raises(InvalidInputError, match=r"The users in .* changed since rows were made"):
        require(settings.model_copy(update={"n_users": 2}))
    (own / "soup.json").write_text((own / "soup.json").read_text() + " ")
    with pytest.raises(InvalidInputError, match=r"The library in .* give a new folder with --out"):
        require(settings)


def test_a_library_whose_teachers_saw_what_judges_the_first_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def library(name: str) -> Any:
        (tmp_path / name / "kind" / "held_back").mkdir(parents=True)
        files = SimpleNamespace(reward_folder=lambda objective: tmp_path / name / objective)
        return SimpleNamespace(manifest=SimpleNamespace(objective_names=("kind",)), files=files)

    def reward(folder: Path) -> Any:
        pairs = {"first": "a", "same": "a", "other": "b"}[folder.parent.name]
        return SimpleNamespace(card=SimpleNamespace(train=SimpleNamespace(hash=pairs)))

    monkeypatch.setattr("research.board.made_for.load_reward", reward)
    first = library("first")
    require_clean_judges(first, library("same"), number=1)
    with pytest.raises(InvalidInputError, match="judge of 'kind' may have taught library 2"):
        require_clean_judges(first, library("other"), number=2)


def test_every_library_has_the_judges_and_the_earlier_turns_of_the_first(
    board_settings: BoardSettings, tmp_path: Path
) -> None:
    settings = board_settings.model_copy(
        update={
            "libraries": (board_settings.libraries[0],) * 2,
            "methods": ("base", "portfolio-1"),
            "turn_methods": ("portfolio-1",),  # not the first that is served
        }
    )
    board = Board(settings, tmp_path)
    board.parts(1).__dict__["judges"] = None  # whoever asks it fails
    some = listed(board)
    prepare(board, some)
    assert (tmp_path / "library-0" / "earlier.jsonl").is_file()
    rows = answer(board, [Job("portfolio-1", 1, "one", 0)])
    assert [row.turns for row in rows] == [0, 0, 2]
    assert not (tmp_path / "library-1" / "earlier.jsonl").exists()


def test_everybody_answers_at_the_temperature_of_the_first_library(
    board_settings: BoardSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = board_settings.model_copy(
        update={
            "libraries": (board_settings.libraries[0],) * 2,
            "methods": ("base", "portfolio-1"),
            "turn_methods": (),
        }
    )
    board = Board(settings, tmp_path)
    wanted = board.parts(0).library.sampling.temperature
    # as a library of adapters, whose build measured nothing
    board.parts(1).library.__dict__["sampling"] = SamplingParams(temperature=wanted + 0.3)
    seen: list[float] = []
    execute = Library.execute

    def watched(self: Library, decisions: Any, **options: Any) -> Any:
        seen.append(options["sampling"].temperature)
        return execute(self, decisions, **options)

    monkeypatch.setattr(Library, "execute", watched)
    answer(board, [Job("portfolio-1", 1, "one", 0)])
    assert seen == [wanted]


def test_the_data_folder_and_the_small_form_become_settings() -> None:
    settings = settings_of(
        ["a", "b"], Path("data"), is_small=True, only=(), overrides=["n_users=3"]
    )
    assert settings.libraries == ("a", "b")
    assert settings.prompts[0] == "data/prompts/koala/koala_130.jsonl"
    assert (settings.n_users, settings.n_prompts) == (3, 4)
    assert set(settings.methods) <= set(entrants())


@pytest.mark.parametrize(
    ("only", "override", "sentence"),
    [
        (("strange",), "n_users=3", "The method 'strange' is not on the board"),
        ((), "methods=[soup]", "the methods must hold 'base'"),
        ((), "seeds=[0, 0]", "a seed occurs twice"),
        ((), "n_poeple=3", "The key 'n_poeple' in settings is unknown"),
    ],
)
def test_bad_settings_are_one_sentence(only: tuple, override: str, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        settings_of(None, None, is_small=False, only=only, overrides=[override])
