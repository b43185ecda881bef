"""Whole sentences of an English answer: what a rule may count without being gamed by broken text.

A sentence is whole when it

1. begins with a letter, digit or opening quote and ends with `.`, `!` or `?`;
2. has 3 to 60 words, six in seven of which look like words: up to 20 letters with a vowel, none
   thrice in a row, or a number; single letters are capitals or a, i, o;
3. has no full stop inside: neither in a word ("i.re.st") nor after one, numbers, initials and
   a few abbreviations apart;
4. has one function word for every eight words, so a list of nouns is none;
5. is new: at most a quarter of its runs of four words (itself, if it is shorter) were said before.

It is about form: a whole sentence may be false, off the topic or nonsense. Good sentences that
these rules do not know (an address of a web page, a formula, a list item without a full stop) are
left out, so use the share of whole sentences, never their absence, to compare answers.
"""

import re
from collections.abc import Iterator

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from palate.rewards.texts import words_of

FEWEST_WORDS, MOST_WORDS = 3, 60
LONGEST_WORD = 20  # letters; in English one word in a million is longer
WORD_SHARE = 0.85  # of the tokens that must look like words
WORDS_PER_FUNCTION_WORD = 8
STEM = 5  # letters by which two words count as the same
RUN = 4  # words that are not repeated
SAID_SHARE = 0.25  # of a sentence's runs that may have been said before
ABBREVIATIONS = {
    *("a.m.", "p.m.", "e.g.", "i.e.", "etc.", "vs.", "mr.", "mrs.", "ms.", "dr.", "prof.", "st."),
    "ph.d.",
}
_INITIALS = re.compile(r"[A-HJ-Z]\.(?:[A-Z]\.){0,2}")  # also "U.S."
_PLAIN = str.maketrans(  # typographic quotes, dashes and dots
    {
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u201c\u201d\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2013\u2014", "-"),
        "\u2026": "...",
    }
)
_END = (".", "!", "?")
_OPENING, _CLOSING = "\"'([{*_", "\"')]}*_"
_EDGES = _OPENING + _CLOSING + ",;:-"
_MARKER = re.compile(r"^\s*(?:[-*•>#]+|\d{1,2}[.)])\s+")  # of a list item or heading
_LETTERS = re.compile(r"[^\W\d_]+(?:['/-][^\W\d_]+)*")
_NUMBER = re.compile(r"[$€£#]?\d[\d.,:/-]*[a-zA-Z%°]{0,4}")
_THRICE = re.compile(r"(.)\1\1")
_VOWEL = re.compile(r"[aeiouyà-ÿ]")


def split_sentences(text: str) -> list[str]:
    """The text in sentences, whole or not, without the markers of lists and headings."""
    sentences: list[str] = []
    for line in text.translate(_PLAIN).splitlines():
        tokens: list[str] = []
        for token in _MARKER.sub("", line).split():
            tokens.append(token)
            bare = token.strip(_EDGES)
            if bare.endswith(_END) and not _is_abbreviation(bare):
                sentences.append(" ".join(tokens))
                tokens = []
        if tokens:
            sentences.append(" ".join(tokens))
    return sentences


def whole_sentences(text: str) -> list[str]:
    """The sentences that are whole, in order."""
    return [sentence for sentence, is_new in _with_news(text) if is_new and _is_whole(sentence)]


def whole_share(text: str) -> float:
    """Share of the text's words in whole sentences, in [0, 1]; 0 of an empty text."""
    n_words = sum(len(words_of(sentence)) for sentence in split_sentences(text))
    n_whole = sum(len(words_of(sentence)) for sentence in whole_sentences(text))
    return n_whole / n_words if n_words else 0.0


def unbroken_share(text: str) -> float:
    """As `whole_share`, but a last sentence without an end, which may have been cut, is left out.

    It is 0 of a text that is one such sentence.
    """
    sentences = split_sentences(text)
    is_cut = bool(sentences) and not sentences[-1].rstrip(_CLOSING).endswith(_END)
    n_words = sum(len(words_of(sentence)) for sentence in sentences[: len(sentences) - is_cut])
    n_whole = sum(len(words_of(sentence)) for sentence in whole_sentences(text))
    return n_whole / n_words if n_words else 0.0


def is_on_topic(prompt: str, answer: str) -> bool:
    """Whether the answer has a content word of the prompt, by five letters; or there is none."""
    topic, words = ({word[:STEM] for word in content_words(text)} for text in (prompt, answer))
    return not topic or not topic.isdisjoint(words)


def content_words(text: str) -> set[str]:
    """Different words of more than three letters that are no function words, in lower case."""
    return {
        word
        for word in words_of(text)
        if len(word) > 3 and word.isalpha() and word not in ENGLISH_STOP_WORDS
    }


def _with_news(text: str) -> Iterator[tuple[str, bool]]:
    """Each sentence, and whether few runs of its words were said before."""
    earlier: set[tuple[str, ...]] = set()
    for sentence in split_sentences(text):
        words = words_of(sentence)
        length = min(RUN, len(words))
        runs = [tuple(words[k : k + length]) for k in range(len(words) - length + 1)]
        n_said = len(runs) - len(set(runs) - earlier)
        yield sentence, n_said <= SAID_SHARE * len(runs)
        earlier.update(runs)


def _is_whole(sentence: str) -> bool:
    tokens = (token.strip(_EDGES + "".join(_END)) for token in sentence.split())
    words = [token for token in tokens if token]
    n_function = sum(word.lower() in ENGLISH_STOP_WORDS for word in words)
    return (
        sentence.lstrip(_OPENING)[:1].isalnum()
        and sentence.rstrip(_CLOSING).endswith(_END)
        and FEWEST_WORDS <= len(words) <= MOST_WORDS
        and not any(_has_stop(word) for word in words)
        and sum(map(_looks_like_word, words)) >= WORD_SHARE * len(words)
        and n_function >= len(words) // WORDS_PER_FUNCTION_WORD
    )


def _has_stop(word: str) -> bool:
    is_known = _is_abbreviation(f"{word}.") or _NUMBER.fullmatch(word) is not None
    return any(end in word for end in _END) and not is_known


def _is_abbreviation(token: str) -> bool:
    return token.lower() in ABBREVIATIONS or _INITIALS.fullmatch(token) is not None


def _looks_like_word(word: str) -> bool:
    if len(word) == 1:
        return word.isupper() or word in "aio" or word.isdigit()
    if _NUMBER.fullmatch(word):
        return True
    is_short = len(word) <= (6 if word.isupper() else 3)  # acronyms, "by", "Dr"
    lower = word.lower()
    return (
        _LETTERS.fullmatch(word) is not None
        and max(map(len, re.split(r"['/-]", word))) <= LONGEST_WORD
        and _THRICE.search(lower) is None
        and (is_short or _VOWEL.search(lower) is not None)
    )
