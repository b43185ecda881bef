"""How large the board is; every key can be set with `--set`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from palate.core.settings import Settings

SHIPPED = "smollm2-135m"
TURN_METHODS = (
    *("base", "prompt", "prompt:instruction", "prompt+best-of-4"),
    *("soup", "prompted-soup", "auto", "auto:instruction"),
)
SMALL_METHODS = (
    *("base", "prompt", "prompt:instruction", "prompt:profile", "prompt:vague", "examples@10"),
    *("base+best-of-4", "prompt+best-of-4", "lora@10", "personalised-soup", "rewarded-soup", "mod"),
    *("portfolio-1", "portfolio-4", "portfolio-8", "soup", "prompted-soup", "output-soup"),
    *("mixture", "soup@3", "soup@10", "soup@30", "auto", "auto:instruction", "auto+4-passes"),
    *("auto@10", "auto:instruction@3", "auto:instruction@10"),
)


class LoraSettings(Settings):
    """How the rivals' adapters are trained: DPO on pairs, by `palate.build`."""

    r: int = Field(default=16, ge=1)  # rank
    lora_alpha: float = Field(default=32.0, gt=0)
    target_modules: str = "all-linear"
    beta: float = Field(default=0.1, gt=0)  # DPO's
    learning_rate: float = Field(default=2e-4, gt=0)
    batch: int = Field(default=4, ge=1)  # pairs of a step
    epochs: int = Field(default=2, ge=1)  # visits of every pair, within the steps below
    fewest_steps: int = Field(default=10, ge=1)
    most_steps: int = Field(default=150, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the base while training

    def n_steps(self, n_pairs: int) -> int:
        """Optimizer steps for so many pairs."""
        wanted = -(-n_pairs * self.epochs // self.batch)
        return min(self.most_steps, max(self.fewest_steps, wanted))


class BoardSettings(Settings):
    """Everything that determines the rows."""

    # names or folders; those after the first are further seeds of it, for what is trained
    libraries: tuple[str, ...] = (SHIPPED,)
    users: str | None = None  # JSON lines; `None`: those beside this file
    n_users: int = Field(default=24, ge=2)  # the first so many
    prompts: tuple[str, ...] = ()  # JSON lines with `prompt`; none: those beside this file
    n_prompts: int = Field(default=24, ge=1)  # in a seeded order
    longest_prompt: int = Field(default=400, ge=1)  # characters; longer ones are left out
    turns: tuple[int, ...] = (1, 4, 8)  # earlier turns of the conversations
    n_turn_prompts: int = Field(default=8, ge=0)  # prompts that are also asked in conversations
    turn_methods: tuple[str, ...] = TURN_METHODS
    methods: tuple[str, ...] = ()  # names; none: all that the library can serve
    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1)  # of the answers
    max_tokens: int = Field(default=96, ge=1)  # of an answer
    temperature: float | None = None  # `None`: as the library serves
    n_pool_prompts: int = Field(default=60, ge=1)  # training prompts whose answers are compared
    most_comparisons: int = Field(default=100, ge=1)  # of a user
    n_lora_users: int = Field(default=12, ge=0)  # the first so many get an adapter of their own
    lora: LoraSettings = LoraSettings()
    n_capability_users: int = Field(default=4, ge=1)  # whose policies score the neutral text
    dtype: str = "bfloat16"  # of the base
    device: str = "cpu"  # as torch names devices

    @model_validator(mode="after")
    def _has_the_base(self) -> "BoardSettings":
        if self.methods and "base" not in self.methods:
            raise ValueError("the methods must hold 'base', which the others are compared with")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed occurs twice")
        return self

    def small(self) -> "BoardSettings":
        """The form of `make report`."""
        return self.model_copy(
            update={
                "n_users": 8,
                "n_prompts": 4,
                "turns": (8,),
                "n_turn_prompts": 1,
                "methods": SMALL_METHODS,
                "seeds": (0,),
                "max_tokens": 64,
                "n_pool_prompts": 16,
                "most_comparisons": 30,
                "n_lora_users": 2,
                "n_capability_users": 1,
            }
        )

    def is_row_compatible(self, stored: dict[str, object]) -> str:
        """The first key by which rows of these and of stored settings differ; empty where none.

        More methods, seeds, turns and libraries may be added to a folder; rows name a library by
        its place, so those that are there must stay in theirs.
        """
        own = self.model_dump(mode="json")
        fixed = set(own) - _MAY_GROW
        before: Any = stored.get("libraries", [])
        if any(one != other for one, other in zip(own["libraries"], before, strict=False)):
            return "libraries"
        return next((key for key in sorted(fixed) if own[key] != stored.get(key)), "")


_MAY_GROW = {
    *("libraries", "turns", "n_turn_prompts", "turn_methods", "methods", "seeds"),
    *("n_lora_users", "n_capability_users"),
}
FOLDER = Path(__file__).parent
