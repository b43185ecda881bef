"""What each way is and needs, in a few words: the lines of the placement table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One way.

    Attributes:
        title: For headings.
        what: One sentence.
        trained: What has to be trained.
        runs_on: What can serve it.
        is_ceiling: It costs one training per person, so it is a yardstick and no choice.
        reads_wish: The model is told in words what the person wants.
    """

    title: str
    what: str
    trained: str
    runs_on: str
    is_ceiling: bool = False
    reads_wish: bool = False


_ANY = "any server"
_LORA = "any LoRA server (vLLM, LoRAX, peft)"
_ENGINE = "palate's engine, or several passes and full distributions"
_EXPERTS = "one expert per objective"

_ENTRIES = {
    "base": Entry("Base", "Nobody's taste.", "nothing", _ANY),
    "prompting": Entry(
        "Prompting", "The base, told in words what is wanted.", "nothing", _ANY, reads_wish=True
    ),
    "best-of-n": Entry(
        "Best of n", "Of n answers, the one the reward models like best.", "rewards", _ANY
    ),
    "best-expert": Entry(
        "Best expert", "The person's best single-objective expert.", _EXPERTS, _LORA
    ),
    "portfolio": Entry(
        "Portfolio", "The best of K policies chosen for everybody (PALM).", "K experts", _LORA
    ),
    "soup": Entry(
        "Parameter soup", "Experts added up with the person's coefficients.", _EXPERTS, _LORA
    ),
    "soup-told": Entry(
        "Soup, told",
        "The parameter soup, told in words what is wanted too.",
        _EXPERTS,
        _LORA,
        reads_wish=True,
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
        reads_wish=True,
    ),
    "mixture-even": Entry(
        "Mixture, even",
        "The same experts pooled evenly, no controller.",
        _EXPERTS,
        _ENGINE,
        reads_wish=True,
    ),
    "personalised-soup": Entry(
        "Personalized Soups", "Mean of the experts' LoRA factors.", _EXPERTS, _LORA
    ),
    "rewarded-soup": Entry("Rewarded soup", "Mean of the experts' parameters.", _EXPERTS, _LORA),
    "mod": Entry("MOD", "Mean of the experts' log-probabilities.", _EXPERTS, _ENGINE),
    "conditioned": Entry(
        "Conditioned (MORL)",
        "One policy trained with the preference in the prompt.",
        "one policy, for known people",
        _LORA,
        reads_wish=True,
    ),
    "bespoke": Entry(
        "Bespoke",
        "A policy trained for this person alone.",
        "one per person",
        _LORA,
        is_ceiling=True,
    ),
    "bespoke-strong": Entry(
        "Bespoke, strong",
        "The same at the soups' sum of coefficients.",
        "one per person",
        _LORA,
        is_ceiling=True,
    ),
    "soup@": Entry(
        "Learned soup", "The soup with a preference learned from N comparisons.", _EXPERTS, _LORA
    ),
}


def entry_of(way: str) -> Entry:
    """The way's line; numbered ways carry their number in the title.

    Example:
        >>> entry_of("portfolio-3").title
        'Portfolio of 3'
    """
    if way in _ENTRIES:
        return _ENTRIES[way]
    stem, sign, number = way.rpartition("@") if "@" in way else way.rpartition("-")
    found = _ENTRIES.get(f"{stem}@" if sign == "@" else stem)
    if found is None:
        return Entry(way, "", "", "")
    joint = ", after" if sign == "@" else " of"
    return Entry(
        f"{found.title}{joint} {number}", found.what, found.trained, found.runs_on, found.is_ceiling
    )
