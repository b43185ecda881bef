"""Prompts and the turns before them."""

import json
from pathlib import Path

import pytest

from palate import Library
from palate.core.errors import InvalidInputError
from research.board.prompts import (
    Case,
    Prompt,
    cases_of,
    conversation,
    earlier_answers,
    earlier_prompts,
    load_prompts,
)
from research.board.settings import BoardSettings

PROMPTS = [Prompt(f"f:{k}", f"text {k}") for k in range(3)]
SPARE = [Prompt(f"s:{k}", f"spare {k}") for k in range(4)]


def test_the_own_questions_suffice_for_the_full_form() -> None:
    asked, spare = load_prompts(BoardSettings())
    assert len(asked) == 24
    assert len({one.key for one in asked + spare}) == len(asked) + len(spare) >= 33
    assert asked == load_prompts(BoardSettings())[0]
    assert asked[:3] == load_prompts(BoardSettings(n_prompts=3))[0]  # more prompts keep the first


def test_longer_talks_end_with_the_same_turns_and_never_hold_the_question() -> None:
    case = Case(PROMPTS[0], 6)
    long = earlier_prompts(case, PROMPTS, SPARE)
    assert long[-2:] == earlier_prompts(Case(PROMPTS[0], 2), PROMPTS, SPARE)
    assert len(set(long)) == 6
    assert PROMPTS[0] not in long
    assert set(long[-4:]) == set(SPARE)  # spare ones come first


def test_a_conversation_holds_question_and_answer_in_turns() -> None:
    messages = conversation(Case(PROMPTS[0], 1), [SPARE[2]], {"s:2": "an answer"})
    assert [(one["role"], one["content"]) for one in messages] == [
        ("user", "spare 2"),
        ("assistant", "an answer"),
        ("user", "text 0"),
    ]


def test_only_the_first_prompts_are_asked_in_conversations() -> None:
    settings = BoardSettings(turns=(1, 4), n_turn_prompts=2)
    cases = cases_of(settings, PROMPTS, with_turns=True)
    assert [case.turns for case in cases] == [0, 0, 0, 1, 1, 4, 4]
    assert {case.prompt for case in cases if case.turns} == set(PROMPTS[:2])
    assert cases_of(settings, PROMPTS, with_turns=False) == cases[:3]


def test_earlier_answers_are_made_once(
    board_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, path = Library.load(board_library), tmp_path / "earlier.jsonl"
    settings = BoardSettings(max_tokens=4)
    first = earlier_answers(library, PROMPTS[:2], path=path, settings=settings)
    monkeypatch.setattr(Library, "generate", None)  # whoever calls it fails
    assert earlier_answers(library, PROMPTS[:2], path=path, settings=settings) == first


def test_prompts_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text(json.dumps({"prompt": "Why?"}) + "\n")
    with pytest.raises(InvalidInputError, match=r"There are 1 prompts .* but 24 are needed"):
        load_prompts(BoardSettings(prompts=(str(path),)))
    path.write_text(json.dumps({"text": "Why?"}) + "\n")
    with pytest.raises(InvalidInputError, match=r"Row 1 of .* has no text in 'prompt'"):
        load_prompts(BoardSettings(prompts=(str(path),)))
