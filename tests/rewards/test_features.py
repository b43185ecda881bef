import numpy as np
import pytest

from palate.rewards.light import fit_terms, length_features, overlap_features


def test_terms_are_weighted_by_hand_computed_tf_idf() -> None:
    # texts: "a b", "a a"; idf(a) = 1 + log(3/3), idf(b) = 1 + log(3/2)
    terms = fit_terms(["a b", "a a"], analyzer="word", ngrams=(1, 1), least_texts=1)
    assert terms.terms == ("a", "b")
    np.testing.assert_allclose(terms.idf, [1.0, 1 + np.log(1.5)])
    rows = terms.features(["a b", "b b b", "c"]).toarray()
    row = np.array([1.0, 1 + np.log(1.5)])
    np.testing.assert_allclose(rows[0], row / np.linalg.norm(row))
    np.testing.assert_allclose(rows[1], [0.0, 1.0])  # length one whatever the count
    np.testing.assert_allclose(rows[2], [0.0, 0.0])  # no known term


def test_terms_in_too_few_texts_are_left_out_and_none_may_remain() -> None:
    assert fit_terms(["a b", "a c"], analyzer="word", ngrams=(1, 1), least_texts=2).terms == ("a",)
    empty = fit_terms(["a", "b"], analyzer="word", ngrams=(1, 1), least_texts=2)
    assert empty.terms == ()
    assert empty.features(["a", "b"]).shape == (2, 0)


def test_lengths_are_counted_by_hand() -> None:
    found = length_features(["One two. Three!"])[0]  # 15 characters, 3 words, 2 sentences
    np.testing.assert_allclose(found, [*np.log1p([15, 3, 2, 1.5]), 11 / 3])


def test_an_empty_answer_has_features() -> None:
    assert np.isfinite(length_features([""])).all()
    assert overlap_features(["p"], [""]).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_overlap_with_the_last_turn_and_the_whole_prompt() -> None:
    prompt = "Human: red green\n\nAssistant: blue\n\nHuman: red white"
    found = overlap_features([prompt], ["Red red black blue"])[0]
    # last turn {red, white}; whole {human, red, green, assistant, blue, white}
    np.testing.assert_allclose(found, [2 / 4, 3 / 4, 1 / 2, 2 / 6])


def test_no_texts_give_no_rows() -> None:
    assert length_features([]).shape == (0, 5)
    assert overlap_features([], []).shape == (0, 4)


@pytest.mark.parametrize("analyzer", ["word", "char_wb"])
def test_a_text_has_the_same_features_alone_and_in_a_batch(analyzer: str) -> None:
    texts = ["the cat sat", "a dog ran off", "the dog sat", "a cat ran"]
    terms = fit_terms(texts, analyzer=analyzer, ngrams=(1, 2), least_texts=1)  # type: ignore[arg-type]
    batch = terms.features(texts).toarray()
    for text, row in zip(texts, batch, strict=True):
        assert (terms.features([text]).toarray()[0] == row).all()
