import json

import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from research.command_line import program
from research.world import measure, train
from research.world.objectives import OBJECTIVE_NAMES

TINY = ("steps=2", "vocabulary=300", "tokenizer_documents=50", "hidden=16", "layers=1", "heads=2")


def run(study, *arguments):
    return CliRunner().invoke(program(study.main), [*map(str, arguments)], catch_exceptions=True)


def test_train_prints_one_json_object_and_measure_prints_the_same_figures(tmp_path):
    overrides = [word for setting in TINY for word in ("--set", setting)]
    made = run(train, "--out", tmp_path / "base", "--answers", 1, "--json", *overrides)
    assert made.exit_code == 0, made.output
    outcome = json.loads(made.stdout)
    assert tuple(outcome["measurement"]["gold_mean"]) == OBJECTIVE_NAMES
    found = run(measure, tmp_path / "base", "--answers", 1, "--json")
    assert json.loads(found.stdout) == outcome["measurement"]


def test_measure_prints_a_table_of_all_objectives():
    found = run(measure, "--answers", 2)
    assert found.exit_code == 0, found.output
    assert all(name in found.stdout for name in OBJECTIVE_NAMES)
    assert "n = 2" in found.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [("widht=3", "'widht' in settings is unknown"), ("vocabulary=9000", "'vocabulary'")],
)
def test_bad_settings_are_one_sentence(tmp_path, override, message):
    result = run(train, "--out", tmp_path / "base", "--set", override)
    assert isinstance(result.exception, InvalidInputError)
    assert message in str(result.exception)
    assert not (tmp_path / "base").exists()
