"""AlpacaEval's files: what is asked, and what is written for its judges."""

import json

import pytest

from palate.core.errors import FormatError
from palate.evaluate.alpaca import prompt_of, read_instructions, write_outputs


def saved(tmp_path, content, name="file.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def entry(number, preference, *, ours="short", theirs="long text", **more):
    return {
        "instruction": f"ask {number}",
        "output_1": theirs,
        "generator_1": "reference",
        "output_2": ours,
        "generator_2": "palate",
        "annotator": "judge",
        "preference": preference,
        **more,
    }


def test_an_input_follows_the_instruction_after_a_blank_line():
    assert prompt_of({"instruction": "Sum up.", "input": "A text. "}) == "Sum up.\n\nA text."
    assert prompt_of({"instruction": "Sum up.", "input": ""}) == "Sum up."
    assert prompt_of({"instruction": "Sum up."}) == "Sum up."


def test_outputs_keep_what_the_judges_match_by(tmp_path):
    rows = read_instructions(
        saved(
            tmp_path,
            [
                {"instruction": "a", "dataset": "koala", "output": "theirs", "generator": "ref"},
                {"instruction": "b", "input": "c"},
            ],
        )
    )
    write_outputs(tmp_path / "out.json", rows, ["one", "two"], generator="palate, short")
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"instruction": "a", "output": "one", "generator": "palate, short", "dataset": "koala"},
        {"instruction": "b", "output": "two", "generator": "palate, short", "input": "c"},
    ]


def test_instructions_without_an_instruction_are_refused(tmp_path):
    with pytest.raises(FormatError, match="Entry 2"):
        read_instructions(saved(tmp_path, [{"instruction": "a"}, {"prompt": "b"}]))
