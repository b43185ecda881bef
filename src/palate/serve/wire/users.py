"""`/v1/users`, `/v1/feedback` and `/v1/questions`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import TypedDict

from palate.core.decision import MAX_INSTRUCTION
from palate.serve.wire.chat import Seed, SentMessage
from palate.serve.wire.palate import (
    Instruction,
    LearningState,
    Preference,
    ResponseId,
    UserId,
    WireIn,
    WithoutNul,
)

MAX_EDIT = 20_000  # characters
Key = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$", examples=["answer-17"])]


VERDICTS = {"comparison": "preferred", "rating": "rating", "thumbs": "thumbs", "edit": "text"}


class FeedbackIn(WireIn):
    """A user's verdict on one answer, or on two.

    Attributes:
        response: Identifier of the answer or question.
        kind: A comparison is of the response's two answers, or of its first answer and the first
            one of `against`; all others are of one answer. An edit prefers the user's own text to
            it; a copy or a regeneration is weak evidence; a comment adds to the user's own words.
        preferred: Comparison: 0 for the first, 1 for the second (or `against`), `tie`.
        against: Comparison: identifier of the other response, to the same prompt.
        rating: On the user's own scale; only differences between ratings of one prompt count.
        text: Edit: the answer as the user would have it. Comment: what the user says.
        answer: Index of the answer that other feedback than a comparison is of.
        key: The same key twice is the same feedback. The header `Idempotency-Key` does the same.
    """

    response: ResponseId
    kind: Literal["comparison", "rating", "thumbs", "edit", "copy", "regenerate", "comment"]
    preferred: Annotated[int, Field(ge=0, le=1)] | Literal["tie"] | None = None
    against: ResponseId | None = None
    rating: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] | None = None
    thumbs: Literal["up", "down"] | None = None
    text: Annotated[str, WithoutNul] | None = None
    answer: Annotated[int, Field(ge=0, le=63)] | None = None
    key: Key | None = None

    @model_validator(mode="after")
    def _require_one(self) -> "FeedbackIn":
        own = VERDICTS.get(self.kind, "text" if self.kind == "comment" else None)
        for name in VERDICTS.values():
            if (getattr(self, name) is None) == (name == own):
                needed = f"{own!r} and no other" if own else "no"
                article = "an" if self.kind == "edit" else "a"
                raise ValueError(f"{article} {self.kind} needs {needed} verdict")
        n_most = MAX_INSTRUCTION if self.kind == "comment" else MAX_EDIT
        if self.text is not None and not 0 < len(self.text.strip()) <= n_most:
            raise ValueError(f"the text of the {self.kind} is empty or over {n_most} characters")
        if self.kind == "comparison" and self.answer is not None:
            raise ValueError("a comparison is of two answers; leave 'answer' out")
        if self.kind != "comparison" and self.against is not None:
            raise ValueError(f"a {self.kind} is of one answer; leave 'against' out")
        return self


class Estimate(TypedDict):
    """A believed number: the posterior's mean and 95 % credible interval."""

    name: str
    mean: float
    low: float
    high: float


class SoupOut(TypedDict):
    """The soup that serves a belief."""

    coefficients: dict[str, float]  # by expert, within the trust region
    scale: float  # what the trust region multiplied them by, in [0, 1]
    kl: float  # mean KL per token to the base model, nats
    budget: float  # the largest that is allowed
    gain: Estimate  # predicted gain over the base model per token, reward units


class BeliefOut(TypedDict):
    """What is believed of a user."""

    learning: LearningState  # `applied` when answers use it, `observing` while it is only learned
    n_feedback: int  # items it rests on
    # posterior of the coefficients over experts after all feedback, the user's unknown gain
    # averaged over. The soup serves the most probable coefficients instead
    experts: list[Estimate]
    objectives: list[Estimate]  # the same coefficients, as they add up to each objective
    # the preference that they come to: positive parts, sum one; `None` where no part is positive
    preference: dict[str, float] | None
    soup: SoupOut
    unknown_share: float  # variance of answers' margins, as a share of a new user's
    is_settled: bool  # whether it is so small that more questions would change little


class FeedbackOut(TypedDict):
    """The feedback is on disk; `is_new` is false when its key was there already."""

    is_new: bool
    key: str  # with which it can be withdrawn
    user: str
    belief: BeliefOut


class QuestionIn(WireIn):
    """Which two answers to this prompt are most worth comparing for this user.

    With `words`, it may be about two preferences in words, where naming one of them tells more.
    """

    user: UserId
    words: bool = False
    messages: Annotated[list[SentMessage], Field(min_length=1, max_length=1024)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    seed: Seed | None = None


class AnswerOut(TypedDict):
    """One of two answers; `source` says how it came about, to be shown after the verdict."""

    text: str
    source: str


class QuestionOut(TypedDict):
    """Two answers; the verdict goes to `/v1/feedback` as a comparison of this response."""

    response: str
    user: str
    kind: Literal["answers", "words"]
    answers: list[AnswerOut]  # or two preferences in words
    now: str  # what the user would get now
    information_nats: float  # expected information of the verdict; log 2 = 0.693 at most
    n_candidates: int  # answers that the two were selected from
    seed: int  # with which the same request gives the same question while the belief is the same


class UserIn(WireIn):
    """A new user."""

    user: UserId
    preference: Preference | None = None


class UserChange(WireIn):
    """A new stated preference, or how answers should be in the user's own words; `null` takes back.

    One of the two at least is given.
    """

    preference: Preference | None = None
    instruction: Instruction | None = None

    @field_validator("instruction")
    @classmethod
    def _has_text(cls, value: str | None) -> str | None:
        return (value or "").strip() or None

    @model_validator(mode="after")
    def _changes_something(self) -> "UserChange":
        if not self.model_fields_set:
            raise ValueError("give a preference or an instruction")
        return self


class UserRow(TypedDict):
    """One line of the list."""

    user: str
    created_at: float
    n_feedback: int


class UsersOut(TypedDict):
    """A page of the list; `after` of the next page, or `None` at the end."""

    users: list[UserRow]
    next_after: int | None


class UserOut(TypedDict):
    """One user; the preference is as the user stated it, and used until feedback is applied."""

    user: str
    created_at: float
    preference: dict[str, float] | None
    instruction: str | None
    belief: BeliefOut


Export = dict[str, Any]  # as `palate users export` writes it
