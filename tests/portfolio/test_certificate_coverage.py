"""Certificates in simulated worlds: the stated confidence holds, whatever the terms are.

In every world the truth is drawn: the front of all possible policies is a quarter circle, so that
the best value for a preference is known in closed form, and the listed policies stand a little
below it. What a user of the library sees is the truth, plus noise of each value, plus a shift that
all policies have in common. With two objectives the true loss is found on a fine grid.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from palate.core.errors import NotCertifiedError
from palate.core.types import Certificate, PayoffTable
from palate.portfolio.certificate import certify
from palate.portfolio.payoffs import Payoffs
from palate.portfolio.terms import Terms

N_WORLDS, CONFIDENCE = 400, 0.95
N_POLICIES = 4
SLACK, NOISE = 0.02, 0.01
GRID = np.stack([np.linspace(0.0, 1.0, 201), np.linspace(1.0, 0.0, 201)], axis=1)
BEST = np.linalg.norm(GRID, axis=1)  # of the quarter circle with radius one: w @ w / |w|
WHOLE, PART = tuple(range(N_POLICIES)), (1, 2)


@dataclass(frozen=True)
class Setting:
    """What a certificate is asked for, and of which table."""

    has_slack: bool
    has_axes: bool
    level: float
    has_range: bool
    is_whole: bool

    @property
    def members(self) -> tuple[int, ...]:
        return WHOLE if self.is_whole else PART

    @property
    def kind(self) -> str | None:
        """What is certified, by the rules: `None` where nothing is."""
        if self.has_slack:
            return "worst-case" if self.has_axes or self.has_range else None
        return None if self.is_whole else "candidate-relative"


SETTINGS = [
    Setting(*rest[:2], level, *rest[2:])
    for level in (0.0, 0.1)
    for rest in product((True, False), repeat=4)
]


def name(setting: Setting) -> str:
    words = {
        "slack": setting.has_slack,
        "axes": setting.has_axes,
        "range": setting.has_range,
        "whole": setting.is_whole,
    }
    flags = "-".join(word if holds else f"no-{word}" for word, holds in words.items())
    return f"{flags}-level-{setting.level:g}"


def drawn(setting: Setting, generator: np.random.Generator) -> tuple[np.ndarray, Payoffs]:
    """True values, and the table that an experiment would see of them."""
    shares = generator.uniform(0.05, 0.95, size=N_POLICIES)
    if setting.has_axes:
        shares[0], shares[-1] = 1.0, 0.0
    preferences = np.stack([shares, 1.0 - shares], axis=1)
    front = preferences / np.linalg.norm(preferences, axis=1, keepdims=True)
    truth = front - SLACK * generator.uniform(0.5, 1.0, size=(N_POLICIES, 1))
    shift = generator.normal(scale=setting.level, size=2) if setting.level else np.zeros(2)
    seen = truth + generator.normal(scale=NOISE, size=truth.shape) + shift
    table = PayoffTable(
        objectives=("a", "b"),
        policies=tuple(f"p{k}" for k in range(N_POLICIES)),
        values=seen,
        standard_errors=np.full_like(seen, NOISE),
        beta=0.1,
        kl=np.ones(N_POLICIES),
        preferences=preferences,
    )
    return truth, Payoffs(
        table,
        level_errors=np.full(2, setting.level),
        optimum_preferences=np.zeros((0, 2)),
        optimum_values=np.zeros(0),
        reward_range=(0.0, 1.0) if setting.has_range else None,
    )


def is_covered(truth: np.ndarray, certificate: Certificate, *, members: tuple[int, ...]) -> bool:
    """Whether nobody loses more than the certificate says, in amount and in share."""
    worth = (GRID @ truth[list(members)].T).max(axis=1)
    best = BEST if certificate.kind == "worst-case" else (GRID @ truth.T).max(axis=1)
    share = certificate.multiplicative_gap
    return bool(
        np.max(best - worth) <= certificate.additive_gap
        and (share is None or np.max(1.0 - worth / best) <= share)
    )


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.kind is not None], ids=name)
def test_the_certificate_holds_in_the_stated_share_of_worlds(setting):
    generator = np.random.default_rng(7)
    slack = SLACK if setting.has_slack else None
    terms = Terms(confidence=CONFIDENCE, criterion="additive", slack=slack)
    covered, gaps = 0, []
    for _ in range(N_WORLDS):
        truth, payoffs = drawn(setting, generator)
        found = certify(payoffs, members=setting.members, terms=terms).certificate
        assert found.kind == setting.kind
        covered += is_covered(truth, found, members=setting.members)
        gaps.append(found.additive_gap)
    assert covered >= CONFIDENCE * N_WORLDS, f"{covered} of {N_WORLDS}"
    assert np.mean(gaps) < 1.0  # not vacuous: values lie in [0, 1]


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.kind is None], ids=name)
def test_where_nothing_can_be_certified_no_gap_is_given(setting):
    generator = np.random.default_rng(7)
    for _ in range(10):
        _, payoffs = drawn(setting, generator)
        if setting.has_slack:
            terms = Terms(confidence=CONFIDENCE, criterion="additive", slack=SLACK)
            with pytest.raises(NotCertifiedError, match="unit vector"):
                certify(payoffs, members=setting.members, terms=terms)
            continue
        terms = Terms(confidence=CONFIDENCE, criterion="additive")
        found = certify(payoffs, members=setting.members, terms=terms).certificate
        assert found.kind == "candidate-relative"
        assert found.additive_gap is None
        assert found.multiplicative_gap is None
