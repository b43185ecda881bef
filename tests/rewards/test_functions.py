"""Rewards that are functions: their numbers, their scale, their address, and what is refused."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json, write_json
from palate.rewards.functions import (
    FILE,
    address_of,
    fit_function,
    function_values,
    identity_of,
    load_function,
    require_functions,
    stored_function,
)

PROMPTS, ANSWERS = ["p"] * 4, ["a", "bb", "ccc", "dddd"]


def n_characters(prompts, completions, **columns):
    return [len(text) for text in completions]


def only_long(prompts, completions, **columns):
    return [len(text) if len(text) > 1 else None for text in completions]


class Weighted:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, prompts, completions, **columns):
        return [self.weight * len(text) for text in completions]


def fitted(function, **named):
    return fit_function(function, objective="long", prompts=PROMPTS, answers=ANSWERS, **named)


def test_the_scale_is_fitted_on_the_answers_of_the_base() -> None:
    """Lengths 1..4: mean 2.5, variance 1.25; spread = deviation * sqrt(3) / pi."""
    reward = fitted(n_characters)
    spread = math.sqrt(1.25) * math.sqrt(3) / math.pi
    expected = [1 / (1 + math.exp(-(n - 2.5) / spread)) for n in (1, 4, 10)]
    found = reward.score(["p"] * 3, ["a", "dddd", "e" * 10])
    assert np.allclose(found, expected)
    clipped = fitted(n_characters, kind="clip").score(["p"] * 2, ["", "e" * 10])
    assert clipped.tolist() == [0.0, 1.0]


def test_none_counts_as_the_mean_of_the_answers_that_have_a_number() -> None:
    """Lengths 2, 3, 4 have the mean 3, which the logistic scale puts at 1/2."""
    reward = fitted(only_long)
    assert reward.raw(["p"] * 2, ["a", "bb"]).tolist() == [3.0, 2.0]
    assert reward.score(["p"], ["a"]) == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1.0, 2.0], "'long' gave 2 values for 4 completions"),
        ([1.0, 2.0, 3.0, "4"], "'long' gave '4' for completion 3"),
        ([1.0, math.nan, 3.0, 4.0], "'long' gave 'nan' for completion 1"),
        ([1.0, 2.0, math.inf, 4.0], "'long' gave 'inf' for completion 2"),
        ([1.0, 2.0, [3.0, 3.5], 4.0], "for completion 2"),
        (3.0, "'long' gave a float"),
        ("1234", "'long' gave a str"),
        (None, "'long' gave a NoneType"),
        ([1.0] * 4, "the same number 1"),
        ([None] * 4, "None for each of the 4 answers"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused_in_one_sentence(values, sentence) -> None:
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        fitted(lambda prompts, completions: values)
    assert "\n" not in str(caught.value)


def test_numbers_of_any_library_are_numbers() -> None:
    import torch

    given = [np.float32(1.5), torch.tensor(2.0), True, 3]
    values = function_values(lambda prompts, completions: given, PROMPTS, ANSWERS, objective="o")
    assert values.tolist() == [1.5, 2.0, 1.0, 3.0]


def test_a_function_of_a_module_is_found_again_and_one_that_is_not_must_be_given(
    tmp_path: Path,
) -> None:
    import palate.rewards.texts as texts

    def inner(prompts, completions):
        return [len(text) for text in completions]

    assert address_of(texts.count_sentences) == "palate.rewards.texts:count_sentences"
    for function in (inner, lambda prompts, completions: [], Weighted(1.0), partial(inner)):
        assert address_of(function) is None
    fitted(inner).save(tmp_path)
    assert stored_function(tmp_path) is None
    assert stored_function(tmp_path / "nowhere") is None
    with pytest.raises(FormatError, match=r"reward_funcs=\{'long': function\}"):
        load_function(tmp_path, objective="long", given={})
    again = load_function(tmp_path, objective="long", given={"long": inner})
    assert again.score(PROMPTS, ANSWERS).tolist() == fitted(inner).score(PROMPTS, ANSWERS).tolist()
    assert again.fingerprint == fitted(inner).fingerprint


def test_an_imported_function_that_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def measure(prompts, completions, **columns):\n    return [len(c) for c in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_rewards

    reward = fitted(my_rewards.measure)
    reward.save(tmp_path)
    assert read_json(tmp_path / FILE)["function"] == "my_rewards:measure"
    found = load_function(tmp_path, objective="long", given={})
    assert found.score(PROMPTS, ANSWERS).tolist() == reward.score(PROMPTS, ANSWERS).tolist()
    assert stored_function(tmp_path) is my_rewards.measure
    content = read_json(tmp_path / FILE)
    write_json(tmp_path / FILE, {**content, "hash": "other"})
    with pytest.raises(FormatError, match="'my_rewards:measure' of 'long' was changed"):
        load_function(tmp_path, objective="long", given={})
    write_json(tmp_path / FILE, {**content, "function": "my_rewards:gone"})
    with pytest.raises(FormatError, match="'my_rewards:gone', not importable here"):
        load_function(tmp_path, objective="long", given={})
    write_json(tmp_path / FILE, {**content, "scale": {"kind": "odd"}})
    with pytest.raises(FormatError, match="lacks or garbles a field"):
        load_function(tmp_path, objective="long", given={})


def test_the_identity_follows_the_code_and_what_it_is_given() -> None:
    def to(target):
        return lambda prompts, completions: [-abs(len(text) - target) for text in completions]

    assert identity_of(n_characters) == identity_of(n_characters)
    different = [n_characters, only_long, to(3), to(4), Weighted(1.0), Weighted(2.0)]
    different += [partial(n_characters, x=1), partial(n_characters, x=2)]
    assert len({identity_of(function) for function in different}) == len(different)
    assert identity_of(to(3)) == identity_of(to(3))
    assert identity_of(Weighted(1.0)) == identity_of(Weighted(1.0))
    assert len(identity_of(len)) == len(identity_of(n_characters))


def test_a_function_for_an_unknown_objective_is_refused() -> None:
    require_functions({"long": n_characters}, objectives=["long"])
    with pytest.raises(InvalidInputError, match="unknown objective 'brief'; known are long"):
        require_functions({"brief": n_characters}, objectives=["long"])
    with pytest.raises(InvalidInputError, match="'long' is a int"):
        require_functions({"long": 3}, objectives=["long"])  # type: ignore[dict-item]
