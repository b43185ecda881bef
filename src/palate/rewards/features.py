"""What a text looks like in numbers: terms by TF-IDF, lengths, and words shared with the prompt.

Everything is a fixed function of one prompt and one answer once the terms are known, so a text
scored alone and in a batch gives the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray
from sklearn.feature_extraction.text import TfidfVectorizer

from palate.rewards.texts import WORD, count_sentences, turns_of, words_of

N_LENGTHS = 5
N_OVERLAPS = 4

Analyzer = Literal["word", "char_wb"]
SparseRows = Any  # a scipy CSR matrix [texts or pairs, features]; scipy ships no types


@dataclass(frozen=True, eq=False)
class Terms:
    """A vocabulary of n-grams with their inverse document frequencies."""

    analyzer: Analyzer  # `word` n-grams, or `char_wb`: character n-grams within words
    ngrams: tuple[int, int]  # lengths of the shortest and the longest n-gram
    terms: tuple[str, ...]  # in alphabetical order
    idf: Float[ndarray, " terms"]  # `[terms]`, `1 + log((1 + texts) / (1 + texts with the term))`

    def features(self, answers: Sequence[str]) -> SparseRows:
        """`[answers, terms]`: `(1 + log count) idf`, each row of Euclidean length one (or zero)."""
        if not self.terms:
            return sp.csr_matrix((len(answers), 0))
        return sp.csr_matrix(self._vectorizer.transform(answers))

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer = _vectorizer(self.analyzer, self.ngrams, vocabulary=list(self.terms))
        vectorizer.idf_ = self.idf
        return vectorizer


def fit_terms(
    answers: Sequence[str], *, analyzer: Analyzer, ngrams: tuple[int, int], least_texts: int
) -> Terms:
    """The terms that occur in at least `least_texts` of the answers; there may be none."""
    vectorizer = _vectorizer(analyzer, ngrams, min_df=least_texts)
    try:
        vectorizer.fit(answers)
    except ValueError:  # scikit-learn's word for "no term is left"
        return Terms(analyzer, ngrams, (), np.zeros(0))
    terms = tuple(str(term) for term in vectorizer.get_feature_names_out())
    return Terms(analyzer, ngrams, terms, np.asarray(vectorizer.idf_, dtype=np.float64))


def length_features(answers: Sequence[str]) -> Float[ndarray, "answers lengths"]:
    """`[answers, 5]`: logs of characters, words, sentences, words a sentence; letters a word."""
    return np.array([_lengths(answer) for answer in answers]).reshape(-1, N_LENGTHS)


def overlap_features(
    prompts: Sequence[str], answers: Sequence[str]
) -> Float[ndarray, "answers overlaps"]:
    """`[answers, 4]` shares in [0, 1]: how answer and prompt repeat each other.

    Of the answer's words, those in the last turn and in the whole prompt; of the different words
    of the last turn and of the whole prompt, those in the answer. The last turn is what follows
    the last `Human:` or `Assistant:`; a prompt without speakers is one turn.
    """
    rows = [_overlaps(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return np.array(rows).reshape(-1, N_OVERLAPS)


def _lengths(answer: str) -> list[float]:
    words = WORD.findall(answer)
    n_words, n_sentences = len(words), count_sentences(answer)
    counts = np.log1p([len(answer), n_words, n_sentences, n_words / n_sentences])
    return [*counts.tolist(), sum(map(len, words)) / max(1, n_words)]


def _overlaps(prompt: str, answer: str) -> list[float]:
    words = words_of(answer)
    different = set(words)
    whole, last = set(words_of(prompt)), set(words_of(turns_of(prompt)[-1]["content"]))
    n_words = max(1, len(words))
    return [
        sum(word in last for word in words) / n_words,
        sum(word in whole for word in words) / n_words,
        len(different & last) / max(1, len(last)),
        len(different & whole) / max(1, len(whole)),
    ]


def _vectorizer(analyzer: Analyzer, ngrams: tuple[int, int], **options: Any) -> Any:
    # scikit-learn warns of a pattern it does not use
    options["token_pattern"] = WORD.pattern if analyzer == "word" else None
    return TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, sublinear_tf=True, **options)
