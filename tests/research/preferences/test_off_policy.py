"""The value of another method from a log: by hand, by simulation, and when there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.seeds import generator_for
from research.command_line import program
from research.preferences.off_policy import (
    Log,
    World,
    coverage,
    effective_rows,
    judged_rows,
    main,
    off_policy_values,
    read_log,
    require_covered,
)

USERS = np.repeat(np.arange(10), 10)
LIKED = np.tile([1.0, 0.0], 50)  # every other answer is the liked one


def test_the_estimates_are_those_of_paper_and_pencil() -> None:
    """Both answers were shown evenly; the other method shows the liked one with 0.75."""
    log = Log(
        USERS,
        LIKED,
        np.full(100, np.log(0.5)),
        np.log(np.where(LIKED == 1, 0.75, 0.25)),
        predicted=np.full(100, 0.5),
        target_predicted=np.full(100, 0.5),
    )
    values = off_policy_values(log)
    assert [value.estimate for value in values.values()] == pytest.approx([0.75] * 3)
    assert list(values) == ["IPS", "SNIPS", "DR"]
    for value in values.values():  # every user is the same
        assert value.high - value.low == pytest.approx(0.0, abs=1e-9)
    assert values["IPS"].n_clusters == 10
    assert effective_rows(np.array([1.5, 0.5])) == pytest.approx(4.0 / 2.5)


def test_a_method_like_the_logged_one_is_worth_the_mean_reward() -> None:
    log = World().log(generator=np.random.default_rng(1))
    same = Log(log.users, log.rewards, log.log_probs, log.log_probs)
    values = off_policy_values(same)
    assert set(values) == {"IPS", "SNIPS"}
    assert values["IPS"].estimate == pytest.approx(log.rewards.mean())
    means = np.array([log.rewards[log.users == user].mean() for user in range(100)])
    half = 1.9842 * means.std(ddof=1) / 10.0  # Student's t with 99 degrees of freedom
    assert values["SNIPS"].high - values["SNIPS"].estimate == pytest.approx(half, rel=1e-3)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    result = coverage(World(), n_logs=400, seed=0)
    assert result["n_refused"] == 0
    assert set(result["covered"]) == {"IPS", "SNIPS", "DR"}
    require_covered(result)
    assert result["half_width"]["SNIPS"] < result["half_width"]["IPS"]


def test_without_overlap_there_is_no_estimate() -> None:
    never = World(never_shown=2)
    assert coverage(never, n_logs=20, seed=1)["n_refused"] == 20
    log = never.log(generator=generator_for(0))
    with pytest.raises(NotCertifiedError, match=r"the log shows \d+ %: the rest was never shown"):
        off_policy_values(log)
    far = Log(log.users, log.rewards, log.log_probs, np.where(np.arange(1000) < 3, 0.0, -50.0))
    with pytest.raises(NotCertifiedError, match=r"as much about the other method as \d\.\d of"):
        off_policy_values(far)
    few = Log(np.zeros(100, int), LIKED, np.zeros(100), np.zeros(100))
    with pytest.raises(NotCertifiedError, match="of 1 users"):
        off_policy_values(few)


def rows_of(n: int, **changes: object) -> str:
    rows = [
        {"user_id": f"u{k % 12}", "reward": float(k % 2), "log_prob": -1.0, "target_log_prob": -1.0}
        for k in range(n)
    ]
    rows[-1] |= changes
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_file_is_read_and_the_command_prints_the_values(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(rows_of(120))
    result = CliRunner().invoke(program(main), [str(path), "--json"], catch_exceptions=False)
    assert json.loads(result.output)["SNIPS"]["estimate"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward": float("nan")}, "NaN is not a finite number"),
        ({"log_prob": None}, "has the 'log_prob' None; give a finite number"),
        ({"user_id": ""}, "Line 3 of the log .* has no 'user_id'"),
    ],
)
def test_a_row_that_is_not_whole_is_named(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(rows_of(3, **changes))
    with pytest.raises(InvalidInputError, match=sentence):
        read_log(path)
    path.write_text("")
    with pytest.raises(InvalidInputError, match="empty"):
        read_log(path)


def test_an_export_gives_the_rows_whose_answers_were_judged(tmp_path: Path) -> None:
    export = {
        "user": "ana",
        "feedback": [
            {"kind": "thumbs", "key": "r1/thumbs/0", "label": 1.0, "withdrawn_at": None},
            {"kind": "thumbs", "key": "r2/thumbs/0", "label": 0.0, "withdrawn_at": 5.0},
            {"kind": "thumbs", "key": "r3/thumbs/0", "label": 0.0},
        ],
        "responses": [
            {"id": "r1", "prompt": "p", "shown": ["x", "y"], "log_probs": [-3.0, -4.0]},
            {"id": "r2", "prompt": "p", "shown": ["x"], "log_probs": [-3.0]},
            {"id": "r3", "prompt": "p", "shown": ["x"], "log_probs": None},
        ],
    }
    (row,) = judged_rows(export)
    assert row == {
        "user_id": "ana",
        "prompt": "p",
        "completion": "x",
        "reward": 1.0,
        "log_prob": -3.0,
    }
    path = tmp_path / "ana.json"
    path.write_text(json.dumps(export))
    printed = CliRunner().invoke(program(main), [str(path)], catch_exceptions=False)
    assert json.loads(printed.output) == row
