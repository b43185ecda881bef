"""Names of entrants, and what each method is and needs: the lines of the placement table.

An entrant is a method with what is varied about it:

    METHOD                    as it is
    METHOD@N                  the user is known by a belief learned from N comparisons only
    METHOD+best-of-N          the best of N candidates by the user's reward
    METHOD@N+best-of-M        both
"""

import re
from dataclasses import dataclass, replace

from palate.core.errors import InvalidInputError

AUTO, BASE, PROMPT, PORTFOLIO, MIXTURE = "auto", "base", "prompt", "portfolio", "mixture"
IMPLICIT, BESPOKE = "implicit-soup", "bespoke"
_PATTERN = re.compile(
    r"(?P<method>[^@+]+)(@(?P<n_comparisons>\d+))?(\+best-of-(?P<n_candidates>\d+))?"
)


@dataclass(frozen=True)
class EntrantName:
    """What a name says."""

    method: str
    n_comparisons: int | None = None  # that the user is known by; None: the preference is stated
    n_candidates: int | None = None  # of best of n; None leaves it to the method

    @property
    def is_plain(self) -> bool:
        """Whether nothing is varied."""
        return self.n_comparisons is None and self.n_candidates is None


def parse_name(name: str) -> EntrantName:
    """What an entrant's name says.

    Raises:
        InvalidInputError: it is none.

    Example:
        >>> parse_name("prompt+best-of-4")
        EntrantName(method='prompt', n_comparisons=None, n_candidates=4)
    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise InvalidInputError(
            f"The method {name!r} cannot be read; use METHOD, METHOD@N or METHOD+best-of-N."
        )
    n_comparisons, n_candidates = match["n_comparisons"], match["n_candidates"]
    return EntrantName(
        match["method"],
        None if n_comparisons is None else int(n_comparisons),
        None if n_candidates is None else int(n_candidates),
    )


@dataclass(frozen=True)
class Entry:
    """One method."""

    title: str  # for headings
    what: str  # one sentence
    trained: str  # what has to be trained
    runs_on: str  # what can serve it
    is_ceiling: bool = False  # costs one training per user, so it is a yardstick and no choice
    is_rival: bool = False  # palate does not serve it; it is compared with
    reads_words: bool = False  # the prompt says in words what the user wants


_ANY = "any server"
_LORA = "any LoRA server (vLLM, LoRAX, peft)"
_ENGINE = "palate's engine, or several passes and full distributions"
_EXPERTS = "one expert per objective"

_ENTRIES = {
    "base": Entry("Base", "The base model, whoever asks.", "nothing", _ANY),
    "prompt": Entry("Prompt", "The base with a system prompt.", "nothing", _ANY, reads_words=True),
    "best-of-n": Entry(
        "Best of n",
        "Of n answers of the prompted base, the one the user's reward prefers.",
        "rewards",
        _ANY,
        reads_words=True,
    ),
    "auto": Entry(
        "Auto",
        "The method measured to be worth most to the user.",
        "what it takes",
        "what it takes",
        reads_words=True,
    ),
    "portfolio": Entry(
        "Portfolio (PALM)", "The certified member worth most to the user.", "K experts", _LORA
    ),
    "soup": Entry(
        "Soup", "Experts' parameters added with the user's coefficients.", _EXPERTS, _LORA
    ),
    "prompted-soup": Entry(
        "Prompted soup", "The soup with a system prompt.", _EXPERTS, _LORA, reads_words=True
    ),
    "output-soup": Entry("Output soup", "Experts' log-probabilities added up.", _EXPERTS, _ENGINE),
    "implicit-soup": Entry(
        "Implicit soup", "The same distribution, drawn by rejection.", _EXPERTS, _ENGINE
    ),
    "mixture": Entry(
        "Mixture (MoPE)",
        "Experts' probabilities pooled token by token by a controller.",
        "experts and a controller",
        _ENGINE,
        reads_words=True,
    ),
    "mixture-even": Entry(
        "Mixture, even",
        "The same experts pooled evenly, no controller.",
        _EXPERTS,
        _ENGINE,
        is_rival=True,
        reads_words=True,
    ),
    "best-expert": Entry(
        "Best expert",
        "The single-objective expert worth most to the user.",
        _EXPERTS,
        _LORA,
        is_rival=True,
    ),
    "personalised-soup": Entry(
        "Personalized Soups", "Mean of the experts' LoRA factors.", _EXPERTS, _LORA, is_rival=True
    ),
    "rewarded-soup": Entry(
        "Rewarded soup", "Mean of the experts' parameters.", _EXPERTS, _LORA, is_rival=True
    ),
    "mod": Entry(
        "MOD", "Mean of the experts' log-probabilities.", _EXPERTS, _ENGINE, is_rival=True
    ),
    "conditioned": Entry(
        "Conditioned (MORL)",
        "One policy trained with the preference in the prompt.",
        "one policy, for known users",
        _LORA,
        is_rival=True,
        reads_words=True,
    ),
    "bespoke": Entry(
        "Bespoke",
        "An expert trained for this user alone.",
        "one per user",
        _LORA,
        is_ceiling=True,
        is_rival=True,
    ),
}


def entry_of(method: str) -> Entry:
    """The method's line; what is varied about it is in the title.

    Example:
        >>> entry_of("soup@5+best-of-4").title
        'Soup, after 5 comparisons, best of 4'
    """
    try:
        name = parse_name(method)
    except InvalidInputError:
        return Entry(method, "", "", "")
    entry = _ENTRIES.get(name.method, Entry(name.method, "", "", ""))
    title = entry.title
    if name.n_comparisons is not None:
        title += f", after {name.n_comparisons} comparisons"
    if name.n_candidates is not None:
        title += f", best of {name.n_candidates}"
    return replace(entry, title=title)
