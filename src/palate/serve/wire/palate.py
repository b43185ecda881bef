"""The `palate` object: what is known of a user going in, how the answer came about going out.

What comes in is a pydantic model, which checks it. What goes out is a plain dictionary, typed here
and described by the same types in the OpenAPI schema.
"""

import re
from typing import Annotated, Any, Literal, cast
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic reads this one on Python 3.11, too

from palate.core.decision import MAX_INSTRUCTION
from palate.core.errors import InvalidInputError

LearningState = Literal["nothing", "observing", "applied"]

MAX_COEFFICIENT = 20.0  # far beyond what any expert was trained for; more only breaks numbers
MAX_USER = 200  # characters
# printable for Python, and yet nothing is seen of them: fillers, joiners, variation selectors
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def user_id(text: str) -> str:
    """A user's identifier in Unicode's form NFC; refused where others could not read it."""
    name = normalize("NFC", text)
    is_seen = name.isprintable() and name == name.strip() and not INVISIBLE.search(name)
    if not (is_seen and 0 < len(name) <= MAX_USER):
        raise InvalidInputError(
            f"a user's identifier is 1 to {MAX_USER} printable characters, none of them a control "
            "or invisible character and no space at either end"
        )
    return name


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise InvalidInputError("it holds the character NUL, which no database takes; remove it")
    return text


def without_nulls(value: Any) -> Any:
    """The object without the keys that clients send empty: `null` is the default."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in cast("dict[str, Any]", value).items() if inner is not None}


WithoutNul = AfterValidator(_without_nul)
Instruction = Annotated[str, Field(max_length=MAX_INSTRUCTION), WithoutNul]
Name = Annotated[str, Field(min_length=1, max_length=128)]
UserId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2 * MAX_USER,
        description=f"Printable text, at most {MAX_USER} characters after Unicode NFC.",
        examples=["ana"],
    ),
    AfterValidator(user_id),
]
ResponseId = Annotated[
    str, Field(pattern=r"^[a-z]{1,16}-[0-9a-f]{32}$", examples=[f"chatcmpl-{32 * '0'}"])
]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Coefficient = Annotated[float, Field(ge=-MAX_COEFFICIENT, le=MAX_COEFFICIENT, allow_inf_nan=False)]
Preference = Annotated[
    dict[Name, Share],
    Field(
        min_length=1,
        max_length=64,
        description="Shares by objective; they sum to one. Objectives that are not named get zero.",
    ),
]
Coefficients = Annotated[
    dict[Name, Coefficient],
    Field(min_length=1, max_length=256, description="Coefficients by expert, of any sign."),
]


STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class WireIn(BaseModel):
    """Base of what comes in: unknown keys are errors, so is NaN."""

    model_config = STRICT


class PalateIn(WireIn):
    """What is known of a user, and how to answer.

    Attributes:
        user: The user who is answered; added if there is none of that name. What was learned of
            the user is used where neither preference nor coefficients are given.
        coefficients: They take precedence over a preference.
        instruction: The preference in words; read by the methods that prompt the model.
        method: One of the library's methods (see /v1/library); `auto` takes the one that was
            measured to be worth most to this user, and says why.
        n_candidates: Sample so many answers, 16 at most, and give the one that this user's reward
            prefers; a stream then waits for all of them. By default the method decides.
        max_passes: Passes of the base per sampled token that `auto` may spend.
        strength: Multiplies coefficients that follow from a preference; by default the library's
            own.
        explain: Say of every token which experts wrote it.
    """

    user: UserId | None = None
    preference: Preference | None = None
    coefficients: Coefficients | None = None
    instruction: Instruction | None = None
    method: Name = "auto"
    n_candidates: int | None = None
    max_passes: Annotated[float, Field(allow_inf_nan=False)] | None = None
    strength: Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)] | None = None
    explain: bool = False


class EngineOut(TypedDict):
    """How far an answer of another engine may be from the exact one."""

    name: str
    # by expert, as they were served, where one pass of the model answers; `None` where several are
    # pooled, whose coefficients are never rounded
    coefficients: dict[str, float] | None
    parameter_change: float  # Frobenius norm by which rounding changed the parameters; exact
    # on the total variation of every next token, from rounding; 0 is exact, `None` is not known
    rounding_bound: float | None
    list_bound: float  # the same from lists of probable tokens, the largest of all tokens so far
    is_exact: bool  # whether all tokens so far are exact but for rounding errors of numbers
    n_certified: int  # tokens that the exact engine takes, too, after the same context
    n_calls: int  # requests that this took
    notes: list[str]  # one sentence for each expert that failed and was left out


class UtilityOut(TypedDict):
    """Gain over the base for this preference, reward units, with its 95 % interval."""

    estimate: float
    low: float
    high: float


class PalateOut(TypedDict):
    """How an answer came about."""

    response: str | None  # identifier that feedback refers to; `None` where no user was named
    user: str | None
    method: str  # never `auto`
    members: list[str]  # experts that took part
    coefficients: dict[str, float]  # by expert; shares of a mixture, one for a portfolio's member
    reason: str  # one or two sentences
    # most that this user loses by the portfolio's member, reward units; `None`: not certified
    certified_loss: float | None
    predicted_utility: UtilityOut | None  # measured when the library was built, or `None`
    n_candidates: int  # answers sampled for each answer that is given
    # how far the best candidate led the second, in the units of the reward that ranked them; the
    # smallest of several answers; `None` with one candidate, or while waiting
    lead: float | None
    n_passes: float  # passes of the base per token of an answer, candidates included
    # whether candidates are still sampled, as a stream's first chunk says; text comes once ranked
    is_waiting: bool
    learning: LearningState  # `applied`: the belief was used; `observing`: it is only learned
    n_feedback: int  # items the belief rests on
    seed: int  # with which the same request gives the same answer
    # where another engine than this process wrote the answer: what that approximated; in a stream
    # complete with the last chunks
    engine: EngineOut | None


class TokenOut(TypedDict):
    """One token of an answer, and who wrote it."""

    text: str
    log_prob: float  # under the plan, nats
    # shares that sum to one, over experts and `base`: of a mixture the probability that the expert
    # wrote the token; of a soup the part of the token's probability that the expert's tilt accounts
    # for
    wrote: dict[str, float]


class Explained(TypedDict):
    """Who wrote an answer, token by token; with the last chunk of a stream."""

    tokens: list[TokenOut]


class ErrorBody(TypedDict):
    """The error as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorOut(TypedDict):
    """Every answer of status 400 and above."""

    error: ErrorBody
