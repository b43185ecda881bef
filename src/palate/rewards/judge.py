"""A language model as a judge, behind any OpenAI-compatible endpoint.

One question speaks of one criterion and two answers; the reply is `A`, `B` or `TIE`. Judges like
the answer shown first, so every comparison is asked in both orders, and a verdict that follows the
position counts as a tie (`palate.metrics.win_rates.verdicts_from_both_orders`). The client repeats
requests that time out or meet an overloaded server, with growing pauses, and after no verdict.

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", sections 3.1
and 3.4 (position bias, both orders).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import ProviderError
from palate.engine.openai.connection import Connection
from palate.metrics.win_rates import TIE, verdicts_from_both_orders

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

    def compare(self, questions: Sequence[Question]) -> Float[ndarray, " questions"]:
        """`[questions]`: 1 the first, 0 the second, 0.5 a tie."""
        ...


@dataclass(frozen=True, eq=False)
class BothOrders:
    """Verdicts on every question's first answer, when it was shown first and when second."""

    shown_first: Float[ndarray, " questions"]
    shown_second: Float[ndarray, " questions"]

    @property
    def verdicts(self) -> Float[ndarray, " questions"]:
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

    def compare(self, questions: Sequence[Question]) -> Float[ndarray, " questions"]:
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
