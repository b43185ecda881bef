"""Stage 2 and the value head on a real engine."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from palate.build.soup_feedback import read_feedback
from palate.build.soup_fit import fit_soup
from palate.build.soup_fitting import fitting_of
from palate.core.errors import InvalidInputError
from palate.core.plan import output_soup_plan
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.features import scored_text
from palate.library.library import Library
from research.soup import stages
from tiny import ANSWERS, PROMPTS


def test_with_normalisers_coefficients_are_the_mode_under_the_soups_own_probabilities(
    tiny_soup_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second way: the engine's log-probabilities of whole answers under the output soup."""
    monkeypatch.setattr(stages, "STATE_TOKENS", 1_000_000)  # the whole vocabulary
    opened = Library.load(tiny_soup_library)
    basis = opened.basis
    items = [scored_text(opened.base, PROMPTS[0], answer) for answer in ANSWERS]
    base = answer_sums(opened, np.zeros(3), items)
    places = list(combinations(range(len(ANSWERS)), 2))
    first, second = np.array(places).T
    true = np.array([40.0, -30.0, 25.0])
    ratios = answer_sums(opened, true, items) - base
    labels = expit(0.1 * (ratios[first] - ratios[second]))
    rows = [
        {"prompt": PROMPTS[0], "first": ANSWERS[a], "second": ANSWERS[b], "label": float(label)}
        for (a, b), label in zip(places, labels, strict=True)
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fitting = fitting_of(opened, read_feedback(path))
    belief = fitting.learner.rebuild(fitting.items)
    normalised = stages.normalised(fitting, belief)
    assert normalised is not None

    def loss(coefficients: np.ndarray) -> float:
        ratios = answer_sums(opened, coefficients, items) - base
        margins = belief.gain * 0.1 * (ratios[first] - ratios[second])
        misses = labels * np.logaddexp(0, -margins) + (1 - labels) * np.logaddexp(0, margins)
        return float(misses.sum() + 0.5 * np.sum((coefficients * basis.feature_scales) ** 2))

    mode = basis.unscaled(normalised).mean
    size = 0.05 * np.abs(mode).max()
    for step in size * np.vstack([np.eye(3), -np.eye(3)]):
        assert loss(mode + step) > loss(mode)


def test_a_value_head_reads_the_states_that_the_base_passed_through(
    tiny_soup_library: Path,
) -> None:
    """A second way: tilts of whole answers, and a pass of the base for its hidden states."""
    opened = Library.load(tiny_soup_library)
    items = [scored_text(opened.base, PROMPTS[0], answer) for answer in ANSWERS[:3]]
    paths = stages.paths_of(opened, items)
    first = np.flatnonzero(np.append(True, np.diff(paths.answers)))
    base = answer_sums(opened, np.zeros(3), items)
    for expert in np.eye(3):
        wanted = answer_sums(opened, expert, items) - base
        assert paths.futures(expert)[first] == pytest.approx(wanted, abs=1e-3)
    spread = np.cov(paths.features, rowvar=False)
    assert spread == pytest.approx(
        np.eye(len(spread)) * len(paths.answers) / (len(paths.answers) - 1), abs=1e-6
    )


def test_a_value_head_corrects_coefficients_or_leaves_them(
    tiny_soup_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Library.load(tiny_soup_library)
    rows = [
        {"prompt": PROMPTS[0], "first": ANSWERS[a], "second": ANSWERS[b], "label": 1}
        for a, b in combinations(range(4), 2)
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fitting = fitting_of(opened, read_feedback(path))
    belief = fitting.learner.rebuild(fitting.items)
    monkeypatch.setattr(stages, "corrected_coefficients", lambda _, coefficients: coefficients)
    assert stages.value_head(fitting, belief) is None
    monkeypatch.setattr(stages, "corrected_coefficients", lambda _, c: 2.0 * c)
    corrected = stages.value_head(fitting, belief)
    assert corrected is not None
    assert corrected.mean == pytest.approx(2.0 * belief.mean)
    assert corrected.covariance is belief.covariance


def test_stage_two_without_comparisons_is_refused(tiny_soup_library: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"prompt": PROMPTS[0], "answer": ANSWERS[0], "thumbs": 1}) + "\n")
    with pytest.raises(InvalidInputError, match="the feedback has 0; keep stage 1"):
        fit_soup(tiny_soup_library, path, refine=stages.normalised)


def answer_sums(library: Library, coefficients: np.ndarray, items: list[Scored]) -> np.ndarray:
    plans = [output_soup_plan(coefficients.tolist())] * len(items)
    found = answer_log_probs(library.base, library.bank, plans=plans, items=items)
    return np.array([float(row.double().sum()) for row in found])
