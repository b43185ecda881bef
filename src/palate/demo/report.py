"""Everything that the demo shows: plain data that the terminal, the page and the JSON file read."""

from collections.abc import Mapping
from dataclasses import dataclass

from palate.core.types import Interval
from palate.demo.users import DemoUser
from palate.mixture.explain import Explanation


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
