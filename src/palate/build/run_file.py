"""The run file of `palate build`: what to build from what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from palate.build.calibration import CalibrationSettings
from palate.build.portfolio_settings import PortfolioSettings
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json
from palate.core.settings import Settings, load_settings
from palate.core.types import Objective
from palate.rewards.rows import read_rows, texts_of
from palate.rewards.scale import ScaleKind
from palate.rewards.settings import GradeSettings, TransformerSettings
from palate.training.anchors import AnchorSettings, require_name
from palate.training.job import TrainSettings
from palate.training.placement import HEAD, AdapterSettings
from palate.training.rollouts import RolloutSettings

_SOURCES = ("pairs", "folder", "rule", "function", "model", "judge")
Prompts = str | tuple[str, ...]  # a file, or the prompts themselves


class RewardSource(Settings):
    """Where an objective's reward comes from: exactly one of the first keys, bar `validation`."""

    pairs: Path | None = None  # JSONL of preference pairs, on which a reward is trained
    validation: Path | None = None  # to measure on; by default half of the groups of `pairs`
    folder: Path | None = None  # of `palate rewards train`; calibrated here if it is not yet
    rule: dict[str, Any] | None = None  # see `palate.rewards.rules`: `{kind: length, low: 8, ...}`
    function: str | None = None  # `module:function`, as in `reward_funcs`
    model: str | None = None  # folder or hub id of a finished sequence classifier with one output
    judge: GradeSettings | None = None  # a language model that grades, see `palate.rewards.grades`
    trunk: str = "light"  # for pairs: as `palate.rewards.settings.trunk_settings` reads it
    trunk_settings: tuple[str, ...] = ()  # `key=value` of the trunk
    # trunk of the held-back reward, which judges; by default the same with the same settings.
    # Another one gets its own defaults, and does not share the first one's faults
    judge_trunk: str | None = None
    group_by: str | None = None  # for pairs: column whose equal values belong together
    is_swapped: bool = False  # for pairs: exchange chosen and rejected
    # for pairs: multiply rewards by the share of words in whole English sentences
    whole_sentences: bool = False
    scale: ScaleKind = "logistic"  # how raw scores become numbers in [0, 1]

    @model_validator(mode="after")
    def _is_one_source(self) -> "RewardSource":
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}, not {given or 'none'}")
        for name in ("judge_trunk", "whole_sentences"):
            if getattr(self, name) and self.pairs is None:
                raise ValueError(f"{name} needs pairs, but the reward is of {given[0]}")
        return self


class ObjectiveSettings(Settings):
    """Something a user can want, and its reward."""

    name: str  # short identifier
    description: str = ""  # one sentence for users
    instruction: str = ""  # the preference in words, as it is put to a model
    reward: RewardSource | None = None  # `None` for a Python function, given in `reward_funcs`


class RunSettings(Settings):
    """Everything that determines a library."""

    RENAMED = {"base": "model_name_or_path"}  # noqa: RUF012  (a ClassVar of the base)

    model_name_or_path: str  # folder, hub id or GGUF file of the base model, or `smollm2-135m`
    revision: str | None = None  # hub revision of the base
    # type of the base's parameters; the library stores what `auto` comes to here
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"  # a torch device
    objectives: Annotated[tuple[ObjectiveSettings, ...], Field(min_length=1)]  # all different
    prompts: Prompts  # JSONL or parquet file with a column `prompt`, or a list of prompts
    rollouts: RolloutSettings = RolloutSettings()  # how the base is sampled
    anchors: AnchorSettings = AnchorSettings()  # which experts
    adapter: AdapterSettings = AdapterSettings()  # shape of every expert
    training: TrainSettings = TrainSettings()  # how every expert is trained
    calibration: CalibrationSettings = CalibrationSettings()  # how methods are measured at the end
    portfolio: PortfolioSettings | None = None  # certified, with further experts; `None` for none
    seed: int = Field(default=0, ge=0)  # random seed of the run
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"  # where TRL reports

    @model_validator(mode="after")
    def _names_differ(self) -> "RunSettings":
        names = [objective.name for objective in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the objective {twice[0]!r} occurs more than once")
        for name in names:
            require_name(name, what="objective")
        return self

    @model_validator(mode="after")
    def _spectral_is_on_the_head(self) -> "RunSettings":
        if self.training.method == "spectral" and self.adapter.target_modules != HEAD:
            raise ValueError(
                f"the method spectral solves for the unembedding: set adapter.target_modules to "
                f"{HEAD}, not {self.adapter.target_modules!r}"
            )
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


def stored_run(config: Mapping[str, Any], *, overrides: Sequence[str] = ()) -> RunSettings:
    """The run file that a library stores, also one of an earlier version, with overrides.

    Raises:
        InvalidInputError: the library was not built by a run file, or an override is wrong.
    """
    content = {key: value for key, value in present_keys(config).items() if value is not None}
    texts = [f"{key}={dump_json(value, indent=None)}" for key, value in content.items()]
    return load_settings(RunSettings, overrides=[*texts, *overrides])


def present_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a stored run file with the present names of keys."""
    content = RunSettings.renamed(config)
    training = dict(content.get("training") or {})
    if "batch_pairs" in training:  # a whole step's; for grpo half of a step's answers
        per_pair = 2 if training.get("method") == "grpo" else 1
        n_pairs = training["batch_pairs"] * per_pair
        training["batch_pairs"] = n_pairs // training.get("accumulate", 1)
    adapter = dict(content.get("adapter") or {})
    if "placement" in adapter:
        names = {"all": "all-linear", "head": "lm_head"}
        adapter["placement"] = names.get(adapter["placement"], adapter["placement"])
    sections = {
        "rollouts": RolloutSettings.renamed(content.get("rollouts") or {}),
        "adapter": AdapterSettings.renamed(adapter),
        "training": TrainSettings.renamed(training),
    }
    objectives = [_present_objective(row) for row in content.get("objectives", ())]
    present = {name: part for name, part in sections.items() if part}
    return {**content, **present, "objectives": objectives}


def _present_objective(row: Mapping[str, Any]) -> dict[str, Any]:
    source = dict(row.get("reward") or {})
    if source.get("annotators", 0) is None:
        del source["annotators"]
    pairs = (text.partition("=") for text in source.get("trunk_settings", ()))
    if source.get("trunk", "light") != "light":
        names = TransformerSettings.RENAMED
        source["trunk_settings"] = [f"{names.get(key, key)}={value}" for key, _, value in pairs]
    return {**row, "reward": source or None}


def read_prompts(source: Path | Prompts) -> tuple[str, ...]:
    """Each prompt once, in order: of a list, or of the column `prompt` of a JSONL or parquet file.

    A conversation, messages `{"role", "content"}`, is a transcript as in `palate.rewards.rows`.

    Raises:
        InvalidInputError: the file is missing or empty, or a row has no prompt.
    """
    if isinstance(source, tuple):
        return tuple(dict.fromkeys(source))
    path = Path(source)
    rows, places = read_rows(path, what="prompts file")
    if not rows:
        raise InvalidInputError(f"The prompts file {str(path)!r} is empty; give at least one row.")
    texts = (texts_of(row, place=place)[0] for row, place in zip(rows, places, strict=True))
    return tuple(dict.fromkeys(texts))
