"""What a user's own words say of the objectives: a belief, which feedback then corrects.

Sentence embeddings compare every clause of a text with an objective's two poles: its name,
description, instruction and phrases, and those of its opposite. A clause is as near to a pole as
to the `NEAREST` of the pole's sentences on average; it speaks of one pole at most, of all poles or
of none by a softmax. A clause with a negation ("no jargon") counts the other way round. A text asks
for an objective if a clause does; clauses against each other share the chance. What results is a
normal distribution in units of the prior, mean zero and deviation one where nothing is said.

Two numbers are fitted to 40 sentences by `libraries/fit_words.py`; 60 others measure the reading.

Limits:
    1. An objective without an `opposite` stays at the prior: similarity to one pole alone hardly
       tells a preference from its absence.
    2. Similarities know words, not constraints: "metric units" is about nothing here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from palate.core.decision import MAX_INSTRUCTION, Known
from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Objective
from palate.preferences.belief import Learner
from palate.rewards.embedding import load_embedder
from palate.rewards.settings import EMBEDDER

if TYPE_CHECKING:
    from palate.library.library import Library

NEAREST = 5  # sentences of a pole that a clause is compared with, the most similar ones
SILENT, WIDTH = 0.25, 0.035  # similarity from which a clause speaks of a pole; of the softmax
CERTAIN_SD = 0.5  # how far a user's coefficient is from one prior deviation where it is asked for
MAX_LENGTH = 128  # tokens that are embedded
MAX_TEXTS = 10_000  # whose readings stay in memory
_CLAUSE = re.compile(r"[.;:!?,\n]|\band\b|\bbut\b")
_NEGATION = re.compile(
    r"\b(not|no|nor|never|nothing|without|avoid|stop|skip|drop|spare|hates?|dislikes?|tired of"
    r"|cannot|(do|ca|wo|does|is)n['\u2019]?t)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Leaning:
    """What a text says of one objective or expert, in units of the prior's deviation."""

    mean: float  # above zero: wanted; below: its opposite
    sd: float  # 1 where the text says nothing
    clause: str = ""  # the one that says most; empty where none does


@dataclass(frozen=True, eq=False)
class Reading:
    """What a text says of every objective and, by the experts' anchors, of every expert."""

    objectives: dict[str, Leaning]
    experts: dict[str, Leaning]

    @property
    def is_empty(self) -> bool:
        """Whether the text more probably than not asks for nothing that the library knows."""
        return not any(leaning.clause for leaning in self.objectives.values())

    def belief(self, prior: Belief) -> Belief:
        """The belief over the experts' coefficients, from the one without words.

        The words count as one item of feedback, so that methods see that something is known.
        """
        deviations = np.sqrt(np.diag(prior.covariance))
        mean = np.array([leaning.mean for leaning in self.experts.values()])
        sds = np.array([leaning.sd for leaning in self.experts.values()])
        covariance = prior.covariance * np.outer(sds, sds)
        return Belief(prior.mean + deviations * mean, covariance, 1, prior.gain)

    def to_json(self) -> dict[str, Any]:
        """The reading as plain data."""
        experts = {name: {"mean": w.mean, "sd": w.sd} for name, w in self.experts.items()}
        return {
            "objectives": {name: vars(leaning).copy() for name, leaning in self.objectives.items()},
            "experts": experts,
            "is_empty": self.is_empty,
        }


def read_words(library: "Library", text: str) -> Reading:
    """What a text in the user's own words asks for.

    Raises:
        InvalidInputError: the text is empty or longer than 2,000 characters, no objective has an
            opposite, or the sentence embedder is not installed.
    """
    require_words(text)
    objectives = library.manifest.objectives
    chances, clauses = case_chances(text, objectives)
    means, sds = _moments(chances)
    anchors = library.anchors  # [experts, objectives]
    spread = np.linalg.pinv(anchors.T)  # the smallest coefficients for a preference
    mean = spread @ means
    rest = np.eye(len(anchors)) - spread @ anchors.T  # what no objective speaks of
    variance = np.diag(spread @ np.diag(sds**2) @ spread.T + rest @ rest.T)
    return Reading(
        {
            o.name: Leaning(float(m), float(s), clause if case[1] < 0.5 else "")
            for o, m, s, clause, case in zip(objectives, means, sds, clauses, chances, strict=True)
        },
        {
            name: Leaning(float(m), float(v**0.5))
            for name, m, v in zip(library.manifest.expert_names, mean, variance, strict=True)
        },
    )


def with_words(library: "Library", known: Known) -> Known:
    """The same with the belief that the user's own words come to, where nothing else is known."""
    others = (known.preference, known.coefficients, known.belief)
    is_alone = all(value is None for value in others) and bool(library.manifest.experts)
    reading = _asking(library, known.instruction) if known.instruction and is_alone else None
    belief = known.belief if reading is None else reading.belief(library.soups.prior())
    return replace(known, belief=belief)


def words_learner(library: "Library", learner: Learner) -> Callable[[str], Learner | None]:
    """For a user's words, the learner whose prior has taken them in.

    `None` where they ask for nothing, or the library cannot read words.
    """

    @lru_cache(maxsize=MAX_TEXTS)
    def read(text: str) -> Learner | None:
        reading = _asking(library, text)
        return None if reading is None else replace(learner, prior=reading.belief(learner.prior))

    return read


def _asking(library: "Library", text: str) -> Reading | None:
    """The reading of words that ask for something; `None` too where they cannot be read."""
    try:
        reading = read_words(library, text)
    except InvalidInputError:
        return None
    return None if reading.is_empty else reading


def require_words(text: str) -> None:
    """Return when the text can be read; InvalidInputError where it is empty or too long."""
    if not text.strip():
        raise InvalidInputError("The text is empty; say in a sentence how answers should be.")
    if len(text) > MAX_INSTRUCTION:
        raise InvalidInputError(
            f"The text has {len(text):,} characters; give at most {MAX_INSTRUCTION:,}."
        )


def case_chances(
    text: str, objectives: tuple[Objective, ...], *, least: float = SILENT, width: float = WIDTH
) -> tuple[Float[np.ndarray, "objectives three"], list[str]]:
    """Chances that the opposite, nothing or the objective is asked for; by which clause.

    `[objectives, three]`. An objective without an opposite is not spoken of.

    Raises:
        InvalidInputError: no objective has an opposite, or the embedder is not installed.
    """
    axes = {frozenset((o.name, o.opposite)): (o.name, o.opposite) for o in objectives if o.opposite}
    if not axes:
        raise InvalidInputError(
            f"No objective says what its opposite is, so words cannot be read; give 'opposite' to "
            f"{objectives[0].name!r} in the run file: an objective's name or a sentence."
        )
    named = {o.name: _sentences(o) for o in objectives}
    clauses = [part.strip() for part in _CLAUSE.split(text) if len(part.strip()) > 1] or [text]
    is_turned = np.array([len(_NEGATION.findall(clause)) % 2 == 1 for clause in clauses])
    plain = [_NEGATION.sub(" ", clause).strip() or clause for clause in clauses]
    vectors = load_embedder(EMBEDDER, max_length=MAX_LENGTH).embed(plain)
    near = np.empty((len(clauses), len(axes), 2))
    for place, axis in enumerate(axes.values()):
        for side, pole in enumerate(axis):
            alike = np.sort(vectors @ _embedded(named.get(pole, (pole,))).T, axis=1)
            near[:, place, side] = alike[:, -NEAREST:].mean(axis=1)
    near[is_turned] = near[is_turned][:, :, ::-1]
    weights = np.exp((near - least) / width)
    chances = weights / (1.0 + weights.sum(axis=(1, 2), keepdims=True))  # [clauses, axes, sides]
    silent = np.prod(1.0 - chances.sum(axis=2), axis=0)
    sides = chances.sum(axis=0) * ((1.0 - silent) / chances.sum(axis=(0, 2)))[:, None]
    cases, says = np.tile([0.0, 1.0, 0.0], (len(objectives), 1)), [""] * len(objectives)
    for k, o in enumerate(objectives):
        if o.opposite:
            axis = frozenset((o.name, o.opposite))
            place, own = list(axes).index(axis), axes[axis].index(o.name)
            cases[k] = sides[place, 1 - own], silent[place], sides[place, own]
            says[k] = clauses[int(chances[:, place].sum(axis=1).argmax())]
    return cases, says


@lru_cache(maxsize=1000)
def _embedded(texts: tuple[str, ...]) -> Float[np.ndarray, "texts width"]:
    return load_embedder(EMBEDDER, max_length=MAX_LENGTH).embed(list(texts))


def _moments(
    chances: Float[np.ndarray, "objectives three"],
) -> tuple[Float[np.ndarray, " objectives"], Float[np.ndarray, " objectives"]]:
    """Mean and deviation of the three cases together, in units of the prior's deviation."""
    against, silent, wanted = chances.T
    mean = wanted - against
    variance = silent + (wanted + against) * (1.0 + CERTAIN_SD**2) - mean**2
    return mean, np.sqrt(variance)


def _sentences(objective: Objective) -> tuple[str, ...]:
    phrases = (phrase.strip() for phrase in objective.phrases.split(";"))
    texts = (objective.name, objective.description, objective.instruction, *phrases)
    return tuple(text for text in texts if text)
