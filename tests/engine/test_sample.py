"""Drawing tokens: each rule by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.protocols import SamplingParams
from palate.engine.sample import sample_tokens, sampled_log_probs, uniforms

PROBS = torch.tensor([[0.1, 0.4, 0.2, 0.3]])


def one(u: float, *, probs: torch.Tensor = PROBS, **options: object) -> int:
    prompts, answers = options.pop("prompts", [()]), options.pop("answers", [[]])
    drawn = sample_tokens(
        torch.log(probs),
        sampling=[SamplingParams(**options)],
        prompts=prompts,
        answers=answers,
        uniform=torch.tensor([u]),
    )
    return int(drawn[0])


def test_a_uniform_number_falls_into_the_tokens_share() -> None:
    assert [one(u) for u in (0.05, 0.3, 0.6, 0.9)] == [0, 1, 2, 3]


def test_temperature_zero_takes_the_most_probable_token() -> None:
    assert one(0.99, temperature=0.0) == 1


def test_temperature_sharpens_by_powers() -> None:
    # p^2 normalised: .01, .16, .04, .09 over .30; the first two end at 0.0333 and 0.5667
    assert [one(u, temperature=0.5) for u in (0.03, 0.04, 0.56, 0.57, 0.71)] == [0, 1, 1, 2, 3]


def test_top_k_keeps_the_most_probable_tokens() -> None:
    # tokens 1 and 3 remain, with shares 4/7 and 3/7
    assert [one(u, top_k=2) for u in (0.0, 0.57, 0.58, 0.99)] == [1, 1, 3, 3]


def test_top_p_keeps_the_smallest_set_of_that_mass() -> None:
    assert {one(u, top_p=0.4) for u in np.linspace(0, 0.999, 20)} == {1}
    assert {one(u, top_p=0.41) for u in np.linspace(0, 0.999, 40)} == {1, 3}


def test_a_repetition_penalty_counts_prompt_and_answer() -> None:
    # log 0.4 * 3 is below log 0.3: token 1 loses its first place
    assert one(0.0, temperature=0.0, repetition_penalty=3.0, prompts=[(1,)]) == 3
    assert one(0.0, temperature=0.0, repetition_penalty=3.0, answers=[[1, 3]]) == 2


def test_an_ngram_of_the_answer_does_not_come_again_but_one_of_the_prompt_may() -> None:
    options = {"temperature": 0.0, "no_repeat_ngram_size": 2}
    assert one(0.0, answers=[[2, 1, 2]], **options) == 3
    assert one(0.0, prompts=[(2, 1, 2)], answers=[[2]], **options) == 1


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=8), st.floats(0.0, 0.9999999))
@settings(max_examples=60)
def test_a_token_of_no_probability_is_never_drawn(shares: list[float], u: float) -> None:
    probs = torch.tensor([[0.0, *shares, 0.0]])
    assert 0 < one(u, probs=probs / probs.sum()) <= len(shares)


def test_the_numbers_depend_on_the_seed_alone() -> None:
    assert np.array_equal(uniforms(seed=3, n_tokens=5), uniforms(seed=3, n_tokens=9)[:5])
    assert not np.array_equal(uniforms(seed=3, n_tokens=5), uniforms(seed=4, n_tokens=5))


def test_a_token_is_as_probable_as_the_temperature_makes_it() -> None:
    log_probs = torch.log(torch.tensor([[0.2, 0.8]] * 4))
    sampling = [
        SamplingParams(temperature=0.5),  # squares: 0.04 / 0.68
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.0, top_k=1),
    ]
    first, second, *unknown = sampled_log_probs(
        log_probs, torch.tensor([0, 0, 1, 1]), sampling=sampling
    )
    assert np.isclose(first, np.log(0.04 / 0.68), atol=1e-6)
    assert np.isclose(second, np.log(0.2), atol=1e-6)
    assert np.isnan(unknown).all()


def test_sampling_is_given_by_name() -> None:
    """The first field is the repetition penalty: a temperature by place became one."""
    values: Any = (0.7,)
    with pytest.raises(TypeError, match="positional"):
        SamplingParams(*values)
