"""The light trunk: a linear Bradley-Terry score of TF-IDF terms, for machines without a GPU.

Four blocks of features: words and word pairs, character n-grams within words, lengths, and words
shared with the prompt. Each block is divided by one number, so that its differences chosen minus
rejected have mean squared length one for characters, `word_scale` squared for words, `dense_scale`
squared for lengths and for overlaps: the ridge prices blocks by that, not by their number of
features. The score is their sum with the coefficients of `palate.rewards.bradley_terry`.

Everything is a fixed function of one prompt and one answer once the terms are known, so a text
scored alone and in a batch gives the same bits.

It reads surface only: it cannot tell a true statement from a false one in the same words, and
answers far from the pairs it was fitted on get scores that mean little.

Deviations from textbook Bradley-Terry with covariates:
1. Vocabulary, document frequencies and block scales are taken from all training answers before the
   folds are cut that choose the ridge; they do not see which answer was preferred.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from safetensors.numpy import load_file, save
from sklearn.feature_extraction.text import TfidfVectorizer

from palate.core.errors import FormatError
from palate.core.files import (
    hash_bytes,
    read_versioned,
    reading,
    require_file,
    write_bytes_atomic,
    write_versioned,
)
from palate.rewards.bradley_terry import SparseRows, block_scale, fit_bradley_terry, select_ridge
from palate.rewards.card import Trunk
from palate.rewards.pairs import PairSet
from palate.rewards.settings import LightSettings
from palate.rewards.texts import WORD, count_sentences, turns_of, words_of

N_LENGTHS = 5
N_OVERLAPS = 4

Analyzer = Literal["word", "char_wb"]


@dataclass(frozen=True, eq=False)
class Terms:
    """A vocabulary of n-grams with their inverse document frequencies."""

    analyzer: Analyzer  # `word` n-grams, or `char_wb`: character n-grams within words
    ngrams: tuple[int, int]  # lengths of the shortest and the longest n-gram
    terms: tuple[str, ...]  # in alphabetical order
    # `[terms]`, `1 + log((1 + texts) / (1 + texts with the term))`
    idf: Float[np.ndarray, " terms"]

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


def length_features(answers: Sequence[str]) -> Float[np.ndarray, "answers lengths"]:
    """`[answers, 5]`: logs of characters, words, sentences, words a sentence; letters a word."""
    return np.array([_lengths(answer) for answer in answers]).reshape(-1, N_LENGTHS)


def overlap_features(
    prompts: Sequence[str], answers: Sequence[str]
) -> Float[np.ndarray, "answers overlaps"]:
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


KIND, VERSION = "palate-light-reward", 1
_VOCABULARY, _ARRAYS = "light.json", "light.safetensors"


@dataclass(frozen=True, eq=False)
class LightModel:
    """A fitted light reward: prompt and answer to log-odds."""

    trunk: ClassVar[Trunk] = "light"
    words: Terms  # vocabulary of words and word pairs
    characters: Terms  # vocabulary of character n-grams
    # `[words + characters + lengths + overlaps]`, per unit of the raw features
    coefficients: Float[np.ndarray, " features"]
    ridge: float  # the price under which they were fitted

    def raw(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Scores in log-odds, `[texts]`; only differences mean something, higher is better."""
        blocks = _blocks(self.words, self.characters, prompts, answers)
        return np.asarray(sp.hstack(blocks, format="csr") @ self.coefficients, dtype=np.float64)

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        vocabulary = json.dumps(self._vocabulary(), sort_keys=True).encode()
        return hash_bytes(vocabulary, self._array_bytes())

    def save(self, folder: Path) -> None:
        """Write `light.json` and `light.safetensors` into the folder."""
        content = self._vocabulary()
        write_versioned(folder / _VOCABULARY, kind=KIND, version=VERSION, content=content)
        write_bytes_atomic(folder / _ARRAYS, self._array_bytes())

    def _vocabulary(self) -> dict[str, object]:
        blocks = {"words": self.words, "characters": self.characters}
        content: dict[str, object] = {
            name: {"analyzer": block.analyzer, "ngrams": block.ngrams, "terms": block.terms}
            for name, block in blocks.items()
        }
        return {**content, "ridge": self.ridge}

    def _array_bytes(self) -> bytes:
        idf = {"word_idf": self.words.idf, "character_idf": self.characters.idf}
        return save({**idf, "coefficients": self.coefficients})


def fit_light(
    pairs: PairSet, *, settings: LightSettings | None = None, seed: int = 0
) -> LightModel:
    """The light reward that explains the choices best.

    Pairs are of two groups or more unless settings give a ridge; only its folds are random.

    Raises:
        InvalidInputError: too few pairs or groups.
        NotConvergedError: a fit does not come to rest.
    """
    options = settings or LightSettings()
    answers = [*pairs.chosen, *pairs.rejected]
    least = options.least_texts
    words = fit_terms(answers, analyzer="word", ngrams=options.word_ngrams, least_texts=least)
    characters = fit_terms(
        answers, analyzer="char_wb", ngrams=options.character_ngrams, least_texts=least
    )
    chosen = _blocks(words, characters, pairs.prompts, pairs.chosen)
    rejected = _blocks(words, characters, pairs.prompts, pairs.rejected)
    differences = [sp.csr_matrix(a - b) for a, b in zip(chosen, rejected, strict=True)]
    scales = _scales(differences, options=options)
    scaled = sp.csr_matrix(sp.hstack(differences, format="csr") @ sp.diags(scales))
    ridge = options.ridge or select_ridge(
        scaled, groups=pairs.groups, grid=options.ridges, seed=seed
    )
    coefficients = fit_bradley_terry(scaled, ridge=ridge) * scales
    return LightModel(words, characters, coefficients, ridge)


def load_light(folder: Path) -> LightModel:
    """The model written by `LightModel.save`; it scores as before, to the bit.

    Raises:
        InvalidInputError: a file is missing.
        FormatError: a file is of another kind or version, or the two do not fit together.
    """
    content = read_versioned(folder / _VOCABULARY, kind=KIND, version=VERSION)
    path = require_file(folder / _ARRAYS, what="file of a light reward")
    with reading(folder / _VOCABULARY):
        arrays = load_file(path)
        words = _terms(content["words"], arrays["word_idf"])
        characters = _terms(content["characters"], arrays["character_idf"])
        model = LightModel(words, characters, arrays["coefficients"], float(content["ridge"]))
    n_features = len(words.terms) + len(characters.terms) + N_LENGTHS + N_OVERLAPS
    if model.coefficients.shape != (n_features,):
        raise FormatError(
            f"The light reward {str(folder)!r} has {model.coefficients.size} coefficients for "
            f"{n_features} features; its files do not belong together."
        )
    return model


def _blocks(
    words: Terms, characters: Terms, prompts: Sequence[str], answers: Sequence[str]
) -> list[SparseRows]:
    return [
        words.features(answers),
        characters.features(answers),
        sp.csr_matrix(length_features(answers)),
        sp.csr_matrix(overlap_features(prompts, answers)),
    ]


def _scales(
    differences: Sequence[SparseRows], *, options: LightSettings
) -> Float[np.ndarray, " features"]:
    """One factor per feature; dense features are first put on a common footing of variance one."""
    words, characters, lengths, overlaps = differences
    factors = [options.word_scale * block_scale(words), block_scale(characters)]
    for block, is_used in ((lengths, True), (overlaps, options.with_overlap)):
        spread = np.sqrt(np.asarray(block.multiply(block).mean(axis=0))).ravel()
        single = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        n_used = max(1, int(np.count_nonzero(single)))
        factors.append(options.dense_scale * single / np.sqrt(n_used) * is_used)
    return np.concatenate(factors)


def _terms(content: dict[str, object], idf: np.ndarray) -> Terms:
    first, last = content["ngrams"]  # type: ignore[misc]
    terms = tuple(content["terms"])  # type: ignore[arg-type]
    if idf.shape != (len(terms),):
        raise FormatError(f"not a light reward, with {idf.size} numbers for {len(terms)} terms.")
    return Terms(content["analyzer"], (first, last), terms, idf)  # type: ignore[arg-type]
