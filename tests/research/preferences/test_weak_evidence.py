"""The weight of copies and regenerations is found from what they predict."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from research.command_line import program
from research.preferences.weak_evidence import (
    WEIGHTS,
    main,
    read_histories,
    simulated_histories,
    weight_scores,
)


def best(heeded: float) -> float:
    generator = np.random.default_rng(1)
    scores = weight_scores(simulated_histories(60, heeded=heeded, generator=generator))
    assert list(scores) == list(WEIGHTS)
    return max(scores, key=lambda weight: scores[weight])


def test_what_is_chance_gets_next_to_no_weight_and_what_is_heeded_more() -> None:
    assert best(0.0) <= 0.05
    assert 0.05 <= best(0.1) <= 0.3 < best(0.5)


def test_exports_are_read_without_what_was_withdrawn(tmp_path: Path) -> None:
    item = {"kind": "copy", "features": [1.0, 0.0], "label": 1.0, "withdrawn_at": None}
    export = {
        "user": "ana",
        "feedback": [
            item,
            {**item, "kind": "thumbs"},
            {**item, "withdrawn_at": 3.0},
            {**item, "kind": "rating"},
        ],
    }
    (tmp_path / "ana.json").write_text(json.dumps(export))
    assert [one.kind for one in read_histories(tmp_path)[0]] == ["copy", "thumbs"]
    found = CliRunner().invoke(program(main), [str(tmp_path), "--json"], catch_exceptions=False)
    assert json.loads(found.output)["weak_weight"] in WEIGHTS


def test_what_tells_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no export"):
        read_histories(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="is no export of a user"):
        read_histories(tmp_path)
    with pytest.raises(InvalidInputError, match="collect both"):
        weight_scores([[]])
