"""Users and rows of a fair board, made by hand."""

from research.board.rows import Row
from research.board.users import BoardUser

WORDS = {"instruction": "be short", "profile": "i am busy", "vague": "hm"}
USERS = (
    BoardUser("one", "sparse", {"short": 1.0}, {"short": 1.0}, WORDS),
    BoardUser("two", "uneven", {"kind": 0.7, "plain": -0.3}, {"kind": 1.0}, WORDS),
    BoardUser("three", "uneven", {"plain": 1.0}, {"plain": 1.0}, WORDS),
)


def row(method: str, user: str, value: float, **others: object) -> Row:
    """An answer whose one judge gives the value for `short` and nothing for the others."""
    fields = {
        "library": 0,
        "shape": "sparse",
        "prompt": "file:p",
        "turns": 0,
        "seed": 0,
        "text": "some words",
        "n_tokens": 2,
        "n_prompt_tokens": 5,
        "n_passes": 1.0,
        "n_candidates": 1,
        "taken": method,
        "answer": "hash",
        "log_prob": -1.0,
        "whole": 1.0,
        "meaning": {"kind": 0.0, "short": value, "plain": 0.0},
    }
    return Row(method=method, user=user, **{**fields, **others})
