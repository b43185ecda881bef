"""From what is known of a person to a plan."""

from dataclasses import replace
from pathlib import Path

import pytest

from palate.core.errors import InvalidCoefficientsError, InvalidInputError, InvalidPreferenceError
from palate.core.plan import mixture_plan, output_soup_plan, parameter_soup_plan, reference_plan
from palate.experts.anchors import Anchor
from palate.experts.library import Library
from palate.experts.manifest import ExpertRecord, Manifest
from palate.recipes.ways import Asked, choose

TASTE = {"kind": 0.5, "plain": 0.5}


@pytest.fixture(scope="module")
def manifest(tiny_library: Path) -> Manifest:
    return Library.open(tiny_library).manifest


def test_with_one_expert_per_objective_a_preference_is_its_own_coefficients(
    manifest: Manifest,
) -> None:
    chosen = choose(manifest, Asked("soup", preference=TASTE))
    assert chosen.coefficients == pytest.approx({"kind": 0.5, "short": 0.0, "plain": 0.5})
    assert chosen.plan == parameter_soup_plan(tuple(chosen.coefficients.values()))
    strong = choose(manifest, Asked("soup", preference=TASTE, strength=2.0))
    assert strong.coefficients == pytest.approx({"kind": 1.0, "short": 0.0, "plain": 1.0})


def test_every_way_gives_its_own_plan(manifest: Manifest) -> None:
    given = {"kind": 0.75, "short": 0.25}
    plans = {
        way: choose(manifest, Asked(way, preference=TASTE, coefficients=given)).plan
        for way in ("base", "soup", "output-soup", "mixture", "auto")
    }
    assert plans["base"] == reference_plan(n_experts=3)
    assert plans["soup"] == plans["auto"] == parameter_soup_plan((0.75, 0.25, 0.0))
    assert plans["output-soup"] == output_soup_plan((0.75, 0.25, 0.0))
    assert plans["mixture"] == mixture_plan(experts=(0, 1), n_experts=3, shares=(0.75, 0.25))


def test_a_mixture_serves_a_preference_whatever_other_experts_there_are(manifest: Manifest) -> None:
    """The smallest combination would subtract `short`, which no mixture can."""
    between = Anchor("between", manifest.objective_names, (0.8, 0.2, 0.0))
    grown = replace(manifest, experts=(*manifest.experts, ExpertRecord(between, key="k", files={})))
    taste = {"kind": 0.5, "plain": 0.5}
    assert choose(grown, Asked("soup", preference=taste)).coefficients["short"] < -0.01
    shares = choose(grown, Asked("mixture", preference=taste)).coefficients
    assert min(shares.values()) > 0
    assert sum(shares.values()) == pytest.approx(1.0)
    wanted = {"kind": 0.0, "short": 0.0, "plain": 0.0}
    for record in grown.experts:
        for name, part in zip(grown.objective_names, record.anchor.direction, strict=True):
            wanted[name] += shares.get(record.anchor.name, 0.0) * part
    assert wanted == pytest.approx({"kind": 0.5, "short": 0.0, "plain": 0.5})


def test_without_a_certificate_the_closest_anchor_serves_and_says_so(manifest: Manifest) -> None:
    chosen = choose(manifest, Asked("portfolio", preference={"short": 0.6, "kind": 0.4}))
    assert chosen.coefficients == {"short": 1.0}
    assert "no certificate" in chosen.reason


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (Asked("soup"), InvalidInputError, "Nothing is known"),
        (Asked("stew", preference=TASTE), InvalidInputError, "'stew' is unknown"),
        (Asked("soup", preference={"kind": 0.4}), InvalidPreferenceError, "sums to 0.4"),
        (
            Asked("soup", preference={"rude": 1.0}),
            InvalidPreferenceError,
            "unknown objective 'rude'",
        ),
        (
            Asked("soup", coefficients={"rude": 1.0}),
            InvalidCoefficientsError,
            "unknown expert 'rude'",
        ),
        (Asked("portfolio", coefficients={"kind": 1.0}), InvalidInputError, "needs a preference"),
        (
            Asked("mixture", coefficients={"kind": 1.0, "short": -0.5}),
            InvalidCoefficientsError,
            "zero or more",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(
    manifest: Manifest, asked: Asked, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        choose(manifest, asked)
