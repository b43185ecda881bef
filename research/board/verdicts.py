"""A language model as a further judge, for those who have one behind an endpoint.

It reads the user's short instruction as the criterion and compares each answer to a single prompt
with the base's, in both orders; a verdict that follows the order is a tie. Verdicts are appended to
a file and requested once; a bound holds for all requests that are ever sent with that file. Answers
are asked about in an order that visits every method before any method twice, so that a small budget
is spread evenly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import append_jsonl, hash_value, read_jsonl
from palate.core.progress import progress_of
from palate.metrics.win_rates import win_rates
from palate.rewards.judge import ComparingJudge, EndpointJudge, Question, both_orders
from research.board.rows import Row
from research.board.tables import clusters_of
from research.board.users import BoardUser
from research.board.work import Board

VERDICTS = "verdicts.jsonl"
N_ORDERS = 2  # requests of a verdict
CRITERION = "It is the answer that a user who asked for this would like better: {}"


@dataclass(eq=False)
class LanguageJudge:
    """The judge with its budget and what it has answered."""

    judge: ComparingJudge
    model: str
    max_requests: int
    path: Path
    known: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        """Read the verdicts that are there."""
        rows = read_jsonl(self.path, what="verdicts") if self.path.is_file() else []
        self.known = {str(row["key"]): float(row["verdict"]) for row in rows}

    @classmethod
    def connect(cls, url: str, model: str, max_requests: int, out: Path) -> "LanguageJudge":
        """The judge at an address that ends in `/v1`; InvalidInputError without a model's name."""
        if not model:
            raise InvalidInputError(
                "The judge at --judge-url has no name; give --judge-model as the endpoint calls it."
            )
        return cls(EndpointJudge.connect(url=url, model=model), model, max_requests, out / VERDICTS)

    def verdict(self, question: Question) -> float | None:
        """1 where the first answer is better, 0 the second, 0.5 a tie; `None` beyond the budget."""
        key = hash_value([self.model, vars(question)])[:24]
        if key not in self.known:
            if N_ORDERS * (len(self.known) + 1) > self.max_requests:
                return None
            value = float(both_orders(self.judge, [question]).verdicts[0])
            append_jsonl(self.path, [{"key": key, "verdict": value, "judge": self.model}])
            self.known[key] = value
        return self.known[key]


def judged_pairs(
    rows: Sequence[Row], users: Sequence[BoardUser], texts: dict[str, str]
) -> Iterator[tuple[Row, Question]]:
    """Every answer to a single prompt beside the base's; each method once before any twice."""
    words = {user.name: user.wordings["instruction"] for user in users}
    alone = [row for row in rows if row.turns == 0 and row.library == 0 and row.user in words]
    base = {row.key[2:]: row.text for row in alone if row.method == "base"}
    cells = sorted({row.key[2:] for row in alone}, key=lambda key: hash_value(list(key)))
    by_key = {row.key: row for row in alone}
    methods = list(dict.fromkeys(row.method for row in alone if row.method != "base"))
    for cell in cells:
        for method in methods:
            row = by_key.get((method, 0, *cell))
            if row is not None and cell in base and row.prompt in texts:
                criterion = CRITERION.format(words[row.user])
                yield row, Question(texts[row.prompt], row.text, base[cell], criterion)


def judge_rows(board: Board, judge: LanguageJudge) -> dict[str, Any]:
    """By method, win rates against the base as far as the budget goes.

    Raises:
        ProviderError: the endpoint failed.
    """
    parts = board.parts(0)
    texts = {prompt.key: prompt.text for prompt in parts.prompts[0]}
    pairs = list(judged_pairs(board.rows, parts.users, texts))
    results: dict[str, list[tuple[Row, float]]] = {}
    with progress_of("language judge, answers") as report:
        for done, (row, question) in enumerate(pairs, start=1):
            verdict = judge.verdict(question)
            if verdict is None:
                break
            results.setdefault(row.method, []).append((row, verdict))
            report(done, len(pairs))
    rates: dict[str, Any] = {}
    for method, own in results.items():
        cells = [(row.user, row.prompt, row.turns, row.seed, row.library) for row, _ in own]
        clusters = clusters_of(cells)
        if clusters:
            rates[method] = win_rates([value for _, value in own], **clusters).to_json()
    return rates
