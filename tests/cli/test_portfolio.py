import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from palate.cli.app import app
from palate.core.errors import CheckFailedError, InvalidInputError, NotCertifiedError

TABLE = {
    "objectives": ["help", "safe"],
    "beta": 0.1,
    "policies": [
        {"name": "p", "values": [1.0, 0.0], "stderr": None, "kl": 1.0, "preference": [1, 0]},
        {"name": "q", "values": [0.0, 1.0], "stderr": None, "kl": 1.0, "preference": [0, 1]},
        {"name": "r", "values": [0.7, 0.7], "stderr": None, "kl": 0.5, "preference": [0.5, 0.5]},
    ],
    "optimum": None,
}


@pytest.fixture
def payoff(tmp_path):
    path = tmp_path / "payoff.json"
    path.write_text(json.dumps(TABLE))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["portfolio", *map(str, arguments)], catch_exceptions=True)


def changed(path, **change):
    path.write_text(json.dumps({**TABLE, **change}))
    return path


def test_select_prints_the_certificate_of_paper_and_pencil(payoff, tmp_path):
    result = run("select", payoff, "--size", 2, "--out", tmp_path / "portfolio.json", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["members"] == ["p", "q"]
    assert found["additive_gap"] == pytest.approx(0.2)
    assert found["multiplicative_gap"] == pytest.approx(2 / 7)
    assert found["worst_preference"] == pytest.approx([0.5, 0.5])
    assert found["confidence"] == 1.0
    assert found["size_bound"] == 3
    assert found["kind"] == "candidate-relative"


def test_what_was_selected_verifies_and_an_altered_number_does_not(payoff, tmp_path):
    out = tmp_path / "portfolio.json"
    run("select", payoff, "--size", 2, "--out", out)
    assert json.loads(run("verify", out, "--json").stdout)["verified"] is True
    content = json.loads(out.read_text())
    content["certificate"]["additive_gap"] = 0.1
    out.write_text(json.dumps(content))
    assert isinstance(run("verify", out).exception, CheckFailedError)


def test_route_names_the_member_and_its_plan(payoff, tmp_path):
    out = tmp_path / "portfolio.json"
    run("select", payoff, "--epsilon", 0.2, "--delta", 0.05, "--out", out)
    result = run("route", out, "--preference", "help=0.9,safe=0.1", "--json")
    found = json.loads(result.stdout)
    assert found["member"] == "p"
    assert found["value"] == pytest.approx(0.9)
    assert found["plan"]["pool"]["kind"] == "single"
    assert "member" in run("route", out, "--preference", "help=0.9,safe=0.1").stdout


def test_route_serves_a_belief_as_its_mean(payoff, tmp_path):
    out, draws = tmp_path / "portfolio.json", tmp_path / "draws.jsonl"
    run("select", payoff, "--size", 3, "--out", out)
    draws.write_text('{"help": 1.0}\n{"safe": 1.0}\n')
    found = json.loads(run("route", out, "--draws", draws, "--json").stdout)
    assert found["member"] == "r"
    assert found["expected_loss"] is None  # all listed policies are members
    assert found["avoidable_loss"] == pytest.approx(0.3)
    assert isinstance(run("route", out).exception, InvalidInputError)


def test_every_option_reaches_the_certificate(payoff, tmp_path):
    users = tmp_path / "users.jsonl"
    users.write_text('{"help": 0.9, "safe": 0.1}\n')
    result = run(
        "select", payoff, "--size", 1, "--aim", "mean", "--users", users, "--gap", "additive",
        "--slack", 0.01, "--offset", 0.5, "--confidence", 0.9, "--report-on", payoff, "--json",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert found["members"] == ["p"]
    assert found["kind"] == "worst-case"
    assert found["offset"] == 0.5
    assert found["selection"]["chosen_on_other_prompts"] is True
    floored = json.loads(run("select", payoff, "--size", 1, "--floor", "safe=0.5", "--json").stdout)
    assert floored["refused"] == ["p"]
    assert (
        "refused, below the floor: p"
        in run("select", payoff, "--size", 1, "--floor", "safe=0.5").stdout
    )


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"policies": []}, ("--size", 1), "at least 1 item"),
        ({"policies": TABLE["policies"] * 2}, ("--size", 1), "occurs twice"),
        ({}, ("--size", 4), "larger than the 3 policies"),
        ({}, ("--size", 0), "one member or more"),
        ({}, (), "neither"),
        ({}, ("--size", 1, "--gap", "relative"), "additive or multiplicative"),
        ({}, ("--size", 1, "--aim", "median"), "worst, mean, blend"),
        ({}, ("--size", 1, "--floor", "safe=0.5,help=0.1"), "one objective"),
        ({}, ("--size", 1, "--confidence", 1.5), "between 0 and 1"),
        ({}, ("--size", 1, "--slack", 0.1, "--no-slack"), "either --slack or --no-slack"),
        (
            {"policies": [{"name": "p", "values": [float("nan"), 0.2]}]},
            ("--size", 1),
            "not valid JSON",
        ),
        ({"policies": [{"name": "p", "values": [1e400, 0.2]}]}, ("--size", 1), "Infinity"),
    ],
)
def test_bad_input_is_one_sentence(payoff, change, options, words):
    result = run("select", changed(payoff, **change), *options)
    assert isinstance(result.exception, InvalidInputError)
    assert words in str(result.exception)


def test_a_value_slightly_below_zero_is_no_refusal_and_is_said(payoff):
    policies = [
        {"name": "p", "values": [1.0, -0.003]},
        {"name": "q", "values": [0.5, -0.001]},
    ]
    result = run("select", changed(payoff, policies=policies), "--size", 1)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "members: p" in text
    assert "relative to the 2 listed policies, a user loses at most 0.002000 (conf" in text
    assert "There is no multiplicative gap, because" in text
    assert "Members were chosen by the additive gap, because" in text
    found = json.loads(run("select", payoff, "--size", 1, "--json").stdout)
    assert found["multiplicative_gap"] is None
    assert found["additive_gap"] == pytest.approx(0.002)
    assert "additive gap" in found["assumptions"][-1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_comparison_with_listed_policies_is_never_printed_as_a_bound_for_everybody(
    payoff, tmp_path, size
):
    out = tmp_path / "portfolio.json"
    printed = [
        run("select", payoff, "--size", size, "--out", out).stdout,
        run("verify", out).stdout,
        run("route", out, "--preference", "help=0.5,safe=0.5").stdout,
    ]
    text = " ".join(" ".join(printed).split())
    assert "nobody" not in text
    if size < 3:
        assert text.count("relative to the 3 listed policies, a user loses at most") == 2
        return
    assert text.count("nothing is known beyond the listed policies") >= 2
    assert "unknown" in printed[2]
    found = json.loads(run("select", payoff, "--size", 3, "--json").stdout)
    assert found["additive_gap"] is None
    assert found["worst_preference"] == []
    route = json.loads(run("route", out, "--preference", "help=0.5,safe=0.5", "--json").stdout)
    assert route["loss"] is None


def test_slacks_of_the_payoff_file_bound_everybody_unless_they_are_left_out(payoff):
    changed(payoff, slacks=[0.01, 0.02, None], slack_confidence=0.975)
    found = json.loads(run("select", payoff, "--size", 2, "--json").stdout)
    assert found["kind"] == "worst-case"
    assert found["confidence"] == 0.975
    # units are worth at most 1.01 and 1.02, so 0.3, 0.7 at most 1.017; q and r have 0.7 there
    assert found["members"] == ["q", "r"]
    assert found["additive_gap"] == pytest.approx(1.017 - 0.7)
    assert "nobody loses more than" in run("select", payoff, "--size", 2).stdout
    without = json.loads(run("select", payoff, "--size", 2, "--no-slack", "--json").stdout)
    assert without["kind"] == "candidate-relative"
    given = json.loads(run("select", payoff, "--size", 2, "--slack", 0, "--json").stdout)
    assert given["kind"] == "worst-case"
    assert given["additive_gap"] < found["additive_gap"]


def test_a_tolerance_that_the_table_does_not_reach_is_a_failed_check(payoff):
    changed(payoff, optimum=[
        {"preference": [1, 0], "value": 1.1}, {"preference": [0, 1], "value": 1.1},
    ])  # fmt: skip
    result = run("select", payoff, "--delta", 0.05)
    assert isinstance(result.exception, NotCertifiedError)


def test_exit_codes_are_two_for_bad_input_and_one_for_a_failed_check(payoff, tmp_path):
    def code(*arguments):
        words = [sys.executable, "-c", "from palate.cli.app import main; main()", "portfolio"]
        done = subprocess.run(
            [*words, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    out = tmp_path / "portfolio.json"
    assert code("select", payoff, "--size", 2, "--out", out)[0] == 0
    out.write_text(out.read_text().replace('"confidence": 0.95', '"confidence": 0.99'))
    returned, sentence = code("verify", out)
    assert returned == 1
    assert "was altered" in sentence
    returned, sentence = code("select", payoff, "--size", 9)
    assert returned == 2
    assert sentence.count("\n") == 1
