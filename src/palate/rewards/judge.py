"""A language model as a judge, behind any OpenAI-compatible endpoint.

One question speaks of one criterion and two answers; the reply is `A`, `B` or `TIE`. Judges like
the answer shown first, so every comparison is asked in both orders, and a verdict that follows the
position counts as a tie (`palate.metrics.win_rates.verdicts_from_both_orders`). The client repeats
requests that time out or meet an overloaded server, with growing pauses, and after no verdict.

As a reward function a judge grades: one criterion and one answer, and the reply is a whole number
from 0 to 10. Grades of one answer are coarser than comparisons, and judges like long and confident
answers: use them where no pairs and no rule say what is meant. Every grade is written to a JSONL
file under the hash of model, criterion, prompt and answer, so no answer is paid for twice.
`max_requests` bounds what one model and criterion may ever be sent with that file; a batch that
does not fit into what is left is refused before any of it is sent.

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", sections 3.1
and 3.4 (position bias, both orders).
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError, ProviderError
from palate.core.files import append_jsonl, hash_value, read_jsonl, write_jsonl
from palate.engine.openai.connection import Connection
from palate.metrics.win_rates import TIE, verdicts_from_both_orders
from palate.rewards.settings import GradeSettings

N_ATTEMPTS = 3  # requests for a verdict before a reply that is none is an error
TIMEOUT_SECONDS = 60.0
SYSTEM = (
    "You compare two answers to one question by one criterion and by nothing else. Neither their "
    "order nor their length counts unless the criterion says so. Reply with one word: A if answer "
    "A meets the criterion better, B if answer B does, TIE if they meet it equally well."
)
_REPLY = re.compile(r"\W*(?:ANSWER\s+)?(A|B|TIE)\W*")
_VALUES = {"A": 1.0, "B": 0.0, "TIE": TIE}


@dataclass(frozen=True)
class Question:
    """Two answers to one prompt, shown as A and B, and a sentence on which one is better."""

    prompt: str
    first: str
    second: str
    criterion: str

    def turned(self) -> "Question":
        """The same with the answers in the other order."""
        return Question(self.prompt, self.second, self.first, self.criterion)

    @property
    def text(self) -> str:
        """As the judge reads it."""
        return (
            f"Criterion: {self.criterion}\n\nQuestion:\n{self.prompt}\n\n"
            f"Answer A:\n{self.first}\n\nAnswer B:\n{self.second}\n\nA, B or TIE?"
        )


class ComparingJudge(Protocol):
    """Says which of two answers is better."""

    def compare(self, questions: Sequence[Question]) -> Float[np.ndarray, " questions"]:
        """`[questions]`: 1 the first, 0 the second, 0.5 a tie."""
        ...


@dataclass(frozen=True, eq=False)
class BothOrders:
    """Verdicts on every question's first answer, when it was shown first and when second."""

    shown_first: Float[np.ndarray, " questions"]
    shown_second: Float[np.ndarray, " questions"]

    @property
    def verdicts(self) -> Float[np.ndarray, " questions"]:
        """One verdict each; a tie where the position decided."""
        return verdicts_from_both_orders(self.shown_first, self.shown_second)


def both_orders(judge: ComparingJudge, questions: Sequence[Question]) -> BothOrders:
    """Every question asked in both orders."""
    forward = judge.compare(questions)
    backward = judge.compare([question.turned() for question in questions])
    return BothOrders(np.asarray(forward), 1.0 - np.asarray(backward))


@dataclass(frozen=True, eq=False)
class EndpointJudge:
    """A model on a server as a judge."""

    model: str
    connection: Connection = field(repr=False)

    @classmethod
    def connect(
        cls, *, url: str, model: str, n_retries: int = 4, api_key: str = "none"
    ) -> "EndpointJudge":
        """The judge on the server at `url`, which ends in `/v1`."""
        connection = Connection(
            f"The judge {model!r}",
            url=url,
            api_key=api_key,
            timeout_seconds=TIMEOUT_SECONDS,
            n_retries=n_retries,
        )
        return cls(model, connection)

    def compare(self, questions: Sequence[Question]) -> Float[np.ndarray, " questions"]:
        """`[questions]`: 1 the first, 0 the second, 0.5 a tie.

        Raises:
            ProviderError: the server failed, or gave no verdict in `N_ATTEMPTS` attempts.
        """
        return np.array([self._verdict(question) for question in questions])

    def _verdict(self, question: Question) -> float:
        reply = ""
        for attempt in range(N_ATTEMPTS):
            reply = self.reply(SYSTEM, question.text, seed=attempt)
            match = _REPLY.fullmatch(reply.upper())
            if match:
                return _VALUES[match[1]]
        raise ProviderError(
            f"The judge {self.model!r} gave no verdict in {N_ATTEMPTS} attempts, last "
            f"{reply[:60]!r}; use a model that follows instructions."
        )

    def reply(self, system: str, text: str, *, seed: int) -> str:
        """The reply to a system sentence and a text; ProviderError where the server fails."""
        messages: list[Any] = [
            {"role": "system", "content": system},
            {"role": "user", "content": text},
        ]
        with self.connection.errors():
            answer = self.connection.client.chat.completions.create(
                model=self.model, messages=messages, temperature=0.0, max_tokens=8, seed=seed
            )
        return str(answer.choices[0].message.content or "")


KEY_VARIABLE = "PALATE_JUDGE_API_KEY"  # of the environment; sent to the endpoint, stored nowhere
N_PARALLEL = 4  # requests in flight
GRADE_SYSTEM = (
    "You grade one answer to one question by one criterion and by nothing else. Its length does "
    "not count unless the criterion says so. Reply with one whole number from 0, the answer does "
    "not meet the criterion at all, to 10, it could not meet it better."
)
_GRADE = re.compile(r"\W*(?:grade\W+)?(?<!-)(10|\d)(?:\s*/\s*10)?[\s.*]*", re.IGNORECASE)


@dataclass(eq=False)
class Grader:
    """Prompts and answers to grades from 0 to 10, requested once each."""

    settings: GradeSettings
    _known: dict[str, float] = field(default_factory=dict, init=False)
    _n_requests: int = field(default=0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        """Make the client and read the cache; nothing is sent."""
        settings = self.settings
        api_key = os.environ.get(KEY_VARIABLE, "none")
        self._judge = EndpointJudge.connect(
            url=settings.base_url, model=settings.model, api_key=api_key
        )
        if not settings.cache.exists():
            return
        rows = read_jsonl(settings.cache, what="cache of grades", is_torn_end_dropped=True)
        if not settings.cache.read_bytes().endswith(b"\n"):
            write_jsonl(settings.cache, rows)  # what is appended must begin a line
        if any(row.keys() != {"key", "judge", "grade"} for row in rows):
            raise InvalidInputError(
                f"The file {str(settings.cache)!r} is no cache of grades; give a new file."
            )
        own = [row for row in rows if row["judge"] == self.fingerprint]
        self._n_requests = len(own)
        self._known = {row["key"]: row["grade"] for row in own if row["grade"] is not None}

    @property
    def source(self) -> dict[str, object]:
        """As a run file names it."""
        return {"judge": self.settings.model_dump(mode="json")}

    @property
    def fingerprint(self) -> str:
        """Hash of model, criterion and question."""
        return self.settings.fingerprint

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: object
    ) -> list[float]:
        """The grades, one for each completion.

        Raises:
            InvalidInputError: the answers without a grade are more than the requests left.
            ProviderError: the server fails, or gives no grade in `N_ATTEMPTS` attempts.
        """
        del columns
        pairs = list(zip(prompts, completions, strict=True))
        keys = [hash_value([self.fingerprint, *pair]) for pair in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._known}
        self._require(len(new))
        with ThreadPoolExecutor(N_PARALLEL) as pool:
            list(pool.map(self._grade, new, new.values()))
        return [self._known[key] for key in keys]

    def _grade(self, key: str, pair: tuple[str, str]) -> None:
        prompt, answer = pair
        text = (
            f"Criterion: {self.settings.criterion}\n\nQuestion:\n{prompt}\n\n"
            f"Answer:\n{answer}\n\nGrade from 0 to 10?"
        )
        reply = ""
        for attempt in range(N_ATTEMPTS):
            with self._lock:
                self._require(1)
                self._n_requests += 1
            reply = self._judge.reply(GRADE_SYSTEM, text, seed=attempt)
            match = _GRADE.fullmatch(reply)
            grade = float(match[1]) if match else None
            with self._lock:
                row = {"key": key, "judge": self.fingerprint, "grade": grade}
                append_jsonl(self.settings.cache, [row])
                if grade is not None:
                    self._known[key] = grade
                    return
        raise ProviderError(
            f"The judge {self.settings.model!r} gave no grade in {N_ATTEMPTS} attempts, last "
            f"{reply[:60]!r}; use a model that follows instructions."
        )

    def _require(self, n_requests: int) -> None:
        left = self.settings.max_requests - self._n_requests
        if n_requests > left:
            raise InvalidInputError(
                f"The judge {self.settings.model!r} would be sent {n_requests} requests, but of "
                f"max_requests={self.settings.max_requests} {left} are left; allow more, or score "
                "fewer answers."
            )
