"""Implicit answers come from the explicit soup's distribution."""

import numpy as np
import pytest
from scipy.stats import chi2

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.plan import output_soup_plan
from palate.models.chat import encode_prompt
from palate.models.logprobs import Scored, answer_log_probs
from palate.recipes.opened import open_library
from palate.recipes.soup_implicit import answer_implicitly

COEFFICIENTS = np.array([0.8, -0.5, 0.6])
N_REQUESTS = 1500


def test_two_implicit_tokens_are_distributed_as_the_explicit_soup_says(tiny_library):
    opened = open_library(tiny_library)
    found = answer_implicitly(
        opened.base,
        opened.library.expert_folders(),
        ["a b c"] * N_REQUESTS,
        np.tile(COEFFICIENTS, (N_REQUESTS, 1)),
        max_tokens=2,
        generator=np.random.default_rng(0),
    )
    prompt = tuple(encode_prompt(opened.base, "a b c"))
    plan = output_soup_plan(COEFFICIENTS.tolist())
    size = opened.base.model.config.vocab_size

    def explicit(before: tuple[int, ...]) -> np.ndarray:
        items = [Scored(prompt + before, (token,)) for token in range(size)]
        rows = answer_log_probs(opened.base, opened.bank, plans=[plan] * size, items=items)
        return np.exp([float(row) for row in rows])

    first = [row[0] for row in found.tokens]
    common = int(np.bincount(first).argmax())  # the cache of every row moved on with this token
    second = [row[1] for row in found.tokens if row[0] == common and len(row) == 2]
    for tokens, chances in ((first, explicit(())), (second, explicit((common,)))):
        counts = np.bincount(tokens, minlength=size).astype(float)
        expected = len(tokens) * chances / chances.sum()
        kept = expected >= 5
        seen = np.append(counts[kept], counts[~kept].sum())
        wanted = np.append(expected[kept], expected[~kept].sum())
        statistic = float(((seen - wanted) ** 2 / wanted).sum())
        assert chi2.sf(statistic, len(seen) - 1) > 0.001
    assert 0 < found.acceptance <= 1


def test_an_expert_that_nobody_uses_changes_nothing_and_zero_accepts_everything(tiny_library):
    opened = open_library(tiny_library)
    found = answer_implicitly(
        opened.base,
        opened.library.expert_folders(),
        ["d e"] * 5,
        np.zeros((5, 3)),
        max_tokens=4,
        generator=np.random.default_rng(0),
    )
    assert (found.acceptance, found.n_fallbacks) == (1.0, 0)
    assert all(1 <= len(row) <= 4 for row in found.tokens)


def test_requests_without_coefficients_are_refused(tiny_library):
    opened = open_library(tiny_library)
    folders = opened.library.expert_folders()
    generator = np.random.default_rng(0)
    with pytest.raises(InvalidInputError, match="one row each"):
        answer_implicitly(
            opened.base, folders, ["a"], np.zeros((2, 3)), max_tokens=1, generator=generator
        )
    with pytest.raises(InvalidCoefficientsError):
        answer_implicitly(
            opened.base, folders, ["a"], np.full((1, 3), np.nan), max_tokens=1, generator=generator
        )
