"""What each method is and needs, in a few words: the lines of the placement table."""

from dataclasses import dataclass, replace

from palate.core.errors import InvalidInputError
from palate.evaluate.entrant_name import parse_name


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes:
        title: For headings.
        what: One sentence.
        trained: What has to be trained.
        runs_on: What can serve it.
        is_ceiling: It costs one training per user, so it is a yardstick and no choice.
        is_rival: palate does not serve it; it is compared with.
        reads_words: The prompt says in words what the user wants.
    """

    title: str
    what: str
    trained: str
    runs_on: str
    is_ceiling: bool = False
    is_rival: bool = False
    reads_words: bool = False


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
        "Prompted soup",
        "The soup with a system prompt.",
        _EXPERTS,
        _LORA,
        reads_words=True,
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
    found = _ENTRIES.get(name.method, Entry(name.method, "", "", ""))
    title = found.title
    if name.n_comparisons is not None:
        title += f", after {name.n_comparisons} comparisons"
    if name.n_candidates is not None:
        title += f", best of {name.n_candidates}"
    return replace(found, title=title)
