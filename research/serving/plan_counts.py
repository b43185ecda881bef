"""What a thousand to a billion users need, and what breaks first.

Three kinds of numbers, told apart in the output: what was measured (with its command and report),
data sheets of devices, and assumptions that the settings state. Everything else is counting:

    at the peak   answers = users * answers_per_day / 86,400 * busy_share
    devices       answers / what one does, by roofline (`research.serving.model_sizes`)
    database      users, answers of `keep_days`, all feedback of `years`, by bytes of a row
    library       rollouts; one answer of every policy to every prompt, for the payoff table that a
                  portfolio is chosen from; and `4 P` operations a token of every pair, forward
                  through P parameters and back through the frozen base

It says nothing of latency under uneven load, of networks between machines, or of prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from palate.core.errors import InvalidInputError
from palate.core.settings import Settings
from research.serving.model_sizes import (
    SECONDS_A_DAY,
    Capacity,
    Load,
    Placement,
    capacity_of,
    device_of,
    shape_of,
    training_bytes,
)

HOUR = 3_600
DAYS_A_YEAR = 365
USERS = tuple(10**power for power in range(3, 10))
NUMBER_BYTES = 8  # of a coefficient as it is kept


@dataclass(frozen=True)
class Source:
    """Where a measured constant comes from.

    Attributes:
        command: That measures it.
        report: With the figure.
        figure: As the report prints it.
    """

    command: str
    report: str
    figure: str


class MeasuredSettings(Settings):
    """Constants measured on one processor core; every one can be replaced by one's own.

    Attributes:
        feedback_per_second: Items that one connection to PostgreSQL keeps and learns from, one by
            one.
        batched_feedback_per_second: The same, 100 in a transaction.
        requests_per_second: That one server process answers when the model has next to nothing to
            do: HTTP, checks, batching.
        refit_seconds: For a million users with 20 items each, on one core.
        bytes_per_user: On disk, with belief and indices.
        bytes_per_answer: On disk, of 1,024 tokens read and 256 written, with ids and indices.
        bytes_per_feedback: On disk, with indices.
    """

    feedback_per_second: float = Field(default=417, gt=0)
    batched_feedback_per_second: float = Field(default=1252, gt=0)
    requests_per_second: float = Field(default=551, gt=0)
    refit_seconds: float = Field(default=9.0, gt=0)
    bytes_per_user: float = Field(default=1057, gt=0)
    bytes_per_answer: float = Field(default=7994, gt=0)
    bytes_per_feedback: float = Field(default=333, gt=0)


_DRILL, _ROWS = (
    "python -m research.preferences.store_faults",
    "python -m research.serving.row_bytes",
)
SOURCES = {
    "feedback_per_second": Source(_DRILL, "reports/preferences.md", "417 (0.36)"),
    "batched_feedback_per_second": Source(_DRILL, "reports/preferences.md", "1,252 (3.0 times)"),
    "requests_per_second": Source(
        "python -m benchmarks.serve", "reports/serving.md", "551 a second"
    ),
    "refit_seconds": Source(
        "python -m benchmarks.belief", "reports/preferences.md", "refitted in 9.0 seconds"
    ),
    "bytes_per_user": Source(_ROWS, "reports/scale.md", "1,057 bytes"),
    "bytes_per_answer": Source(_ROWS, "reports/scale.md", "7,994 bytes"),
    "bytes_per_feedback": Source(_ROWS, "reports/scale.md", "333 bytes"),
}


class PlanSettings(Settings):
    """Who is served with what; rates are assumptions until one's own are put in.

    Attributes:
        users: How many, in rows of the table.
        model: Of the base, by name.
        device: By name.
        bytes_per_number: Of parameters and caches; 2 is bfloat16.
        n_experts: In the library.
        rank: Of each.
        placement: Of each.
        rows_per_answer: 1 for a member or a parameter soup; a mixture has one for each expert.
        prompt_tokens: Of a prompt with its conversation.
        answer_tokens: Of an answer.
        answers_per_day: Of a user.
        feedback_per_day: Items of a user.
        busy_share: Peak over mean.
        max_together: Most answers of a device at once.
        efficiency: Share of the data sheet's rates that is reached.
        keep_days: That answers shown are kept for feedback.
        years: That feedback is kept.
        writers: Connections that keep feedback at once; that their rates add up was not measured.
        disk_bytes: Of a database server.
        refit_hours: In which everybody is to be refitted on one core.
        n_prompts: Sampled for the library's rollouts.
        n_completions: Of each.
        rollout_tokens: Of each.
        n_steps: Training steps of an expert.
        batch_pairs: Pairs of a step.
        accumulate: Passes of a step.
        measured: Constants.
    """

    users: tuple[int, ...] = USERS
    model: str = "llama-3.1-8b"
    device: str = "h200"
    bytes_per_number: int = Field(default=2, ge=1, le=8)
    n_experts: int = Field(default=8, ge=1)
    rank: int = Field(default=16, ge=1)
    placement: Placement = "all"
    rows_per_answer: int = Field(default=1, ge=1)
    prompt_tokens: int = Field(default=1024, ge=1)
    answer_tokens: int = Field(default=256, ge=1)
    answers_per_day: float = Field(default=5.0, gt=0)
    feedback_per_day: float = Field(default=0.5, gt=0)
    busy_share: float = Field(default=3.0, ge=1)
    max_together: int = Field(default=256, ge=1)
    efficiency: float = Field(default=0.5, gt=0, le=1)
    keep_days: float = Field(default=30.0, gt=0)
    years: float = Field(default=1.0, gt=0)
    writers: int = Field(default=1, ge=1)
    disk_bytes: float = Field(default=8e12, gt=0)
    refit_hours: float = Field(default=1.0, gt=0)
    n_prompts: int = Field(default=2000, ge=1)
    n_completions: int = Field(default=4, ge=1)
    rollout_tokens: int = Field(default=200, ge=1)
    n_steps: int = Field(default=300, ge=1)
    batch_pairs: int = Field(default=32, ge=1)
    accumulate: int = Field(default=16, ge=1)
    measured: MeasuredSettings = MeasuredSettings()

    def load(self) -> Load:
        """How answers are made."""
        return Load(
            shape=shape_of(self.model),
            bytes_per_number=self.bytes_per_number,
            n_experts=self.n_experts,
            rank=self.rank,
            placement=self.placement,
            rows=self.rows_per_answer,
            has_shared_cache=self.placement == "head",
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
        )


@dataclass(frozen=True)
class Limit:
    """Something of which one is not enough from some number of users on.

    Attributes:
        name: What of.
        needed: Units at the peak; above one it breaks.
        remedy: What to do then.
    """

    name: str
    needed: float
    remedy: str


REMEDIES = {
    "one device": "more replicas: palate serve --replicas, or vLLM on several GPUs",
    "one server process": "more replicas, also in front of a vLLM: palate serve --replicas; "
    "their state is shared",
    "writers of feedback": "keep 100 items in a transaction (3 times the rate), more connections, "
    "then users spread over several databases by identifier",
    "one database's disk": "shorter keep_days: answers shown are nearly all of it; then several "
    "databases",
    "the nightly refit": "several cores: users are independent; or refit a sample, which is all "
    "that a population prior needs",
}


def plan(settings: PlanSettings) -> dict[str, Any]:
    """The table, the library's cost, and every constant with its source, as plain data.

    Raises:
        InvalidInputError: a name is not listed, nobody is served, or the model does not fit.
    """
    if not settings.users or min(settings.users) < 1:
        raise InvalidInputError("The plan needs at least one number of users, each above zero.")
    load = settings.load()
    one = capacity_of(
        load,
        device_of(settings.device),
        efficiency=settings.efficiency,
        max_together=settings.max_together,
    )
    rows = [_row(n, settings, load, one) for n in settings.users]
    measured = settings.measured.model_dump()
    return {
        "settings": settings.model_dump(exclude={"measured"}),
        "estimates": "roofline of a data sheet times the efficiency assumed, not measured",
        "model": {
            "parameters": load.shape.n_parameters,
            "bytes": load.model_bytes,
            "cache_bytes_per_token": load.shape.cache_numbers() * load.bytes_per_number,
            "bytes_of_an_expert": load.bank_bytes // load.n_experts,
            "bytes_of_all_experts": load.bank_bytes,
        },
        "one_device": {
            "answers_together": one.answers_together,
            "tokens_per_second": one.answers_per_second * settings.answer_tokens,
            "seconds_of_a_step": one.step_seconds,
            "cache_bytes_of_an_answer": load.cache_bytes,
        },
        "library": library_cost(settings),
        "rows": rows,
        "breaks": _breaks(rows),
        "constants": {
            name: {"value": value, **vars(SOURCES[name])} for name, value in measured.items()
        },
    }


def library_cost(settings: PlanSettings) -> dict[str, float]:
    """Device hours and memory of making a library, however many users are served from it."""
    load, device = settings.load(), device_of(settings.device)
    rate = settings.efficiency * device.flops
    rollouts = replace(load, rows=1, has_shared_cache=False, answer_tokens=settings.rollout_tokens)
    one = capacity_of(
        rollouts, device, efficiency=settings.efficiency, max_together=settings.max_together
    )
    n_rollouts = settings.n_prompts * settings.n_completions
    sampling = n_rollouts / one.answers_per_second
    payoffs = (settings.n_experts + 1) * settings.n_prompts / one.answers_per_second
    tokens = settings.prompt_tokens + settings.rollout_tokens
    read = 2 * settings.batch_pairs * settings.n_steps * tokens
    expert = 4 * load.shape.n_computed * read / rate
    sequences = 2 * max(1, settings.batch_pairs // settings.accumulate)
    parts = training_bytes(
        load.shape,
        adapter_parameters=load.bank_bytes // load.n_experts // load.bytes_per_number,
        tokens=sequences * tokens,
        completion_tokens=sequences * settings.rollout_tokens,
        bytes_per_number=load.bytes_per_number,
    )
    return {
        "rollout_hours": sampling / HOUR,
        "expert_hours": expert / HOUR,
        "payoff_hours": payoffs / HOUR,
        "library_hours": (sampling + settings.n_experts * expert + payoffs) / HOUR,
        "training_tokens_of_an_expert": float(read),
        "training_bytes": float(sum(parts.values())),
    }


def _row(n: int, s: PlanSettings, load: Load, one: Capacity) -> dict[str, Any]:
    answers = n * s.answers_per_day / SECONDS_A_DAY * s.busy_share
    feedback = n * s.feedback_per_day / SECONDS_A_DAY * s.busy_share
    at_once = answers * one.answers_together / one.answers_per_second
    kept = s.measured
    n_feedback = n * s.feedback_per_day * DAYS_A_YEAR * s.years
    n_answers = n * s.answers_per_day * s.keep_days
    disk = n * kept.bytes_per_user
    disk += n_answers * kept.bytes_per_answer + n_feedback * kept.bytes_per_feedback
    refit = n / 1e6 * kept.refit_seconds
    needs = {
        "one device": answers / one.answers_per_second,
        "one server process": (answers + feedback) / kept.requests_per_second,
        "writers of feedback": feedback / (s.writers * kept.feedback_per_second),
        "one database's disk": disk / s.disk_bytes,
        "the nightly refit": refit / (s.refit_hours * HOUR),
    }
    first = max(needs, key=lambda name: needs[name])
    return {
        "users": n,
        "answers_per_second": answers,
        "tokens_per_second": answers * s.answer_tokens,
        "answers_at_once": at_once,
        "cache_bytes": at_once * load.cache_bytes,
        "devices": _units(needs["one device"]),
        "adapter_bytes": load.bank_bytes,
        "coefficient_bytes": n * s.n_experts * NUMBER_BYTES,
        "bytes_of_an_expert_each": n * (load.bank_bytes // s.n_experts),
        "hours_of_an_expert_each": n * library_cost(s)["expert_hours"],
        "feedback_per_second": feedback,
        "feedback_rows": n_feedback,
        "database_bytes": disk,
        "refit_seconds": refit,
        "needs": needs,
        "tightest": first,
    }


def _breaks(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The users from which on one of each is not enough, fewest first.

    Every need grows with the users, so one row tells the number.
    """
    row = rows[-1]
    found = [
        {"what": name, "users": row["users"] / need, "remedy": REMEDIES[name]}
        for name, need in row["needs"].items()
    ]
    return sorted(found, key=lambda one: one["users"])


def _units(needed: float) -> int:
    return max(1, -int(-needed // 1))
