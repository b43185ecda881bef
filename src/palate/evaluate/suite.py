"""A suite: which users, prompts, methods and seeds are compared, and who judges."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from palate.core.settings import Settings
from palate.evaluate.entrant_name import BASE, parse_name

WORLD = "world"

DEFAULT_METHODS = (
    "base",
    "prompt",
    "prompt+best-of-4",
    "prompted-soup",
    "prompted-soup+best-of-4",
    "auto",
    "portfolio",
    "soup",
    "output-soup",
    "implicit-soup",
    "mixture",
    "rewarded-soup",
    "mod",
    "personalised-soup",
    "conditioned",
    "soup@5",
    "soup@20",
    "auto@20",
)

_GONE = {
    "ways": "is now called 'methods'",
    "strength": "is no longer a setting of a suite: the strength is the library's own, measured "
    "when it is built",
    "best_of": "is no longer a setting of a suite: name the method METHOD+best-of-N",
    "development": "is no longer a setting of a suite: a portfolio is the library's portfolio.json",
}


class UserSettings(Settings):
    """Somebody who is answered.

    Attributes:
        name: For tables; different for every user.
        preference: Objective to share, summing to one.
        instruction: The user's own words; by default the preference is put into words by palate.
        shape: Of the preference, such as `even`: the scoreboard is told by shape too.
        cluster: Users that resemble each other have one; intervals count them once. By default
            every user stands alone.
    """

    name: str
    preference: dict[str, float]
    instruction: str = ""
    shape: str = ""
    cluster: str = ""


class JudgeSettings(Settings):
    """Who judges.

    Attributes:
        kind: `gold`: the small world's rules. `held-back`: the library's rewards fitted on the
            other half of the pairs. `rewards`: reward models that taught nobody. `llm`: a model
            behind an OpenAI-compatible endpoint, which says for each objective whether the answer
            or the base's is better, in both orders.
        folder: For `rewards`: a folder with one reward folder per objective.
        url: For `llm`: up to and including `/v1`.
        model: For `llm`: name on the server.
    """

    kind: Literal["gold", "held-back", "rewards", "llm"] = "gold"
    folder: Path | None = None
    url: str | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "JudgeSettings":
        needed = {"rewards": ("folder",), "llm": ("url", "model")}.get(self.kind, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a judge of kind {self.kind!r} needs {missing[0]!r}")
        return self

    @property
    def label(self) -> str:
        """What rows call it."""
        labels = {"rewards": f"rewards:{self.folder}", "llm": f"llm:{self.model}"}
        return labels.get(self.kind, self.kind)


class Suite(Settings):
    """Everything that determines a comparison.

    Attributes:
        library: A library folder, or `world`: one library of the small world is built per seed.
        bespoke: A library of the same base with one expert per user, trained for the user's
            preference; for the world it is built. Only for the method `bespoke`.
        users: The users; empty are the small world's.
        prompts: JSONL with a column `prompt`, or `world`: the world's held-out prompts.
        n_prompts: The first so many; 0 uses all.
        n_development: The world's training prompts on which its portfolio is chosen.
        n_per_prompt: Answers to each prompt.
        methods: In the order of the tables; see `palate.evaluate.entrant_name`.
        seeds: Of draws and, in the world, of libraries.
        judge: Who judges.
        max_tokens: Longest answer.
        is_quick: Build small things that only show that everything runs.
    """

    library: str = WORLD
    bespoke: str | None = None
    users: tuple[UserSettings, ...] = ()
    prompts: str = WORLD
    n_prompts: int = Field(default=16, ge=0)
    n_development: int = Field(default=32, ge=4)
    n_per_prompt: int = Field(default=1, ge=1)
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_METHODS
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    judge: JudgeSettings = JudgeSettings()
    max_tokens: int = Field(default=80, ge=1)
    is_quick: bool = False

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in cast("dict[str, Any]", values):
                if key in _GONE:
                    raise ValueError(f"the key {key!r} {_GONE[key]}")
        return values

    @model_validator(mode="after")
    def _is_fair(self) -> "Suite":
        for name in ("methods", "seeds"):
            values = [*getattr(self, name)]
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"{twice[0]!r} occurs twice in {name!r}")
        for method in self.methods:
            parse_name(method)
        names = [user.name for user in self.users]
        if len(set(names)) < len(names):
            raise ValueError("two users have one name")
        if BASE not in self.methods:
            raise ValueError("the methods must hold 'base', which the others are compared with")
        if self.library != WORLD and (not self.users or self.prompts == WORLD):
            raise ValueError("a library of your own needs its users and its prompts")
        if self.judge.kind == "gold" and self.library != WORLD:
            raise ValueError("the gold rules judge the small world only; choose another judge")
        return self

    def quick(self) -> "Suite":
        """The same in small: one seed, two prompts, libraries trained for a few steps."""
        changed = {"seeds": self.seeds[:1], "n_prompts": 2, "n_development": 4, "is_quick": True}
        return self.model_copy(update=changed)
