"""Everything that the demo shows: its users, plain data, and one HTML page of it.

The terminal and the JSON file read the same data. The page has no script, font or picture from
elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

from palate.core.templates import render_template
from palate.core.types import Interval
from palate.mixture.explain import Explanation, render_legend, render_tokens

N_USERS = 8


@dataclass(frozen=True)
class DemoUser:
    """A user and what they want."""

    name: str
    preference: Mapping[str, float]  # shares by objective, sum one

    @property
    def wants(self) -> str:
        """The preference in a few words."""
        return ", ".join(f"{name} {share:.0%}" for name, share in self.preference.items())


NAMED = (
    DemoUser("a child", {"elementary": 0.7, "friendly": 0.3}),
    DemoUser("a specialist", {"expert": 0.7, "informative": 0.3}),
    DemoUser("someone in a hurry", {"concise": 1.0}),
    DemoUser("a student who wants everything", {"informative": 0.6, "elementary": 0.4}),
    DemoUser("a colleague in a meeting", {"expert": 0.5, "concise": 0.5}),
    DemoUser("a nervous beginner", {"friendly": 0.5, "elementary": 0.3, "concise": 0.2}),
    DemoUser("a fan of good manners", {"friendly": 0.6, "informative": 0.4}),
    DemoUser("someone tired of flattery", {"unfriendly": 0.6, "concise": 0.4}),
)


def demo_users(objectives: Sequence[str]) -> tuple[DemoUser, ...]:
    """At most eight users who want one to three of these objectives.

    Those of `NAMED` come first, as far as the library has what they want; then users who want one
    objective, two and three in equal shares.
    """
    users = {
        frozenset(user.preference): user for user in NAMED if set(user.preference) <= {*objectives}
    }
    for wanted in chain.from_iterable(combinations(objectives, n) for n in (1, 2, 3)):
        shares = dict.fromkeys(wanted, 1.0 / len(wanted))
        users.setdefault(frozenset(wanted), DemoUser(" and ".join(wanted), shares))
    return tuple(users.values())[:N_USERS]


@dataclass(frozen=True)
class UserAnswer:
    """What one user got."""

    user: DemoUser
    text: str
    method: str  # that `auto` chose
    reason: str
    prompted: str | None  # the base under a system prompt; `None` where objectives have no words


@dataclass(frozen=True)
class Gain:
    """How much more answers of `auto` are worth, in utility."""

    name: str
    over_base: Interval
    over_prompt: Interval | None = None  # over a system prompt that says the same
    predicted: Interval | None = None  # over the base, measured when the library was built


@dataclass(frozen=True)
class Gains:
    """The gains by user and together, judged by rewards that taught nothing."""

    users: tuple[Gain, ...]
    together: Gain
    n_prompts: int  # held out; intervals are over prompts
    self_judged: tuple[str, ...]  # objectives that have only the reward of training, such as rules
    n_calibration: int  # prompts behind `predicted`; 0 without `methods.json`


@dataclass(frozen=True)
class PortfolioStory:
    """The certified portfolio of the library."""

    members: tuple[str, ...]
    certified_loss: float | None  # of any user, reward units; `None` where nothing is known
    sentence: str


@dataclass(frozen=True)
class Wanted:
    """One objective: how much of it the user wants, and what was believed, 95 %."""

    objective: str
    truth: float  # share of the preference
    before: Interval  # before any verdict
    after: Interval


@dataclass(frozen=True)
class LearnedStory:
    """One user, of whom only verdicts are known."""

    user: DemoUser
    n_comparisons: int
    n_agreeing: int  # verdicts for the answer of higher utility; a user errs at times
    wanted: tuple[Wanted, ...]
    before: str  # answer to the shown prompt
    after: str
    method: str  # of the answer after the verdicts
    gain: Interval  # of answers after the verdicts over the base's, held-out prompts


@dataclass(frozen=True)
class TokenStory:
    """One answer, and who wrote which token of it."""

    user: DemoUser
    method: str
    explanation: Explanation


@dataclass(frozen=True)
class RuleStory:
    """A further expert, solved in closed form for a rule."""

    rule: Mapping[str, object]
    before: Interval  # mean reward of the base's answers to held-out prompts
    after: Interval  # the same with the expert
    gain: Interval  # paired difference
    n_rollouts: int  # answers that the expert was solved from
    correlation: float  # of tilt and reward on prompts left out of the solution
    seconds: float  # until the expert was there
    prompt: str  # whose reward grew most
    text_before: str
    text_after: str
    folder: str  # the expert as a PEFT adapter


@dataclass(frozen=True)
class DemoReport:
    """The demo's results; a part is `None` where `left_out` says why."""

    library: str
    base: str
    n_parameters: int
    experts: tuple[str, ...]
    prompt: str
    seed: int
    base_text: str
    users: tuple[UserAnswer, ...]
    gains: Gains | None
    portfolio: PortfolioStory | None
    learned: LearnedStory | None
    tokens: TokenStory | None
    rule: RuleStory | None
    left_out: tuple[str, ...]
    seconds: float


def render_page(report: DemoReport) -> str:
    """The page; texts are escaped."""
    gains, learned, tokens, rule = report.gains, report.learned, report.tokens, report.rule
    rows = [] if gains is None else [*gains.users, gains.together]
    bars = [bar for row in rows for bar in (row.over_base, row.over_prompt, row.predicted)]
    beliefs = [] if learned is None else learned.wanted
    return render_template(
        Path(__file__).parent / "templates/demo.html.jinja",
        {"interval": interval_text},
        report=report,
        place=_percent,
        rows=rows,
        gain_ends=_ends(bars),
        belief_ends=_ends(one for row in beliefs for one in (row.before, row.after)),
        rule_ends=_ends([] if rule is None else (rule.before, rule.after)),
        legend="" if tokens is None else render_legend(tokens.explanation),
        tokens="" if tokens is None else render_tokens(tokens.explanation),
    )


def interval_text(interval: Interval | None) -> str:
    """An interval as `+0.12 [+0.03, +0.21]`; a dash where there is none."""
    if interval is None:
        return "-"
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _ends(intervals: Iterable[Interval | None]) -> tuple[float, float]:
    """What an axis must hold, zero included."""
    known = [one for one in intervals if one is not None]
    low, high = (
        min((one.low for one in known), default=0),
        max((one.high for one in known), default=1),
    )
    return min(low, 0.0), max(high, 0.0, low + 1e-9)


def _percent(value: float, ends: tuple[float, float]) -> str:
    """Where a value stands on an axis, percent from its left end."""
    return f"{100 * (value - ends[0]) / (ends[1] - ends[0]):.1f}%"
