import json
from dataclasses import replace

import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.evaluate.rows import AnswerRow, FactRow, Results, answer_hash, open_results


def row(method="base", user="ana", prompt="p", copy=0, text="one two"):
    return AnswerRow(
        method=method,
        user=user,
        seed=0,
        prompt=prompt,
        copy=copy,
        text=text,
        rewards={"a": 0.25},
        utility=0.25,
        is_well_formed=True,
    )


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [row(text="line\u2028break \u00fc"), FactRow("speed", "base", 0, 2.0, detail={"n": 3})]
    Results(path).append(rows)
    assert open_results(path).rows == rows
    assert open_results(path).notes == []


def test_a_missing_file_is_an_empty_one(tmp_path):
    assert open_results(tmp_path / "none.jsonl").rows == []


def test_a_row_that_is_there_is_not_written_again(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append([row(), row()])
    results.append([row(text="another"), row(copy=1)])
    assert [one.copy for one in open_results(results.path).answers] == [0, 1]
    assert len(results.path.read_text().splitlines()) == 2
    assert row().key in results
    assert row(user="bo").key not in results


def test_rows_of_methods_users_seeds_prompts_and_copies_are_different_rows():
    keys = {row().key, row(method="soup").key, row(user="bo").key, row(prompt="q").key}
    assert len(keys | {row(copy=1).key}) == 5


@pytest.mark.parametrize("kept", [1, 20, -2])
def test_a_torn_last_line_is_cut_off_with_a_message(tmp_path, kept):
    path = tmp_path / "results.jsonl"
    Results(path).append([row(), row(copy=1)])
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second[:kept])
    opened = open_results(path)
    assert [one.copy for one in opened.answers] == [0]
    assert len(opened.notes) == 1
    assert "cut off" in opened.notes[0]
    assert path.read_text() == first
    opened.append([row(copy=1)])
    assert path.read_text() == first + second


def test_a_torn_line_inside_a_character_is_cut_off_too(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).append([row(), row(copy=1, text="\u00fc\u00fc")])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex("\u00fc".encode()) + 1])
    assert len(open_results(path).answers) == 1


def test_a_last_line_that_only_lacks_its_break_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).append([row(), row(copy=1)])
    path.write_text(path.read_text().rstrip("\n"))
    opened = open_results(path)
    assert len(opened.rows) == 2
    assert opened.notes == []
    opened.append([row(copy=2)])
    assert len(open_results(path).rows) == 3


def test_garbage_that_ends_in_a_break_is_a_torn_line_only_at_the_end(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).append([row(), row(copy=1)])
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + "{torn\n")
    assert len(open_results(path).rows) == 1
    path.write_text("{torn\n" + second)
    with pytest.raises(InvalidInputError, match="Line 1"):
        open_results(path)


def test_a_row_that_is_there_twice_counts_once_and_is_reported(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).append([row()])
    path.write_text(path.read_text() * 2)
    opened = open_results(path)
    assert len(opened.rows) == 1
    assert "occur twice" in opened.notes[0]


def test_rows_of_another_kind_or_version_are_refused(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"kind": "letter"}) + "\n")
    with pytest.raises(FormatError, match="letter"):
        open_results(path)
    path.write_text(json.dumps({"kind": "fact", "version": 2, "name": "n", "colour": 1}) + "\n")
    with pytest.raises(FormatError, match="version"):
        open_results(path)


def test_rows_of_an_earlier_version_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "results.jsonl"
    before = {"kind": "answer", "way": "base", "user": "ana", "seed": 0, "prompt": "p", "copy": 0}
    path.write_text(json.dumps(before) + "\n")
    with pytest.raises(FormatError, match=r"of version 1, but rows of version 2 .* another folder"):
        open_results(path)


def test_what_was_decided_comes_back(tmp_path):
    path = tmp_path / "results.jsonl"
    decided = replace(
        row(),
        taken="prompted-soup",
        n_passes=4.0,
        n_candidates=4,
        reason="Because.",
        lead=0.25,
        shape="even",
        cluster="ana",
        predicted=(0.1, 0.0, 0.2),
    )
    Results(path).append([decided])
    assert open_results(path).answers == [decided]


def test_a_written_row_names_the_hash_of_its_prompt():
    assert len(row().to_json()["prompt_hash"]) == 16
    assert row().to_json()["prompt_hash"] != row(prompt="q").to_json()["prompt_hash"]


def test_equal_facts_have_equal_hashes():
    assert answer_hash(seed=1, plan=[1.0]) == answer_hash(plan=[1.0], seed=1)
    assert answer_hash(seed=1, plan=[1.0]) != answer_hash(seed=2, plan=[1.0])
