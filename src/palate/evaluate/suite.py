"""A suite: which users, prompts, methods and seeds are compared, and who judges."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from palate.core.settings import Settings
from palate.evaluate.catalogue import BASE, parse_name


class UserSettings(Settings):
    """A user who is answered."""

    name: str  # for tables; different for every user
    preference: dict[str, float]  # objective to share, summing to one
    instruction: str = ""  # the user's own words; by default palate puts the preference into words
    shape: str = ""  # of the preference, such as `even`: every shape has a table of its own
    cluster: str = ""  # users that resemble each other have one; intervals count them once


class JudgeSettings(Settings):
    """Who judges."""

    # `held-back`: the library's rewards fitted on the other half of the pairs. `rewards`: reward
    # models that taught nobody. `llm`: a model behind an OpenAI-compatible endpoint, which says for
    # each objective whether the answer or the base's is better, in both orders. `function`: a
    # callable of your own
    kind: Literal["held-back", "rewards", "llm", "function"] = "held-back"
    folder: Path | None = None  # for `rewards`: a folder with one reward folder per objective
    url: str | None = None  # for `llm`: up to and including `/v1`
    model: str | None = None  # for `llm`: name on the server
    # for `function`: `module:name` of a callable that takes a sequence of
    # `palate.evaluate.judges.Candidate` and gives their `Judged`
    function: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "JudgeSettings":
        needed = {"rewards": ("folder",), "llm": ("url", "model"), "function": ("function",)}
        missing = [name for name in needed.get(self.kind, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a judge of kind {self.kind!r} needs {missing[0]!r}")
        return self

    @property
    def label(self) -> str:
        """How rows name the judge."""
        source = {"rewards": self.folder, "llm": self.model, "function": self.function}
        return f"{self.kind}:{source[self.kind]}" if self.kind in source else self.kind


class Suite(Settings):
    """Everything that determines a comparison of methods of one library."""

    users: Annotated[tuple[UserSettings, ...], Field(min_length=1)]
    # file with a column `prompt`, or a list of prompts
    prompts: str | Annotated[tuple[str, ...], Field(min_length=1)]
    n_prompts: int = Field(default=16, ge=0)  # the first so many; 0 uses all
    n_per_prompt: int = Field(default=1, ge=1)  # answers to each prompt
    # in the tables' order, see `palate.evaluate.catalogue`; by default all that the library serves
    methods: tuple[str, ...] = ()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)  # of the answers
    judge: JudgeSettings = JudgeSettings()
    max_tokens: int = Field(default=80, ge=1)  # longest answer

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
        if self.methods and BASE not in self.methods:
            raise ValueError("the methods must hold 'base', which the others are compared with")
        return self
