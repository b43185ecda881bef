"""Grades of a language model behind any OpenAI-compatible endpoint, as a reward function.

One request speaks of one criterion and one answer; the reply is a whole number from 0 to 10.
Grades of one answer are coarser than comparisons (`palate.rewards.judge`), and judges like long and
confident answers: use them where no pairs and no rule say what is meant.

Every reply is written to a JSONL file under the hash of model, criterion, prompt and answer, so no
answer is paid for twice. `max_requests` bounds what one model and criterion may ever be sent with
that file; a batch that does not fit into what is left is refused before any of it is sent.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

from palate.core.errors import InvalidInputError, ProviderError
from palate.core.files import append_jsonl, hash_value, read_jsonl, write_jsonl
from palate.rewards.judge import N_ATTEMPTS, EndpointJudge
from palate.rewards.settings import GradeSettings

KEY_VARIABLE = "PALATE_JUDGE_API_KEY"  # of the environment; sent to the endpoint, stored nowhere
N_PARALLEL = 4  # requests in flight
SYSTEM = (
    "You grade one answer to one question by one criterion and by nothing else. Its length does "
    "not count unless the criterion says so. Reply with one whole number from 0, the answer does "
    "not meet the criterion at all, to 10, it could not meet it better."
)
_REPLY = re.compile(r"\W*(?:grade\W+)?(?<!-)(10|\d)(?:\s*/\s*10)?[\s.*]*", re.IGNORECASE)


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
            reply = self._judge.reply(SYSTEM, text, seed=attempt)
            match = _REPLY.fullmatch(reply)
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
