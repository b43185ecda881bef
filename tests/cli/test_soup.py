import json

import pytest
import typer
from typer.testing import CliRunner

from palate.cli import app as program
from palate.cli import soup
from palate.core.errors import CheckFailedError
from palate.metrics.intervals import Interval
from palate.recipes import soup_yardstick
from palate.recipes.soup_yardstick_report import YardstickReport

CELL = ("ridge", 4, 10)
app = typer.Typer()
app.add_typer(soup.app, name="soup")


@pytest.fixture
def measured(monkeypatch):
    def measure(failures=()):
        report = YardstickReport(
            {CELL: Interval(41.0, 30.0, 52.0, 36, 6)}, {CELL: -9.5}, ({0.9: 3},), failures
        )
        monkeypatch.setattr(soup_yardstick, "run_yardstick", lambda **_: report)

    return measure


def test_the_table_is_printed(measured):
    measured()
    result = CliRunner().invoke(app, ["soup", "yardstick"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "41.0 [30.0, 52.0]" in result.stdout


def test_json_is_one_object_with_what_was_recorded(measured):
    measured()
    result = CliRunner().invoke(app, ["soup", "yardstick", "--json"], catch_exceptions=False)
    cell = json.loads(result.stdout)["cells"][0]
    assert (cell["estimate"], cell["recorded"], cell["n"]) == (41.0, 41.0, 36)


def test_a_check_that_fails_is_raised_after_printing(measured):
    measured(failures=("Q space is not above.",))
    result = CliRunner().invoke(app, ["soup", "yardstick", "--json"])
    assert isinstance(result.exception, CheckFailedError)
    assert json.loads(result.stdout)["failures"] == ["Q space is not above."]


def test_fitted_coefficients_answer_and_merge(tiny_soup_library, tmp_path, monkeypatch, capsys):
    feedback = tmp_path / "f.jsonl"
    row = {"prompt": "a b c", "first": "b a d", "second": "c c", "label": 1}
    feedback.write_text(json.dumps(row) + "\n")
    out = tmp_path / "me.json"
    words = ["soup", "fit", str(tiny_soup_library), "--feedback", str(feedback), "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert set(found["coefficients"]) == {"kind", "short", "plain"}
    assert "predicted_gain_per_token" in found
    assert "credible interval" in CliRunner().invoke(app, words, catch_exceptions=False).stdout

    def run(*options):
        monkeypatch.setattr("sys.argv", ["palate", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return ended.value.code, capsys.readouterr()

    for way in ("soup", "output-soup"):
        code, said = run(
            *("generate", tiny_soup_library, "--prompt", "a b c", "--method", way),
            *("--coefficients", f"@{out}", "--max-tokens", 3, "--json"),
        )
        assert code == 0
        served = {name: row["served"] for name, row in found["coefficients"].items()}
        assert json.loads(said.out)["coefficients"] == pytest.approx(served)
    whole = json.loads(out.read_text())
    out.write_text(json.dumps({**whole, "base": "another"}))
    code, said = run(*("generate", tiny_soup_library, "--prompt", "a", "--coefficients", f"@{out}"))
    assert code == 2
    assert "'another'" in said.err
