"""Tables fit the terminal: side by side where there is room, a value a line where there is none."""

import io
from typing import Any

import pytest
from rich.console import Console

from palate.cli import printing

NARROW = [{"user": "ana", "created_at": 1_700_000_000.0, "n_feedback": 3}]
WIDE = [
    {f"characteristic_{k}": f"undistinguished {k} of row {row}" for k in range(6)}
    for row in range(2)
]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is shown on a terminal of so many columns."""

    def show(result: Any, columns: int) -> str:
        out = io.StringIO()
        monkeypatch.setattr(
            printing,
            "Console",
            lambda **options: Console(
                file=out, force_terminal=True, color_system=None, width=columns, **options
            ),
        )
        printing.print_result(result, is_json=False)
        return out.getvalue()

    return show


def test_a_table_that_fits_is_a_table_with_readable_times(printed: Any) -> None:
    text = printed(NARROW, 80)
    assert "│ ana  │ 2023-11-14 22:13 │ 3          │" in text
    assert "created at" in text


def test_a_table_that_is_too_wide_is_a_value_a_line_and_no_header_is_cut(printed: Any) -> None:
    text = printed(WIDE, 80)
    assert max(map(len, text.splitlines())) <= 80
    for row in range(2):
        for k in range(6):
            assert f"characteristic {k}: undistinguished {k} of row {row}\n" in text
    assert "characteristic 5" in printed(WIDE, 300).splitlines()[1]
    assert "┃" in printed([{"note": "many words " * 30}], 80)  # long texts are wrapped, not listed


def test_no_rows_are_said_to_be_none(printed: Any) -> None:
    assert printed([], 80) == "none\n"


def test_rows_by_name_begin_with_their_name(printed: Any) -> None:
    named = {"soups": {"first": WIDE[0], "second": WIDE[1]}}
    text = printed(named, 80)
    assert "soups" in text
    assert "\nfirst\n  characteristic 0: undistinguished 0 of row 0\n" in text
