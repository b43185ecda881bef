import json
from math import exp, log

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.metrics.diversity import bleu, distinct_n, pairwise_kl, self_bleu, usage_perplexity


def test_distinct_n_by_hand():
    texts = [["the", "cat", "sat"], ["the", "cat", "ran", "off"]]
    assert distinct_n(texts, n=1) == 5 / 7
    assert distinct_n(texts, n=2) == 4 / 5
    assert np.isnan(distinct_n(texts, n=5))
    with pytest.raises(InvalidInputError):
        distinct_n(texts, n=0)


def test_bleu_by_hand():
    # unigrams 3 of 4 (clipped), bigrams 1 of 3, closest reference length 5
    text, reference = ["a", "a", "b", "c"], ["a", "b", "d", "a", "e"]
    score = bleu(text, references=[reference], max_n=2)
    assert score == pytest.approx(exp((log(3 / 4) + log(1 / 3)) / 2 + 1 - 5 / 4))


def test_equal_texts_have_self_bleu_one_and_strangers_nearly_none():
    assert self_bleu([list("abcdef")] * 3) == pytest.approx(1.0)
    # no match at any order counts as half of one, of 5, 4, 3 and 2 n-grams
    expected = exp((log(0.5 / 5) + log(0.5 / 4) + log(0.5 / 3) + log(0.5 / 2)) / 4)
    assert self_bleu([list("abcde"), list("vwxyz")]) == pytest.approx(expected)


def test_self_bleu_falls_as_texts_differ():
    same, near, far = (list("abcdefgh") for _ in range(3))
    near[3] = "x"
    far[1], far[3], far[5] = "x", "y", "z"
    base = list("abcdefgh")
    assert self_bleu([base, same]) > self_bleu([base, near]) > self_bleu([base, far])
    with pytest.raises(InvalidInputError, match="at least two"):
        self_bleu([base])


def test_usage_perplexity_of_the_case_file(shared_folder):
    path = shared_folder / "methods" / "cases" / "palm_grid.json"
    for case in json.loads(path.read_text())["perplexity"]:
        assert usage_perplexity(np.array(case["shares"])) == pytest.approx(
            case["perplexity"], abs=1e-10
        )


def test_usage_perplexity_counts_the_experts_in_use_over_answers():
    assert usage_perplexity(np.eye(3)) == pytest.approx(3.0)
    assert usage_perplexity(np.array([[2.0, 2.0, 0.0]])) == pytest.approx(2.0)
    with pytest.raises(InvalidInputError, match="zero"):
        usage_perplexity(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_pairwise_kl_by_hand():
    probabilities = np.array([[[0.5, 0.5]], [[0.25, 0.75]]])
    forward = 0.5 * log(2) + 0.5 * log(0.5 / 0.75)
    backward = 0.25 * log(0.5) + 0.75 * log(1.5)
    assert pairwise_kl(np.log(probabilities)) == pytest.approx((forward + backward) / 2)


def test_pairwise_kl_knows_forbidden_tokens():
    with np.errstate(divide="ignore"):
        both = np.log(np.array([[[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.0]]]))
        one = np.log(np.array([[[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]]))
    assert pairwise_kl(both) == 0.0
    assert pairwise_kl(one) == np.inf
