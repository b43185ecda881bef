"""A board in small: three users, three prompts, a tiny library."""

import json
from pathlib import Path

import pytest

from board_rows import USERS
from research.board.settings import BoardSettings

METHODS = (
    *("base", "prompt", "prompt:vague", "examples@3", "prompt+best-of-4", "rewarded-soup", "mod"),
    *(
        "output-soup",
        "implicit-soup",
        "portfolio-1",
        "portfolio-2",
        "soup",
        "soup@3",
        "soup@10",
        "mixture",
    ),
    *("auto", "auto@10", "auto:instruction@3", "auto+4-passes"),
)


@pytest.fixture(scope="session")
def board_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny library with every part, on a base whose context holds comparisons."""
    from tiny import save_tiny_full_library, save_tiny_library

    root = tmp_path_factory.mktemp("board")
    tiny = save_tiny_library(root, n_positions=1024)
    return save_tiny_full_library(tiny, root / "full")


@pytest.fixture(scope="session")
def board_settings(board_library: Path, tmp_path_factory: pytest.TempPathFactory) -> BoardSettings:
    folder = tmp_path_factory.mktemp("asked")
    users = [vars(user) for user in USERS]
    (folder / "users.jsonl").write_text("".join(json.dumps(one) + "\n" for one in users))
    prompts = [{"prompt": text} for text in ("a b", "c d", "e f", "g h", "i a")]
    (folder / "asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    return BoardSettings(
        libraries=(str(board_library),),
        users=str(folder / "users.jsonl"),
        n_users=3,
        prompts=(str(folder / "asked.jsonl"),),
        n_prompts=2,
        turns=(2,),
        n_turn_prompts=1,
        turn_methods=("base", "prompt", "auto"),
        methods=METHODS,
        seeds=(0,),
        max_tokens=5,
        n_pool_prompts=3,
        most_comparisons=10,
        n_lora_users=1,
        n_capability_users=1,
        dtype="float32",
    )
