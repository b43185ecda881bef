"""A user's soup from a feedback file, on a tiny library of random experts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.build.soup_feedback import read_feedback
from palate.build.soup_fit import fit_soup, write_soup
from palate.build.soup_fitting import Fitting
from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.core.plan import member_plan, reference_plan
from palate.core.types import Belief
from palate.engine.logprobs import answer_log_probs
from palate.library.features import scored_text
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.soup import open_basis
from palate.soup.coefficients_file import load_coefficients
from tiny import ANSWERS, PROMPTS

EXPERTS = ("kind", "short", "plain")


@pytest.fixture
def library(tiny_soup_library: Path) -> Path:
    return tiny_soup_library


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _comparison(first: int, second: int, label: float, **more: Any) -> dict[str, Any]:
    texts = {"first": ANSWERS[first], "second": ANSWERS[second]}
    return {"prompt": PROMPTS[0], **texts, "label": label, **more}


def _log_ratios(folder: Path, answers: list[str]) -> np.ndarray:
    """A second way: every expert through the bank of all, one answer at a time."""
    opened = Library.load(folder)
    items = [scored_text(opened.base, PROMPTS[0], answer) for answer in answers]
    plans = [reference_plan(n_experts=3), *(member_plan(index=k, n_experts=3) for k in range(3))]
    sums = [
        [
            float(answer_log_probs(opened.base, opened.bank, plans=[plan], items=[item])[0].sum())
            for plan in plans
        ]
        for item in items
    ]
    table = np.array(sums)
    return table[:, 1:] - table[:, :1]


def test_shown_coefficients_and_intervals_are_of_the_posterior(
    library: Path, tmp_path: Path
) -> None:
    """A second way: a million vectors and gains from their priors, weighed by the labels."""
    pairs = [(0, 1, 1.0), (2, 3, 0.0), (4, 5, 1.0), (6, 7, 0.5), (1, 6, 1.0)]
    path = _write(tmp_path / "f.jsonl", [_comparison(*pair) for pair in pairs])
    fitted = fit_soup(library, path)
    basis = open_basis(LibraryFolder.open(library))
    scaled = 0.1 * _log_ratios(library, list(ANSWERS)) / basis.feature_scales
    differences = np.array([scaled[a] - scaled[b] for a, b, _ in pairs])
    labels = np.array([label for *_, label in pairs])
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(1_000_000, 3))
    gains = np.exp(np.log(3.0) * generator.normal(size=len(vectors)))
    margins = gains[:, None] * (vectors @ differences.T)
    misses = labels * np.logaddexp(0, -margins) + (1 - labels) * np.logaddexp(0, margins)
    weight = np.exp(-misses.sum(axis=1)) * ((gains > 2.0**-6) & (gains < 4.0))
    weight /= weight.sum()
    mean = weight @ vectors
    deviations = np.sqrt(weight @ (vectors - mean) ** 2)
    half = 1.96 * deviations / basis.feature_scales
    assert np.allclose(fitted.soup.belief.mean, mean / basis.feature_scales, atol=0.1 * half.max())
    assert np.allclose(fitted.intervals[:, 1] - fitted.soup.belief.mean, half, rtol=0.1)
    assert fitted.counts == {"comparison": 5}
    assert set(fitted.to_json()["coefficients"]) == set(EXPERTS)


def test_brought_log_ratios_give_the_fit_that_scoring_gives(library: Path, tmp_path: Path) -> None:
    ratios = _log_ratios(library, [ANSWERS[0], ANSWERS[1]])
    named = [dict(zip(EXPERTS, row.tolist(), strict=True)) for row in ratios]
    scored = _write(tmp_path / "a.jsonl", [_comparison(0, 1, 1)])
    brought = _write(
        tmp_path / "b.jsonl",
        [_comparison(0, 1, 1, first_log_ratios=named[0], second_log_ratios=named[1])],
    )
    one, other = (fit_soup(library, path).soup.belief.mean for path in (scored, brought))
    assert one == pytest.approx(other, rel=1e-3)


def test_answers_may_be_referred_to_and_all_kinds_mix(library: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "r1", "prompt": PROMPTS[0], "answer": ANSWERS[0]},
        {"id": "r2", "prompt": PROMPTS[0], "answer": ANSWERS[1]},
        {"first_id": "r1", "second_id": "r2", "label": 1},
        {"answer_id": "r1", "thumbs": 1},
        {"answer_id": "r1", "rating": 5},
        {"prompt": PROMPTS[0], "answer": ANSWERS[1], "rating": 1},
    ]
    fitted = fit_soup(library, _write(tmp_path / "f.jsonl", rows))
    assert fitted.counts == {"comparison": 1, "thumbs": 1, "rating": 2}
    assert np.any(fitted.soup.belief.mean != 0)


def test_contradictory_repetitions_are_kept_and_noise_rises(library: Path, tmp_path: Path) -> None:
    agreed = [_comparison(0, 1, 1)] * 20
    opposed = [_comparison(0, 1, 1), _comparison(0, 1, 0)] * 10
    one = fit_soup(library, _write(tmp_path / "a.jsonl", agreed))
    other = fit_soup(library, _write(tmp_path / "b.jsonl", opposed))
    assert other.counts == {"comparison": 20}
    assert other.gain < one.gain
    assert np.abs(other.soup.belief.mean).max() < 1e-6 < np.abs(one.soup.belief.mean).max()


def test_coefficients_beyond_the_trust_region_are_shrunk_and_said_so(
    library: Path, tmp_path: Path
) -> None:
    other = tmp_path / "library"
    shutil.copytree(library, other)
    write_soup(other, overrides=["budget=1.0e-6", "early_budget=1.0e-6", "active_threshold=0"])
    fitted = fit_soup(other, _write(tmp_path / "f.jsonl", [_comparison(0, 1, 1)] * 12))
    assert fitted.soup.scale < 1
    assert fitted.soup.kl <= 1e-6
    assert any("beyond the trust region" in warning for warning in fitted.warnings)


def _emptied(fitting: Fitting, belief: Belief) -> Belief:
    """Nothing of what was said; the user's items and answers are all there."""
    assert len(fitting.items) == len(fitting.observations) == 12
    assert set(fitting.log_ratios) == set(fitting.features)
    return replace(belief, mean=np.zeros(3))


def test_a_refinement_serves_its_own_belief_and_shows_the_fits(
    library: Path, tmp_path: Path
) -> None:
    path = _write(tmp_path / "f.jsonl", [_comparison(0, 1, 1)] * 12)
    plain, emptied = fit_soup(library, path), fit_soup(library, path, refine=_emptied)
    assert emptied.soup.belief.mean == pytest.approx(plain.soup.belief.mean)
    assert emptied.soup.coefficients.tolist() == [0.0, 0.0, 0.0]
    assert np.abs(plain.soup.coefficients).max() > 0.0
    assert not any("refinement" in warning for warning in emptied.warnings)


def test_a_refinement_that_finds_nothing_leaves_the_fit_and_says_so(
    library: Path, tmp_path: Path
) -> None:
    path = _write(tmp_path / "f.jsonl", [_comparison(0, 1, 1)] * 12)
    kept = fit_soup(library, path, refine=lambda _, __: None)
    assert kept.soup.coefficients == pytest.approx(fit_soup(library, path).soup.coefficients)
    assert any("so the logistic fit is served" in warning for warning in kept.warnings)


def test_the_safety_floor_is_served_whatever_was_said(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "library"
    shutil.copytree(library, other)
    write_soup(other, floor={"short": 0.4})
    for label in (0.0, 1.0):
        path = _write(tmp_path / f"{label}.jsonl", [_comparison(0, 1, label)] * 30)
        out = tmp_path / f"{label}.json"
        fit_soup(other, path, out=out)
        assert load_coefficients(out).coefficients["short"] >= 0.4
    with pytest.raises(InvalidCoefficientsError, match="'rude'"):
        write_soup(other, floor={"rude": 0.4})


def test_a_population_sets_prior_and_gain(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "library"
    shutil.copytree(library, other)
    rows = [
        _comparison(a, b, float((a + b + who) % 3 > 0), user=f"p{who}")
        for who in range(4)
        for a in range(4)
        for b in range(4, 8)
    ]
    written = write_soup(other, population=_write(tmp_path / "many.jsonl", rows))
    assert written.basis.prior.n_observations == 4
    assert written.basis.prior.gain > 0
    path = _write(tmp_path / "f.jsonl", rows)
    with pytest.raises(InvalidInputError, match="4 users"):
        fit_soup(other, path)
    with pytest.raises(InvalidInputError, match="'nobody'"):
        fit_soup(other, path, user="nobody")
    assert fit_soup(other, path, user="p2").counts == {"comparison": 16}


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        (_comparison(0, 0, 1), InvalidInputError, "an answer with itself"),
        (_comparison(0, 1, 2), InvalidInputError, "label 2"),
        ({"first_id": "r9", "second_id": "r1", "label": 1}, InvalidInputError, "response 'r9'"),
        ({"prompt": "a", "answer": "b"}, InvalidInputError, "none of label"),
        (
            {"prompt": "a", "answer": "b", "rating": None},
            InvalidInputError,
            "rating None; use a finite",
        ),
        (
            _comparison(0, 1, 1, first_log_ratios={"kind": None, "short": 1, "plain": 1}),
            InvalidCoefficientsError,
            "not a finite number",
        ),
        (
            {"prompt": "a", "answer": "b", "rating": 1, "log_ratios": [0.1]},
            InvalidInputError,
            r"log_ratios \[0.1\]; give numbers by expert",
        ),
        (
            _comparison(0, 1, 1, first_log_ratios={"rude": 1.0}),
            InvalidCoefficientsError,
            "unknown expert 'rude'",
        ),
    ],
)
def test_bad_feedback_is_refused_in_one_sentence(
    library: Path, tmp_path: Path, row: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fit_soup(library, _write(tmp_path / "f.jsonl", [row]))


def test_bad_feedback_is_named_by_its_line_also_after_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    row = {"prompt": "a", "answer": "b", "rating": 1}
    path.write_text(json.dumps(row) + "\n\n\n" + json.dumps({**row, "rating": "x"}) + "\n")
    with pytest.raises(InvalidInputError, match=r"Line 4 of the feedback file .* rating 'x'"):
        read_feedback(path)


def test_a_soup_file_of_other_experts_or_none_is_refused(
    library: Path, tiny_library: Path, tmp_path: Path
) -> None:
    path = _write(tmp_path / "f.jsonl", [_comparison(0, 1, 1)])
    with pytest.raises(InvalidInputError, match="palate soup basis"):
        fit_soup(tiny_library, path)
    other = tmp_path / "library"
    shutil.copytree(library, other)
    LibraryFolder.open(other).with_experts_of(("kind", "short"))
    with pytest.raises(FormatError, match="kind, short"):
        fit_soup(other, path)
