"""What a user's own words say of the objectives: a belief, which feedback then corrects.

Sentence embeddings compare every clause of a text with an objective's two poles: its name,
description and instruction, and those of its opposite.

    d = sum over clauses of  +-(similarity to the objective - similarity to its opposite)

A clause with a negation ("no jargon") counts the other way round. `d` is then read by a model of
three cases: the text asks for the objective, asks for its opposite, or does not speak of it, with
`d` normal in each. What results is a normal distribution in units of the prior: mean zero and
deviation one where the text says nothing, so that a text about something else changes nothing.

The numbers of the three cases are fitted to 40 sentences by `python -m research.preferences.words`,
which measures them on 60 others.

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
from scipy.special import softmax
from scipy.stats import norm

from palate.core.decision import MAX_INSTRUCTION, Known
from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Objective
from palate.preferences.belief import Learner
from palate.rewards.embedding import load_embedder
from palate.rewards.settings import EMBEDDER

if TYPE_CHECKING:
    from palate.library.library import Library

ASKED = 0.16  # how often a text asks for an objective, and as often for its opposite
SIGNAL, ASKED_SD, OTHER_SD = 0.10, 0.12, 0.085  # of `d`: its mean and deviation where asked; else
CERTAIN_SD = 0.5  # how far a user's coefficient is from one prior deviation where it is asked for
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
    tilt: float = 0.0  # `d`, of an objective


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
    tilts, clauses = clause_tilts(text, objectives)
    total = tilts.sum(axis=0)
    chances = case_chances(total)
    means, sds = _moments(chances)
    clause_of = [
        clauses[int(np.abs(tilts[:, k]).argmax())] if chances[k, 1] < 0.5 else ""
        for k in range(len(objectives))
    ]
    anchors = library.anchors  # [experts, objectives]
    spread = np.linalg.pinv(anchors.T)  # the smallest coefficients for a preference
    mean = spread @ means
    rest = np.eye(len(anchors)) - spread @ anchors.T  # what no objective speaks of
    variance = np.diag(spread @ np.diag(sds**2) @ spread.T + rest @ rest.T)
    return Reading(
        {
            o.name: Leaning(float(m), float(s), clause, float(d))
            for o, m, s, clause, d in zip(objectives, means, sds, clause_of, total, strict=True)
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
    return (
        known if reading is None else replace(known, belief=reading.belief(library.soups.prior()))
    )


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


def clause_tilts(
    text: str, objectives: tuple[Objective, ...]
) -> tuple[Float[np.ndarray, "clauses objectives"], list[str]]:
    """Each clause's `d` for each objective (zero without an opposite), and the clauses.

    Raises:
        InvalidInputError: no objective has an opposite, or the embedder is not installed.
    """
    paired = {k: o for k, o in enumerate(objectives) if o.opposite}
    if not paired:
        raise InvalidInputError(
            f"No objective says what its opposite is, so words cannot be read; give 'opposite' to "
            f"{objectives[0].name!r} in the run file: an objective's name or a sentence."
        )
    embedder = load_embedder(EMBEDDER, max_length=128)
    named = {o.name: _sentences(o) for o in objectives}
    clauses = [part.strip() for part in _CLAUSE.split(text) if len(part.strip()) > 1] or [text]
    signs = np.array([1.0 - 2.0 * (len(_NEGATION.findall(c)) % 2) for c in clauses])
    plain = embedder.embed([_NEGATION.sub(" ", c).strip() or c for c in clauses])
    tilts = np.zeros((len(clauses), len(objectives)))
    for k, objective in paired.items():
        poles = (named[objective.name], named.get(objective.opposite, [objective.opposite]))
        near, far = (embedder.embed(pole).mean(axis=0) for pole in poles)
        tilts[:, k] = signs * (plain @ (near - far))
    return tilts, clauses


def case_chances(tilts: Float[np.ndarray, " objectives"]) -> Float[np.ndarray, "objectives three"]:
    """Probabilities that the opposite, nothing, or the objective itself is asked for."""
    centres = np.array([-SIGNAL, 0.0, SIGNAL])
    deviations = np.array([ASKED_SD, OTHER_SD, ASKED_SD])
    shares = np.array([ASKED, 1.0 - 2.0 * ASKED, ASKED])
    logs = norm.logpdf(tilts[:, None], centres, deviations) + np.log(shares)
    chances = softmax(logs, axis=1)
    chances[tilts == 0.0] = 0.0, 1.0, 0.0
    return chances


def _moments(
    chances: Float[np.ndarray, "objectives three"],
) -> tuple[Float[np.ndarray, " objectives"], Float[np.ndarray, " objectives"]]:
    """Mean and deviation of the three cases together, in units of the prior's deviation."""
    against, silent, wanted = chances.T
    mean = wanted - against
    variance = silent + (wanted + against) * (1.0 + CERTAIN_SD**2) - mean**2
    return mean, np.sqrt(variance)


def _sentences(objective: Objective) -> list[str]:
    return [text for text in (objective.name, objective.description, objective.instruction) if text]
