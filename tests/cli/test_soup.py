import json

import pytest
import typer
from typer.testing import CliRunner

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
