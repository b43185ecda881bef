"""Feedback files: users' judgments of answers, one JSON object a line.

    {"prompt": "...", "first": "text", "second": "text", "label": 1}      1 first, 0 second, 0.5 tie
    {"prompt": "...", "answer": "text", "thumbs": 1}                      1 up, 0 down
    {"prompt": "...", "answer": "text", "rating": 4}                      any number
    {"id": "r1", "prompt": "...", "answer": "text"}                       an answer to refer to
    {"first_id": "r1", "second_id": "r2", "label": 0}                     refers to two of them

`answer_id` stands for `answer` in the same way. `user` may name the user. Instead of being scored
by the library's experts, an answer may bring its log-ratios (`first_log_ratios`,
`second_log_ratios`, `log_ratios`, numbers by expert), as decoding computes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.files import is_finite_number, numbered_jsonl
from palate.core.types import FeedbackKind


@dataclass(frozen=True)
class Shown:
    """An answer that a user saw, with its log-ratios by expert where the file has them."""

    prompt: str
    text: str
    log_ratios: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Observation:
    """A comparison of two answers, or thumbs or a rating of one."""

    user: str  # the user's name, or empty
    kind: FeedbackKind  # kind of feedback
    first: Shown  # the answer, or the first of two
    second: Shown | None  # the other one of a comparison; differs from the first
    label: float  # comparison and thumbs: in [0, 1]; rating: any number
    line: int  # line in the file, from one


def read_feedback(path: Path) -> list[Observation]:
    """The file's feedback, in order, with contradictions and repetitions.

    Raises:
        InvalidInputError: the file is missing or empty, or a line is no feedback, refers to an
            unknown response, compares an answer with itself, or has a label out of range.
        InvalidCoefficientsError: a log-ratio is not a finite number.
    """
    rows = numbered_jsonl(path, what="feedback file")
    answers = {str(row["id"]): row for row in rows.values() if "id" in row and "answer" in row}
    reader = _Reader(path, answers)
    observations = [
        reader.observation(row, line)
        for line, row in rows.items()
        if not ("id" in row and "answer" in row and not _labels(row))
    ]
    if not observations:
        raise InvalidInputError(
            f"The feedback file {str(path)!r} holds no feedback; give at least one comparison, "
            "rating or thumb."
        )
    return observations


def of_user(
    observations: Sequence[Observation], user: str | None, *, path: Path
) -> list[Observation]:
    """One user's feedback; InvalidInputError where there is none, or several and no name."""
    names = list(dict.fromkeys(item.user for item in observations))
    if user is None and len(names) > 1:
        raise InvalidInputError(
            f"The feedback file {str(path)!r} has {len(names)} users, such as {names[0]!r}; "
            "choose one with --user."
        )
    if user is not None and user not in names:
        raise InvalidInputError(
            f"The feedback file {str(path)!r} has nothing of {user!r}; it has "
            f"{', '.join(repr(name) for name in names[:5])}."
        )
    return [item for item in observations if user in (None, item.user)]


def shown_answers(observations: Sequence[Observation]) -> list[Shown]:
    """The different answers in the feedback, in order."""
    both = (answer for item in observations for answer in (item.first, item.second))
    return list(dict.fromkeys(answer for answer in both if answer is not None))


@dataclass(frozen=True)
class _Reader:
    path: Path
    answers: Mapping[str, dict[str, Any]]

    def observation(self, row: dict[str, Any], line: int) -> Observation:
        user, labels = str(row.get("user", "")), _labels(row)
        if len(labels) != 1:
            raise self._error(line, f"has {labels or 'none'} of label, thumbs and rating; give one")
        name = labels[0]
        label = row[name]
        if not is_finite_number(label) or (name != "rating" and not 0 <= label <= 1):
            allowed = "a finite number" if name == "rating" else "a number in [0, 1]"
            raise self._error(line, f"has the {name} {label!r}; use {allowed}")
        if name != "label":
            kind: FeedbackKind = "rating" if name == "rating" else "thumbs"
            only = self._shown(row, "answer", "log_ratios", line)
            return Observation(user, kind, only, None, float(label), line)
        first = self._shown(row, "first", "first_log_ratios", line)
        second = self._shown(row, "second", "second_log_ratios", line)
        if (first.prompt, first.text) == (second.prompt, second.text):
            raise self._error(line, "compares an answer with itself; remove it")
        if first.prompt != second.prompt:
            raise self._error(line, "compares answers to two prompts; compare answers to one")
        return Observation(user, "comparison", first, second, float(label), line)

    def _shown(self, row: dict[str, Any], name: str, ratios: str, line: int) -> Shown:
        source, text = row, row.get(name)
        if f"{name}_id" in row:
            source = self.answers.get(str(row[f"{name}_id"]), {})
            text = source.get("answer")
            if text is None:
                raise self._error(line, f"names the unknown response {row[f'{name}_id']!r}")
        prompt = source.get("prompt")
        if not isinstance(prompt, str) or not isinstance(text, str):
            raise self._error(line, f"lacks a text 'prompt' or {name!r}; add it")
        brought = row.get(ratios) or {}
        if not isinstance(brought, Mapping):
            raise self._error(line, f"has {ratios} {brought!r}; give numbers by expert")
        for expert, value in brought.items():
            if not is_finite_number(value):
                raise InvalidCoefficientsError(
                    f"Line {line} of the feedback file {str(self.path)!r} has the log-ratio "
                    f"{value!r} of the expert {expert!r}, which is not a finite number."
                )
        return Shown(prompt, text, tuple((str(k), float(v)) for k, v in brought.items()))

    def _error(self, line: int, what: str) -> InvalidInputError:
        return InvalidInputError(f"Line {line} of the feedback file {str(self.path)!r} {what}.")


def _labels(row: Mapping[str, Any]) -> list[str]:
    return [name for name in ("label", "thumbs", "rating") if name in row]
