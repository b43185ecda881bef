"""The run file of `palate build`: what to build from what, and its prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from palate.build.calibration import MIN_PROMPTS, CalibrationSettings
from palate.core.errors import InvalidInputError
from palate.core.seeds import derive_seed, generator_for
from palate.core.settings import Settings, load_settings
from palate.core.types import Objective
from palate.portfolio.grid import affordable_tolerances
from palate.rewards.rows import read_rows, texts_of
from palate.rewards.scale import ScaleKind
from palate.rewards.settings import GradeSettings, TransformerSettings
from palate.training.anchors import Anchor, AnchorSettings, require_new_name
from palate.training.job import ExpertJob, TrainSettings
from palate.training.placement import HEAD, AdapterSettings
from palate.training.rollouts import RolloutSettings

OracleKind = Literal["trained", "decoding", "soup"]


class PortfolioSettings(Settings):
    """A certified portfolio, and the experts that it asks for."""

    # `adaptive`: where the certificate is weakest, until the tolerance or the budget is met;
    # `grid`: PALM as published, one policy per preference of a ratio grid
    search: Literal["adaptive", "grid"] = "adaptive"
    oracle: OracleKind = "trained"  # what makes the policies; see `palate.build.grow`
    # in reward units: the search stops when no loss is larger, and without a `size` as few members
    # are kept as lose no more by the estimates
    tolerance: float = Field(default=0.02, gt=0)
    max_policies: int = Field(default=14, ge=1)  # budget, the objectives' own policies among them
    # of the grid; `None` takes the tightest in `max_policies`, to 3 digits, one number for both
    epsilon: float | None = Field(default=None, gt=0)  # multiplicative
    delta: float | None = Field(default=None, gt=0)  # additive; below the number of objectives - 1
    size: int | None = Field(default=None, ge=1)  # keep exactly so many members
    prompts: str | tuple[str, ...] | None = None  # file or list to measure on; `None`: the run's
    n_prompts: int = Field(default=600, ge=0)  # at random; 0: all. One half selects, one certifies
    n_answers: int = Field(default=1, ge=1)  # answers of every policy to every prompt
    # price of a nat of KL in what users value, in reward units; `None` is `training.beta`. Policies
    # that were not optimised against this price, such as soups, may be worth more at a lower one
    beta: float | None = Field(default=None, gt=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)  # confidence of the certificate
    # how near to optimal every policy is for its own preference, which certifies against all
    # policies there could be: a number is assumed; `estimate` takes an upper bound from the
    # policies' own answers, which needs an `n_answers` of two or more and compares the policies
    # that were made otherwise; `None` compares those that were made
    slack: Annotated[float, Field(ge=0)] | Literal["estimate"] | None = "estimate"

    @model_validator(mode="after")
    def _is_affordable(self) -> "PortfolioSettings":
        if self.size is not None and self.size > self.max_policies:
            raise ValueError(
                f"size={self.size} members cannot come from max_policies={self.max_policies}"
            )
        return self

    def grid_tolerances(self, n_objectives: int) -> tuple[float, float]:
        """The grid's epsilon and delta; InvalidInputError where `max_policies` affords none."""
        return affordable_tolerances(
            n_objectives=n_objectives,
            max_calls=self.max_policies,
            epsilon=self.epsilon,
            delta=self.delta,
        )


_SOURCES = ("pairs", "folder", "rule", "function", "model", "judge")
_OF_PAIRS = (
    *("validation", "trunk", "trunk_settings", "judge_trunk", "group_by", "is_swapped"),
    *("whole_sentences", "on_topic"),
)
Prompts = str | tuple[str, ...]  # a file, or the prompts themselves


class RewardSource(Settings):
    """Where an objective's reward comes from: exactly one of the first keys, bar `validation`."""

    pairs: Path | None = None  # JSONL of preference pairs, on which a reward is trained
    validation: Path | None = None  # to measure on; by default half of the groups of `pairs`
    folder: Path | None = None  # of `palate rewards train`; calibrated here if it is not yet
    rule: dict[str, Any] | None = None  # see `palate.rewards.rules`: `{kind: length, low: 8, ...}`
    function: str | None = None  # `module:function`, as in `reward_funcs`
    model: str | None = None  # folder or hub id of a finished sequence classifier with one output
    judge: GradeSettings | None = None  # a language model that grades, see `palate.rewards.judge`
    trunk: str = "light"  # for pairs: as `palate.rewards.settings.trunk_settings` reads it
    trunk_settings: tuple[str, ...] = ()  # `key=value` of the trunk
    # trunk of the held-back reward, which judges; by default the same with the same settings.
    # Another one gets its own defaults, and does not share the first one's faults
    judge_trunk: str | None = None
    group_by: str | None = None  # for pairs: column whose equal values belong together
    is_swapped: bool = False  # for pairs: exchange chosen and rejected
    # for pairs: multiply rewards by the share of words in whole English sentences
    whole_sentences: bool = False
    # for pairs: rewards are 0 of answers without a content word of the prompt; judges do without
    on_topic: bool = False
    scale: ScaleKind = "logistic"  # how raw scores become numbers in [0, 1]

    @model_validator(mode="after")
    def _is_one_source(self) -> "RewardSource":
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}, not {given or 'none'}")
        for name in self.model_dump(exclude_defaults=True):
            if name in _OF_PAIRS and self.pairs is None:
                raise ValueError(f"{name} needs pairs, but the reward is of {given[0]}")
        if self.rule is not None and self.scale != "logistic":
            raise ValueError(f"a rule has its own scale; leave out scale, which is {self.scale}")
        return self


class OwnExpert(Settings):
    """How an objective's own expert is made; `None` is as all are."""

    adapter: AdapterSettings | None = None
    training: TrainSettings | None = None


class ObjectiveSettings(Settings):
    """Something a user can want, and its reward."""

    name: str  # short identifier
    description: str = ""  # one sentence for users
    instruction: str = ""  # the preference in words, as it is put to a model
    # another objective's name, or a sentence for the opposite; users' own words are read by it
    opposite: str = ""
    phrases: str = ""  # how users say that they want it, with semicolons between; for the same
    reward: RewardSource | None = None  # `None` for a Python function, given in `reward_funcs`
    expert: OwnExpert = OwnExpert()  # its own expert, where not as all are


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
            require_new_name(name, what="objective")
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> "RunSettings":
        for row in (OwnExpert(), *(objective.expert for objective in self.objectives)):
            adapter, training = row.adapter or self.adapter, row.training or self.training
            if training.method == "spectral" and adapter.target_modules != HEAD:
                raise ValueError(
                    f"the method spectral solves for the unembedding: set adapter.target_modules "
                    f"to {HEAD}, not {adapter.target_modules!r}"
                )
            for key in ("beta", "n_rounds", "n_threads"):
                own, common = getattr(training, key), getattr(self.training, key)
                if own != common:
                    raise ValueError(f"{key} is one for all experts: {common}, not {own}")
        return self

    def expert_job(self, anchor: Anchor) -> ExpertJob:
        """What determines the anchor's expert; an objective's own may be made otherwise."""
        experts = [row.expert for row in self.objectives if anchor.is_only(row.name)]
        own, seed = [*experts, OwnExpert()][0], derive_seed(self.seed, "experts")
        return ExpertJob(anchor, own.adapter or self.adapter, own.training or self.training, seed)

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives' names, in order."""
        return tuple(objective.name for objective in self.objectives)

    def named_objectives(self) -> tuple[Objective, ...]:
        """The objectives without their rewards."""
        return tuple(
            Objective(row.name, row.description, row.instruction, row.opposite, row.phrases)
            for row in self.objectives
        )


def stored_run(config: Mapping[str, Any], *, overrides: Sequence[str] = ()) -> RunSettings:
    """The run file that a library stores, also one of an earlier version, with overrides.

    Raises:
        InvalidInputError: the library was not built by a run file, or an override is wrong.
    """
    content = {key: value for key, value in present_keys(config).items() if value is not None}
    return load_settings(RunSettings, content, overrides=overrides)


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
    rows, places = read_rows(Path(source), what="prompts file")
    texts = (texts_of(row, place=place)[0] for row, place in zip(rows, places, strict=True))
    return tuple(dict.fromkeys(texts))


HELD_BACK_SHARE = 5  # one prompt in so many, at most, is held back


def run_prompts(settings: RunSettings) -> tuple[str, ...]:
    """The prompts of rollouts, rewards and experts, in order; raises as `read_prompts`."""
    held_back = set(calibration_prompts(settings))
    seen = [text for text in read_prompts(settings.prompts) if text not in held_back]
    return tuple(seen[: settings.rollouts.n_prompts or None])


def calibration_prompts(settings: RunSettings) -> tuple[str, ...]:
    """The prompts that methods are measured on; empty where there are too few.

    From `calibration.prompts` where given, else held back from the run's own, at most every fifth.

    Raises:
        InvalidInputError: the file is missing, or has fewer than `MIN_PROMPTS` prompts.
    """
    wanted = settings.calibration.n_prompts
    generator = generator_for(settings.seed, "calibration prompts")
    if settings.calibration.prompts is not None:
        own = read_prompts(settings.calibration.prompts)[:wanted]
        if len(own) < MIN_PROMPTS:
            raise InvalidInputError(
                f"calibration.prompts has {len(own)} prompts; give at least {MIN_PROMPTS}."
            )
        return own
    every = read_prompts(settings.prompts)
    n = min(wanted, len(every) // HELD_BACK_SHARE)
    if n < MIN_PROMPTS:
        return ()
    return tuple(every[k] for k in sorted(generator.permutation(len(every))[:n]))
