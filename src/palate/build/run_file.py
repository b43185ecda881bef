"""The run file of `palate build`: what to build from what."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from palate.build.calibration import CalibrationSettings
from palate.build.portfolio_settings import PortfolioSettings
from palate.core.errors import InvalidInputError
from palate.core.settings import Settings
from palate.core.types import Objective
from palate.rewards.rows import read_rows
from palate.rewards.scale import ScaleKind
from palate.training.anchors import AnchorSettings, require_name
from palate.training.job import TrainSettings
from palate.training.placement import AdapterSettings
from palate.training.rollouts import RolloutSettings

_SOURCES = ("pairs", "folder", "rule", "annotators")


class AnnotatorSettings(Settings):
    """Simulated users who label answers of the small world; only for its six objectives.

    Attributes:
        n_annotators: How many.
        n_pairs: Labelled pairs, of which a fifth of the prompts is for validation.
    """

    n_annotators: int = Field(default=20, ge=1)
    n_pairs: int = Field(default=2000, ge=20)


class RewardSource(Settings):
    """Where an objective's reward comes from: exactly one of pairs, folder, rule, annotators.

    Attributes:
        pairs: JSONL of preference pairs, on which a reward is trained.
        validation: Pairs that are only measured on; without it a fifth of the groups of `pairs`.
        folder: A reward folder of `palate rewards train`; calibrated here if it is not yet.
        rule: A rule of `palate.rewards.rules`, such as `{kind: length, low: 8, high: 50, prefer:
            shorter}`.
        annotators: Simulated users of the small world.
        trunk: For pairs and annotators: `light`, or the folder or hub id of a Hugging Face model.
        trunk_settings: `key=value` of the trunk.
        group_by: For pairs: column whose equal values belong together.
        is_swapped: For pairs: exchange chosen and rejected.
        scale: How raw scores become numbers in [0, 1].
    """

    pairs: Path | None = None
    validation: Path | None = None
    folder: Path | None = None
    rule: dict[str, Any] | None = None
    annotators: AnnotatorSettings | None = None
    trunk: str = "light"
    trunk_settings: tuple[str, ...] = ()
    group_by: str | None = None
    is_swapped: bool = False
    scale: ScaleKind = "logistic"

    @model_validator(mode="after")
    def _is_one_source(self) -> "RewardSource":
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}, not {given or 'none'}")
        return self


class ObjectiveSettings(Settings):
    """Something a user can want, and its reward.

    Attributes:
        name: Short identifier.
        description: One sentence for users.
        instruction: The preference in words, as it is put to a model.
        reward: Where its reward comes from; `None` for one that is a Python function
            (`palate.build(..., reward_funcs={NAME: function})`).
    """

    name: str
    description: str = ""
    instruction: str = ""
    reward: RewardSource | None = None


class RunSettings(Settings):
    """Everything that determines a library.

    Attributes:
        base: Folder or hub id of the base model, or `world`, the one that comes with palate.
        revision: Hub revision of the base.
        dtype: Of the base's parameters.
        device: As torch names devices.
        objectives: At least one, all different.
        prompts: JSONL with a column `prompt`, or `world`: the small world's training prompts.
        rollouts: How the base is sampled.
        anchors: Which experts.
        adapter: Shape of every expert.
        training: How every expert is trained.
        calibration: How methods are measured at the end.
        portfolio: A certified portfolio, for which further experts are trained; `None` for none.
        seed: Of everything random.
        report_to: Where TRL reports training: `none`, `tensorboard`, `wandb` or `trackio`.
    """

    base: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    objectives: Annotated[tuple[ObjectiveSettings, ...], Field(min_length=1)]
    prompts: str
    rollouts: RolloutSettings = RolloutSettings()
    anchors: AnchorSettings = AnchorSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainSettings = TrainSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    portfolio: PortfolioSettings | None = None
    seed: int = Field(default=0, ge=0)
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"

    @model_validator(mode="after")
    def _names_differ(self) -> "RunSettings":
        names = [objective.name for objective in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the objective {twice[0]!r} occurs more than once")
        for name in names:
            require_name(name, what="objective")
        return self

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives' names, in order."""
        return tuple(objective.name for objective in self.objectives)

    def named_objectives(self) -> tuple[Objective, ...]:
        """The objectives without their rewards."""
        return tuple(
            Objective(row.name, description=row.description, instruction=row.instruction)
            for row in self.objectives
        )


def read_prompts(path: Path) -> tuple[str, ...]:
    """The column `prompt` of a JSONL or parquet file, each prompt once, in order.

    Raises:
        InvalidInputError: the file is missing or empty, or a row has no prompt.
    """
    rows, places = read_rows(path, what="prompts file")
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row.get("prompt"), str):
            raise InvalidInputError(f"{place} has no text 'prompt'; add it.")
    if not rows:
        raise InvalidInputError(f"The prompts file {str(path)!r} is empty; give at least one row.")
    return tuple(dict.fromkeys(row["prompt"] for row in rows))
