"""A suite: which people, prompts, ways and seeds are compared, and who judges."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from palate.core.settings import Settings

WORLD = "world"
SIZES = tuple(range(1, 9))  # of the portfolios compared by default
COMPARISONS = (0, 5, 20, 40)  # after which a learned soup is measured by default

DEFAULT_WAYS = (
    "base",
    "prompting",
    "best-of-n",
    "best-expert",
    *(f"portfolio-{size}" for size in SIZES),
    "soup",
    "soup-told",
    "output-soup",
    "implicit-soup",
    "mixture",
    "mixture-even",
    "personalised-soup",
    "rewarded-soup",
    "mod",
    "conditioned",
    "bespoke",
    "bespoke-strong",
    *(f"soup@{n}" for n in COMPARISONS),
)


class PersonSettings(Settings):
    """Somebody who is answered.

    Attributes:
        name: For tables.
        preference: Objective to share, summing to one.
        instruction: The preference in words, for ways that ask; by default the objectives' own.
    """

    name: str
    preference: dict[str, float]
    instruction: str = ""


class JudgeSettings(Settings):
    """Who judges.

    Attributes:
        kind: `gold`: the small world's rules. `rewards`: reward models that taught nobody. `llm`:
            a model behind an OpenAI-compatible endpoint, asked for each wanted objective whether
            the answer or the base's is better, in both orders.
        folder: For `rewards`: a folder with one reward folder per objective.
        url: For `llm`: up to and including `/v1`.
        model: For `llm`: name on the server.
    """

    kind: Literal["gold", "rewards", "llm"] = "gold"
    folder: Path | None = None
    url: str | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "JudgeSettings":
        needed = {"gold": (), "rewards": ("folder",), "llm": ("url", "model")}[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a judge of kind {self.kind!r} needs {missing[0]!r}")
        return self

    @property
    def label(self) -> str:
        """What rows call it."""
        return {"gold": "gold", "rewards": f"rewards:{self.folder}", "llm": f"llm:{self.model}"}[
            self.kind
        ]


class Suite(Settings):
    """Everything that determines a comparison.

    Attributes:
        library: A library folder, or `world`: one library of the small world is built per seed.
        bespoke: A library of the same base with one expert per person, named after them in lower
            case; for the world it is built. Without it the way `bespoke` is left out.
        people: Empty are the world's eight.
        prompts: JSONL with a column `prompt`, or `world`: the world's held-out prompts.
        development: JSONL of other prompts, on which portfolios are chosen; or `world`.
        n_prompts: The first so many; 0 uses all.
        n_development: The same for choosing.
        n_per_prompt: Answers to each prompt.
        ways: In the order of the tables.
        seeds: Of draws and, in the world, of libraries.
        judge: Who judges.
        max_tokens: Longest answer.
        strength: Sum of a soup's coefficients.
        best_of: Proposals of best-of-n.
        is_quick: Build small things that only show that everything runs.
    """

    library: str = WORLD
    bespoke: str | None = None
    people: tuple[PersonSettings, ...] = ()
    prompts: str = WORLD
    development: str = WORLD
    n_prompts: int = Field(default=16, ge=0)
    n_development: int = Field(default=32, ge=2)
    n_per_prompt: int = Field(default=1, ge=1)
    ways: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_WAYS
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    judge: JudgeSettings = JudgeSettings()
    max_tokens: int = Field(default=80, ge=1)
    strength: float = Field(default=2.0, gt=0)
    best_of: int = Field(default=8, ge=2)
    is_quick: bool = False

    @model_validator(mode="after")
    def _is_fair(self) -> "Suite":
        for name in ("ways", "seeds"):
            values = [*getattr(self, name)]
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"{twice[0]!r} occurs twice in {name!r}")
        names = [person.name for person in self.people]
        if len(set(names)) < len(names):
            raise ValueError("two people have one name")
        if "base" not in self.ways:
            raise ValueError("the ways must hold 'base', which the others are compared with")
        if self.library != WORLD and (not self.people or self.prompts == WORLD):
            raise ValueError("a library of your own needs its people and its prompts")
        if self.judge.kind == "gold" and self.library != WORLD:
            raise ValueError("the gold rules judge the small world only; choose another judge")
        return self

    def quick(self) -> "Suite":
        """The same in small: one seed, three prompts, libraries trained for a few steps."""
        changed = {"seeds": self.seeds[:1], "n_prompts": 3, "n_development": 3, "is_quick": True}
        left_out = {f"portfolio-{size}" for size in SIZES[3:]}
        ways = tuple(way for way in self.ways if way not in left_out)
        return self.model_copy(update={**changed, "ways": ways, "best_of": min(self.best_of, 4)})
