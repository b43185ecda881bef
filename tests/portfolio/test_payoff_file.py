import json

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.portfolio.payoff_file import load_payoffs, parse_payoffs, render_payoffs, save_payoffs


def content(**change):
    plain = {
        "objectives": ["help", "safe"],
        "beta": 0.1,
        "policies": [
            {
                "name": "p",
                "values": [0.9, 0.1],
                "stderr": [0.01, 0.02],
                "kl": 1.5,
                "preference": [1, 0],
            },
            {"name": "q", "values": [0.2, 0.8], "stderr": None, "kl": None, "preference": None},
        ],
        "optimum": None,
    }
    return {**plain, **change}


def test_a_table_in_the_documented_form_is_read():
    found = parse_payoffs(content(optimum=[{"preference": [1, 0], "value": 0.95}]))
    assert found.table.objectives == ("help", "safe")
    assert found.table.policies == ("p", "q")
    assert found.table.values.tolist() == [[0.9, 0.1], [0.2, 0.8]]
    assert found.table.standard_errors.tolist() == [[0.01, 0.02], [0.0, 0.0]]
    assert found.table.kl[0] == 1.5
    assert np.isnan(found.table.kl[1])
    assert found.table.preferences[0].tolist() == [1.0, 0.0]
    assert np.all(np.isnan(found.table.preferences[1]))
    assert found.optimum_values.tolist() == [0.95]
    assert found.level_errors.tolist() == [0.0, 0.0]


def test_what_is_written_is_read_back(tmp_path):
    given = parse_payoffs(
        content(
            optimum=[{"preference": [0.5, 0.5], "value": 0.7}],
            level_stderr=[0.01, 0.02],
            reward_range=[0, 1],
        )
    )
    save_payoffs(tmp_path / "payoff.json", given)
    found = load_payoffs(tmp_path / "payoff.json")
    assert render_payoffs(found) == render_payoffs(given)
    assert found.reward_range == (0.0, 1.0)


def test_a_missing_value_needs_a_range_and_every_kl():
    policies = [{"name": "p", "values": [None, 0.4], "kl": 0.5}]
    found = parse_payoffs(content(policies=policies, reward_range=[0, 1]))
    assert np.isnan(found.table.values[0, 0])
    with pytest.raises(InvalidInputError, match="'help' is missing"):
        parse_payoffs(content(policies=policies))


def policy(**change):
    return [{"name": "p", "values": [0.1, 0.2], **change}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policies": []}, "at least 1 item"),
        ({"objectives": []}, "at least 1 item"),
        ({"policies": policy() + policy()}, "'p' occurs twice"),
        ({"policies": policy(values=[0.1])}, "must list 2 numbers"),
        (
            {"policies": policy(values=[0.1, "x"])},
            "policies.0.values.1.*'x': Input should be a valid number",
        ),
        ({"policies": policy(values=[0.1, 1e999])}, "inf: Input should be a finite number"),
        ({"policies": policy(colour=1)}, "'policies.0.colour' in the payoff table is unknown"),
        (
            {"policies": [{"values": [0.1, 0.2]}]},
            "'policies.0.name' in the payoff table is missing",
        ),
        ({"policies": [{"name": "p"}]}, "'policies.0.values' in the payoff table is missing"),
        ({"policies": policy(preference=[0.9, 0.9])}, "sums to 1.8"),
        ({"policies": policy(stderr=[-0.1, 0.1])}, "standard error"),
        ({"policies": {"p": 1}}, "'policies'.*should be a valid list"),
        ({"policies": ["p"]}, "policies.0.*should be a valid dictionary"),
        ({"beta": None}, "'beta'.*None: Input should be a valid number"),
        ({"beta": True}, "'beta'.*True: Input should be a valid number"),
        ({"optimum": [{"value": 0.4}]}, "'optimum.0.preference' in the payoff table is missing"),
        ({"optimum": [{"preference": [1, 0], "value": None}]}, "'optimum.0.value'.*None"),
        ({"reward_range": [1, 0]}, "low to high"),
        ({"extra": 1}, "'extra' in the payoff table is unknown"),
    ],
)
def test_tables_of_another_form_are_refused_by_name(change, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_payoffs(content(**change))


def test_a_table_without_beta_or_of_another_type_is_refused():
    plain = content()
    del plain["beta"]
    with pytest.raises(InvalidInputError, match="'beta' in the payoff table is missing"):
        parse_payoffs(plain)
    with pytest.raises(InvalidInputError, match="should be a valid dictionary"):
        parse_payoffs([1])


def test_nan_in_the_file_is_refused(tmp_path):
    path = tmp_path / "payoff.json"
    path.write_text(json.dumps(content(beta=float("nan"))))
    with pytest.raises(InvalidInputError, match="NaN"):
        load_payoffs(path)


def test_slacks_are_optional_and_come_back():
    content = {
        "objectives": ["a"],
        "beta": 0.1,
        "policies": [{"name": "p", "values": [0.5]}, {"name": "q", "values": [0.4]}],
    }
    assert parse_payoffs(content).slacks is None
    assert "slacks" not in render_payoffs(parse_payoffs(content))
    given = parse_payoffs({**content, "slacks": [0.02, None], "slack_confidence": 0.9})
    assert given.slacks[0] == 0.02
    assert np.isnan(given.slacks[1])
    again = parse_payoffs(render_payoffs(given))
    assert np.array_equal(again.slacks, given.slacks, equal_nan=True)
    assert again.slack_confidence == 0.9
    assert parse_payoffs({**content, "slacks": [0.02, None]}).slack_confidence == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slacks": [0.02]}, "must list 2 numbers"),
        ({"slacks": [-0.02, None]}, "slacks are not one number of zero or more"),
        ({"slacks": [0.02, 0.02], "slack_confidence": 1.5}, "confidence of the slacks"),
    ],
)
def test_slacks_that_cannot_be_are_refused(change, words):
    content = {
        "objectives": ["a"],
        "beta": 0.1,
        "policies": [{"name": "p", "values": [0.5]}, {"name": "q", "values": [0.4]}],
    }
    with pytest.raises(InvalidInputError, match=words):
        parse_payoffs({**content, **change})
