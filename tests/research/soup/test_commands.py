"""The yardstick of soups prints, and fails after printing."""

import json

import pytest
from typer.testing import CliRunner

from palate.core.errors import CheckFailedError
from palate.metrics.intervals import Interval
from research.command_line import program
from research.soup import yardstick
from research.soup.yardstick_report import YardstickReport

CELL = ("ridge", 4, 10)


@pytest.fixture
def measured(monkeypatch):
    def measure(failures=()):
        report = YardstickReport(
            {CELL: Interval(41.0, 30.0, 52.0, 36, 6)}, {CELL: -9.5}, ({0.9: 3},), failures
        )
        monkeypatch.setattr(yardstick, "run_yardstick", lambda **_: report)

    return measure


def test_the_table_is_printed(measured):
    measured()
    result = CliRunner().invoke(program(yardstick.main), [], catch_exceptions=False)
    assert result.exit_code == 0
    assert "41.0 [30.0, 52.0]" in result.stdout


def test_json_is_one_object_with_what_was_recorded(measured):
    measured()
    result = CliRunner().invoke(program(yardstick.main), ["--json"], catch_exceptions=False)
    cell = json.loads(result.stdout)["cells"][0]
    assert (cell["estimate"], cell["recorded"], cell["n"]) == (41.0, 41.0, 36)


def test_a_check_that_fails_is_raised_after_printing(measured):
    measured(failures=("Q space is not above.",))
    result = CliRunner().invoke(program(yardstick.main), ["--json"])
    assert isinstance(result.exception, CheckFailedError)
    assert json.loads(result.stdout)["failures"] == ["Q space is not above."]
