"""Stage 2 on a real engine."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from palate.core.plan import output_soup_plan
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.features import scored_text
from palate.library.library import Library
from research.soup import fit
from tiny import ANSWERS, PROMPTS


def test_with_normalisers_coefficients_are_the_mode_under_the_soups_own_probabilities(
    tiny_soup_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second way: the engine's log-probabilities of whole answers under the output soup."""
    monkeypatch.setattr(fit, "STATE_TOKENS", 1_000_000)  # the whole vocabulary
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
    belief, normalised = fit.fit_stage_two(opened, path)
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


def answer_sums(library: Library, coefficients: np.ndarray, items: list[Scored]) -> np.ndarray:
    plans = [output_soup_plan(coefficients.tolist())] * len(items)
    found = answer_log_probs(library.base, library.bank, plans=plans, items=items)
    return np.array([float(row.double().sum()) for row in found])
