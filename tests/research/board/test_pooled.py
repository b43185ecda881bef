"""Users of several boards are compared together, whether rows are packed or not."""

import lzma
from pathlib import Path

import pytest

from palate.core.errors import InvalidInputError
from research.board.pooled import pooled, rows_in
from research.board.rows import ROWS, Row, append
from research.board.users import USERS, load_users

OBJECTIVES = ["elementary", "expert", "concise", "informative", "friendly", "unfriendly"]
NAMES = [one.name for one in load_users(USERS, objectives=OBJECTIVES, n=6)]
PAIRS = [("auto", "prompt")]


def rows_of(names: list[str], *, gains: dict[str, float]) -> list[Row]:
    """Two prompts, alone and after 8 turns; every judge gives the method's gain more."""
    return [
        Row(
            method=method,
            library=0,
            user=user,
            shape="drawn",
            prompt=f"p{prompt}",
            turns=turns,
            seed=seed,
            text="t",
            n_tokens=1,
            n_prompt_tokens=1,
            n_passes=1.0,
            n_candidates=1,
            taken=method,
            answer="a",
            log_prob=-1.0,
            whole=1.0,
            meaning=dict.fromkeys(OBJECTIVES, 0.3 + 0.2 * prompt + gain),
            form=dict.fromkeys(OBJECTIVES, 0.3 + 0.2 * prompt + gain),
        )
        for user in names
        for method, gain in gains.items()
        for prompt in (0, 1)
        for turns in (0, 8)
        for seed in (0, 1)
    ]


def test_boards_are_pooled_from_packed_and_plain_rows(tmp_path: Path) -> None:
    gains = {"base": 0.0, "prompt": 0.0, "auto": 0.1}
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, NAMES[:3]), (second, NAMES[3:])):
        folder.mkdir()
        append(folder / ROWS, rows_of(names, gains=gains))
    packed = second / f"{ROWS}.xz"
    packed.write_bytes(lzma.compress((second / ROWS).read_bytes()))
    (second / ROWS).unlink()
    boards = [rows_in(one, seed=0) for one in (first, second)]
    assert {row.seed for own in boards for row in own} == {0}
    found = pooled(boards, PAIRS)
    assert found["n_users"] == 6
    assert list(found["all"]) == ["auto over prompt, 0 turns", "auto over prompt, 8 turns"]
    for one in found["all"].values():
        assert one["n"] == 12  # users and prompts
    alone = pooled(boards[:1], PAIRS)["all"]["auto over prompt, 8 turns"]
    assert alone["n"] == 6
    assert alone["estimate"] > 0


def test_what_cannot_be_pooled_is_one_sentence(tmp_path: Path) -> None:
    rows = rows_of(NAMES[:2], gains={"base": 0.0, "auto": 0.1})
    with pytest.raises(InvalidInputError, match="A user is on two of the boards"):
        pooled([rows, rows], PAIRS)
    with pytest.raises(InvalidInputError, match="has no rows of this seed"):
        pooled([[]], PAIRS)
    with pytest.raises(InvalidInputError, match=r"has no rows\.jsonl; give a board's folder"):
        rows_in(tmp_path, seed=0)
    strange = rows_of(["nobody"], gains={"base": 0.0, "auto": 0.1})
    with pytest.raises(InvalidInputError, match="are not in"):
        pooled([strange], PAIRS)
