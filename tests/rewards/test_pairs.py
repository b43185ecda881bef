import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.core.types import PreferencePair
from palate.rewards.pairs import default_groups, pair_set, read_pairs, swapped

ROW = {"prompt": "p", "chosen": "good", "rejected": "bad", "objective": "kind"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reads_strings_and_ignores_other_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {**ROW, "id": "7", "extra": [1, 2]})
    found = read_pairs(file)
    assert found.pairs == (PreferencePair("p", "good", "bad", "kind", "7"),)
    assert found.objective == "kind"


def test_reads_messages_as_transcript_and_answer(tmp_path: Path) -> None:
    prompt = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    row = {**ROW, "prompt": prompt, "chosen": [{"role": "assistant", "content": "Because."}]}
    found = read_pairs(write(tmp_path / "a.jsonl", row)).pairs[0]
    assert found.prompt == "Human: Hi\n\nAssistant: Hello\n\nHuman: Why?"
    assert found.chosen == "Because."


def test_one_user_message_reads_as_its_text(tmp_path: Path) -> None:
    row = {**ROW, "prompt": [{"role": "user", "content": "Hi"}]}
    assert read_pairs(write(tmp_path / "a.jsonl", row)).prompts == ["Hi"]


def test_swapping_exchanges_chosen_and_rejected_under_the_new_name(tmp_path: Path) -> None:
    file = write(tmp_path / "simple.jsonl", ROW)
    found = read_pairs(file, objective="expert", is_swapped=True)
    assert (found.objective, found.chosen, found.rejected) == ("expert", ["bad"], ["good"])


def test_swapping_without_the_opposite_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="name the opposite objective"):
        read_pairs(write(tmp_path / "a.jsonl", ROW), is_swapped=True)


@given(st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=1, max_size=5))
def test_swapping_twice_gives_the_pairs_back(texts: list[tuple[str, str]]) -> None:
    pairs = pair_set([PreferencePair(a, b, b + "!") for a, b in texts], objective="x")
    again = swapped(swapped(pairs, objective="y"), objective="x")
    assert [(p.chosen, p.rejected) for p in again.pairs] == [
        (p.chosen, p.rejected) for p in pairs.pairs
    ]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "is empty"),
        ([ROW, {"prompt": "p", "chosen": "c"}], "Line 2 .* has no 'rejected'"),
        ([ROW, ROW, {**ROW, "chosen": "bad"}], "Line 3 .* has chosen == rejected"),
        ([{**ROW, "chosen": float("nan")}], "Line 1 .* not valid JSON \\(NaN"),
        ([{**ROW, "chosen": None}], "Line 1 .* has 'chosen' of type NoneType"),
        ([{**ROW, "chosen": 3.5}], "Line 1 .* has 'chosen' of type float"),
        ([{**ROW, "chosen": [{"role": "assistant"}]}], "Line 1 .* message in 'chosen' without"),
        ([{**ROW, "chosen": []}], "Line 1 .* 'chosen' of type list"),
        ([["p", "c", "r"]], "Line 1 .* not a JSON object"),
        ([{k: v for k, v in ROW.items() if k != "objective"}], "name no objective"),
        ([ROW, {**ROW, "objective": "rude"}], "several objectives \\('kind', 'rude'\\)"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(
    tmp_path: Path, rows: list[object], sentence: str
) -> None:
    file = write(tmp_path / "pairs.jsonl", *rows)
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        read_pairs(file)
    assert "pairs.jsonl" in str(caught.value)


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(ROW) + "\n\n\n" + json.dumps({"prompt": "p"}) + "\n")
    with pytest.raises(InvalidInputError, match="Line 4 "):
        read_pairs(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.jsonl"):
        read_pairs(tmp_path / "nowhere.jsonl")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(json.dumps(ROW).encode("utf-16"))
    with pytest.raises(InvalidInputError, match=r"pairs\.jsonl' is not UTF-8"):
        read_pairs(file)


def test_a_column_says_what_belongs_together(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {**ROW, "text": "t1"}, {**ROW, "text": "t2"})
    assert read_pairs(file, group_by="text").groups == ("t1", "t2")
    with pytest.raises(InvalidInputError, match=r"Line 1 .* has no 'article'"):
        read_pairs(file, group_by="article")


def test_many_prompts_group_by_prompt() -> None:
    pairs = [PreferencePair(f"p{i // 2}", f"a{i}", f"b{i}") for i in range(60)]
    assert default_groups(pairs) == [pair.prompt for pair in pairs]


def test_few_prompts_group_by_chains_of_shared_answers() -> None:
    # a-b, b-c and d-e: the first two hang together by b, the third stands alone
    pairs = [PreferencePair("q", "a", "b"), PreferencePair("q", "b", "c")]
    pairs += [PreferencePair("q", "d", "e")]
    first, second, third = default_groups(pairs)
    assert first == second
    assert third != first


def test_the_fingerprint_changes_with_objective_and_content() -> None:
    pair = PreferencePair("p", "a", "b")
    prints = {
        pair_set([pair], objective="x").fingerprint,
        pair_set([pair], objective="y").fingerprint,
        pair_set([PreferencePair("p", "a", "c")], objective="x").fingerprint,
    }
    assert len(prints) == 3
