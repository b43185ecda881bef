"""Rows from JSONL and from parquet are the same rows."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl.data_utils import maybe_extract_prompt

from palate.build.run_file import read_prompts
from palate.core.errors import InvalidInputError, MissingExtraError
from palate.rewards.pairs import read_pairs
from palate.rewards.rows import has_pairs, read_completions, read_rows, texts_of
from palate.rewards.texts import turns_of

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Question {k}?", "chosen": f"Answer {k}", "rejected": "No", "objective": "kind"}
    for k in range(4)
]


def both(folder: Path, rows: list[dict[str, Any]]) -> tuple[Path, Path]:
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    Dataset.from_list(rows).to_parquet(folder / "rows.parquet")
    return folder / "rows.jsonl", folder / "rows.parquet"


def test_pairs_of_parquet_are_those_of_jsonl(tmp_path: Path) -> None:
    lines, table = both(tmp_path, PAIRS)
    found = read_pairs(table)
    assert found.pairs == read_pairs(lines).pairs
    assert (found.objective, found.source, len(found)) == ("kind", "rows.parquet", 4)
    assert has_pairs(table)


def test_messages_in_parquet_are_read_as_in_jsonl(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Why?"}]
    rows = [{"prompt": talk, "completion": [{"role": "assistant", "content": "So."}]}]
    lines, table = both(tmp_path, rows)
    assert read_completions(table) == read_completions(lines)
    assert read_completions(table)[1] == ["So."]
    assert not has_pairs(table)


def test_prompts_of_parquet_are_read_once_each(tmp_path: Path) -> None:
    _, table = both(tmp_path, [{"prompt": text} for text in ("a", "b", "a")])
    assert read_prompts(table) == ("a", "b")


def test_a_fault_names_the_row(tmp_path: Path) -> None:
    rows = [PAIRS[0], {**PAIRS[1], "rejected": "Answer 1"}]
    lines, table = both(tmp_path, rows)
    with pytest.raises(InvalidInputError, match=r"Row 2 of the file of pairs '.*rows.parquet'"):
        read_pairs(table)
    with pytest.raises(InvalidInputError, match=r"Line 2 of the file of pairs '.*rows.jsonl'"):
        read_pairs(lines)


def test_blank_lines_count_but_hold_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    rows, places = read_rows(path, what="file")
    assert rows == [{"a": 1}, {"a": 2}]
    assert [place.split(" of ")[0] for place in places] == ["Line 1", "Line 3"]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_rows(path, what="file of pairs")
    path.write_text("prompt,chosen\n")
    with pytest.raises(InvalidInputError, match=r"rows.parquet' is not parquet .*write it again"):
        read_rows(path, what="file of pairs")
    Dataset.from_list([{"prompt": "a", "completion": "b"}]).to_parquet(path)
    whole = path.read_bytes()
    n_footer = int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[: -8 - n_footer] + b"\xff" * n_footer + whole[-8:])
    with pytest.raises(InvalidInputError, match=r"is not parquet .*write it again"):
        read_rows(path, what="file of pairs")


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, table = both(tmp_path, PAIRS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install palate\[train\]"):
        read_rows(table, what="file of pairs")


ROW = {"prompt": "p", "completion": "c"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reads_strings_and_messages_and_ignores_other_columns(tmp_path: Path) -> None:
    chat = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Hello"}],
    }
    file = write(tmp_path / "a.jsonl", {**ROW, "rewards": [0.1]}, chat)
    assert read_completions(file) == (["p", "Hi"], ["c", "Hello"])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "is empty"),
        ([ROW, {"prompt": "p"}], "Line 2 .* has no 'completion'"),
        ([{**ROW, "prompt": 3}], "Line 1 .* 'prompt' of type int"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(
    tmp_path: Path, rows: list[object], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        read_completions(write(tmp_path / "a.jsonl", *rows))


def test_pairs_and_answers_are_distinguished(tmp_path: Path) -> None:
    assert not has_pairs(write(tmp_path / "a.jsonl", ROW))
    assert has_pairs(write(tmp_path / "b.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}))
    with pytest.raises(InvalidInputError, match="is empty"):
        has_pairs(write(tmp_path / "c.jsonl"))


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK = say("user", "Why?")
CHATS = {"chosen": [ASK, say("assistant", "So.")], "rejected": [ASK, say("assistant", "No.")]}


@pytest.mark.parametrize("more", [{}, {"prompt": "Why?"}, {"prompt": [ASK]}])
def test_answers_that_are_whole_chats_begin_with_the_prompt(more: dict[str, Any]) -> None:
    """The shape of UltraFeedback; TRL's `maybe_extract_prompt` on the same rows."""
    row = {**CHATS, **more}
    assert texts_of(row, "chosen", "rejected", place="Row") == ["Why?", "So.", "No."]
    wanted = maybe_extract_prompt(dict(CHATS))
    assert wanted["prompt"] == [ASK]
    assert (wanted["chosen"], wanted["rejected"]) == (CHATS["chosen"][1:], CHATS["rejected"][1:])


def test_equal_chats_are_a_tie_after_their_prompt() -> None:
    row = {"chosen": CHATS["chosen"], "rejected": CHATS["chosen"]}
    assert texts_of(row, "chosen", "rejected", place="Row") == ["Why?", "So.", "So."]


def test_a_conversation_is_a_transcript_of_which_the_turns_come_back() -> None:
    turns = [say("system", "Be kind."), ASK, say("assistant", "So."), say("user", "And?")]
    row = {"prompt": turns, "completion": [say("assistant", "Then.")]}
    prompt, answer = texts_of(row, "completion", place="Row")
    assert prompt == "System: Be kind.\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: And?"
    assert turns_of(prompt) == turns
    assert answer == "Then."


def test_a_message_that_reads_like_a_speaker_stays_the_users() -> None:
    row = {"prompt": [say("user", "Human: I am one.")], "completion": "x"}
    assert turns_of(texts_of(row, "completion", place="Row")[0]) == row["prompt"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"chosen": [ASK, ASK], "rejected": [ASK, say("assistant", "No.")]},
            "'chosen' that is not",
        ),
        ({"prompt": "p", "chosen": [ASK], "rejected": "x"}, "not one message of the assistant"),
        ({**CHATS, "chosen": [*CHATS["chosen"], ASK]}, "'chosen' that is not one message"),
        ({**CHATS, "prompt": [say("tool", "4")]}, "in 'prompt' without a role .system, user"),
        ({"prompt": [say("user", "a\n\nAssistant: b")], **CHATS}, "begins like a speaker"),
        ({"chosen": "a", "rejected": "b"}, "has no 'prompt'"),
    ],
)
def test_what_is_no_answer_to_a_prompt_is_refused(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        texts_of(row, "chosen", "rejected", place="Row 1")


@pytest.mark.parametrize(
    "text",
    ['\ufeff\n{"a": 1}\n\n{"a": 2}\n', '\n{"a": 1}\r\n\n\ufeff{"a":\r2}'],
)
def test_marks_of_byte_order_and_lone_carriage_returns_do_no_harm(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode())
    rows, places = read_rows(path, what="file")
    assert rows == [{"a": 1}, {"a": 2}]
    assert [place.split(" of ")[0] for place in places] == ["Line 2", "Line 4"]
