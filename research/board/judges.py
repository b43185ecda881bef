"""Who judges: per objective a reward held back from its teacher, and a measure of form; guards.

    meaning   the library's held-back reward: another family, on the pairs that were held back from
              the objective's teacher and, in libraries built since, from its opposite's
    form      a rule where a rule is the definition (`research.board.forms`)
    guards    relevance, the cosine of prompt and answer; whole, the share of words in whole
              sentences. They are reported, and are no part of anybody's utility

The held-back rewards also measured the methods when the library was built, on other prompts:
`methods.json`, from which `auto` chooses. So the report answers its questions by form alone, too.

An objective with neither a held-back reward nor a measure of form is judged by the rule that taught
it, which flatters what was trained by it; the report says so.

Numbers in rows are raw. The report standardises each judge by its mean and deviation over the
base's answers, so that no judge weighs more because its scale is wider.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palate import Library
from palate.core.errors import FormatError, InvalidInputError, MissingExtraError
from palate.core.files import read_json
from palate.rewards.embedding import Embedder, load_embedder
from palate.rewards.reward import LearnedReward, load_reward
from palate.rewards.rules import RuleReward, rule_from
from palate.rewards.sentences import unbroken_share
from palate.rewards.settings import EMBEDDER
from research.board.forms import FORMS

HELD_BACK, RULE = "held_back", "rule.json"  # in a reward's folder
MAX_LENGTH = 256  # tokens that are embedded


@dataclass(frozen=True)
class Judgment:
    """What one answer is worth."""

    meaning: dict[str, float]  # by objective, in [0, 1]
    form: dict[str, float]  # by objective, in [0, 1]
    relevance: float | None  # cosine of prompt and answer; `None` without the embedder
    whole: float  # share of words in whole sentences


@dataclass(frozen=True, eq=False)
class Judges:
    """The judges of a library's objectives."""

    meaning: dict[str, LearnedReward | RuleReward]
    form: dict[str, Callable[[str], float]]
    embedder: Embedder | None
    self_judged: tuple[str, ...] = ()  # objectives that nothing but their teacher judges
    # objectives whose judge of meaning is the one that measured what `auto` chooses from
    known_to_auto: tuple[str, ...] = ()

    def judge(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Judgment]:
        """One judgment for each answer."""
        if not texts:
            return []
        meaning = {
            name: np.clip(reward.score(prompts, texts), 0.0, 1.0).tolist()
            for name, reward in self.meaning.items()
        }
        relevance: list[float | None] = [None] * len(texts)
        if self.embedder is not None:
            left, right = self.embedder.embed(list(prompts)), self.embedder.embed(list(texts))
            relevance = [float(value) for value in (left * right).sum(axis=1)]
        return [
            Judgment(
                {name: round(values[k], 6) for name, values in meaning.items()},
                {name: round(form(text), 6) for name, form in self.form.items()},
                None if (near := relevance[k]) is None else round(near, 6),
                round(unbroken_share(text), 6),
            )
            for k, text in enumerate(texts)
        ]


def judges_of(library: Library) -> Judges:
    """The judges of the library's objectives.

    Raises:
        FormatError: an objective has no judge at all.
    """
    meaning: dict[str, LearnedReward | RuleReward] = {}
    alone: list[str] = []
    names = library.manifest.objective_names
    for name in names:
        folder = library.files.reward_folder(name)
        if (folder / HELD_BACK).is_dir():
            meaning[name] = load_reward(folder / HELD_BACK)
        elif name not in FORMS:
            meaning[name] = _rule(folder, name)
            alone.append(name)
    form = {name: FORMS[name] for name in names if name in FORMS}
    measured = tuple(meaning) if library.method_table is not None else ()
    return Judges(meaning, form, _embedder(), tuple(alone), measured)


def _rule(folder: Path, name: str) -> RuleReward:
    if not (folder / RULE).is_file():
        raise FormatError(
            f"The objective {name!r} has neither a held-back reward, nor a measure of form, nor a "
            "rule, so nothing can judge it; build the library from enough pairs."
        )
    content: Any = read_json(folder / RULE, what="rule")
    return rule_from(content["rule"], objective=name)


def _embedder() -> Embedder | None:
    try:
        return load_embedder(EMBEDDER, max_length=MAX_LENGTH)
    except (InvalidInputError, MissingExtraError):
        return None
