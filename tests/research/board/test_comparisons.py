"""What users compare: verdicts follow the truth, and more comparisons hold the first again."""

from pathlib import Path

import numpy as np
import pytest

from palate import Library
from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from research.board.comparisons import Shown, compare_all, require_unseen
from research.board.prompts import PROMPTS
from research.board.rivals import SHOWN_CHARACTERS, examples_text
from research.board.users import BoardUser

OBJECTIVES = ("kind", "short")
SHOWN = [Shown(f"p{k // 4}", f"answer {k}", (k,), (-1.0,)) for k in range(40)]
USER = BoardUser("one", "sparse", {"short": 1.0}, {"short": 1.0}, {})
COLD = BoardUser("cold", "sparse", {"short": -1.0}, {"kind": 1.0}, {})


def _compare(n: int, rewards: np.ndarray) -> dict:
    return compare_all([USER, COLD], SHOWN, rewards, objectives=OBJECTIVES, n=n)


def test_more_comparisons_hold_the_first_again() -> None:
    rewards = np.random.default_rng(0).normal(size=(40, 2))
    assert _compare(30, rewards)["one"][:10] == _compare(10, rewards)["one"]


def test_verdicts_follow_the_truth_up_to_coin_flips() -> None:
    rewards = np.zeros((40, 2))
    rewards[:, 1] = 10.0 * np.arange(40)  # so far apart that only coin flips err
    for user, sign in (("one", 1), ("cold", -1)):
        own = _compare(60, rewards)[user]
        is_right = [sign * (one.chosen.tokens[0] - one.rejected.tokens[0]) > 0 for one in own]
        assert 0.8 <= np.mean(is_right) < 1.0
        assert all(one.chosen.prompt == one.rejected.prompt for one in own)


def test_answers_without_a_rival_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="No prompt has two different answers"):
        compare_all([USER], SHOWN[::4], np.zeros((10, 2)), objectives=OBJECTIVES, n=1)


def test_comparisons_in_a_prompt_are_cut_and_say_which_is_which() -> None:
    (one, *_) = _compare(1, np.zeros((40, 2)))["one"]
    text = examples_text([one])
    assert f"Preferred: {one.chosen.text}\nNot preferred: {one.rejected.text}" in text
    long = Shown("p", "x " * 400, (1,), (-1.0,))
    cut = examples_text([type(one)(long, one.rejected)])
    assert len(cut) < 3 * SHOWN_CHARACTERS + 300


def test_no_prompt_that_taught_the_experts_is_judged(
    project_root: Path, board_library: Path
) -> None:
    library = Library.load(board_library)
    seen = read_jsonl(library.files.rollouts_path, what="rollouts")[0]["prompt"]
    require_unseen(["never asked"], library)
    with pytest.raises(InvalidInputError, match="leave it out of the board's prompts"):
        require_unseen(["never asked", f" {seen} "], library)
    shipped = project_root / "libraries/smollm2-135m/rollouts.jsonl"
    taught = {row["prompt"].strip() for row in read_jsonl(shipped, what="rollouts")}
    assert not taught & {row["prompt"].strip() for row in read_jsonl(PROMPTS, what="prompts")}
