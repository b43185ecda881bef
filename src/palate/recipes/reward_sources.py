"""Rewards for a library: learned from pairs or annotators, taken from a folder, or a rule.

A learned reward is calibrated on the base's own answers, once, and written into the library with
its card; from then on it is read from there. So an interrupted build scores with the same reward as
an uninterrupted one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value, read_versioned, write_versioned
from palate.core.protocols import Reward
from palate.core.seeds import derive_seed, generator_for
from palate.experts.library import Fill, Library, hash_folder
from palate.experts.rollouts import Rollout
from palate.recipes.progress import progress_of
from palate.recipes.run_file import ObjectiveSettings
from palate.rewards.card import FILE as CARD
from palate.rewards.card import load_card
from palate.rewards.fit import fit_reward
from palate.rewards.folder import load_reward
from palate.rewards.held_out import HeldOut
from palate.rewards.pairs import PairSet, pair_set, read_pairs
from palate.rewards.reward import LearnedReward, RewardVector, calibrate
from palate.rewards.rules import rule_from
from palate.rewards.settings import trunk_settings
from palate.world.annotators import annotate, pair_up, sample_annotators
from palate.world.objectives import OBJECTIVE_NAMES

RULE = "rule.json"
_RULE_KIND, _RULE_VERSION = "palate-rule", 1
VALIDATION_SHARE = 0.2  # of the groups, where no validation file is given


def add_reward(
    library: Library, objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int
) -> Library:
    """The library with the objective's reward in it; one that is there already is kept.

    Args:
        library: Where to put it.
        objective: Name and source.
        answers: Of the base; scales are fitted on them, annotators judge them.
        seed: Of the whole build.

    Raises:
        InvalidInputError: the pairs are empty or wrong, or a setting is.
        FormatError: the reward folder is another objective's or holds something else.
    """
    key = reward_key(objective, answers, seed=seed)
    if library.has_reward(objective.name, key=key):
        return library
    return library.with_reward(objective.name, _fill_of(objective, answers, seed=seed), key=key)


def library_rewards(library: Library) -> RewardVector:
    """The library's rewards, in the order of its objectives.

    Raises:
        FormatError: an objective has no reward, or its folder was changed.
    """
    missing = [
        name for name in library.manifest.objective_names if name not in library.manifest.rewards
    ]
    if missing:
        raise FormatError(
            f"The library {str(library.folder)!r} has no reward for {missing[0]!r}; build it again."
        )
    names = library.manifest.objective_names
    return RewardVector(tuple(_load(library.reward_folder(name), name) for name in names))


def held_out_of(library: Library) -> dict[str, HeldOut]:
    """How well the library's learned rewards rank held-out pairs; rules are not among them."""
    folders = {name: library.reward_folder(name) for name in library.manifest.rewards}
    return {
        name: load_card(folder).held_out
        for name, folder in folders.items()
        if (folder / CARD).is_file()
    }


def reward_key(objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int) -> str:
    """Hash of everything that determines the objective's reward.

    Raises:
        InvalidInputError: a file or folder of the source is missing or wrong.
    """
    source = objective.reward
    facts: dict[str, Any] = {
        "objective": objective.name,
        "source": source.model_dump(mode="json", exclude={"pairs", "validation", "folder"}),
    }
    if source.rule is None:
        facts["answers"] = hash_value([[row.prompt, row.completion] for row in answers])
        facts["seed"] = seed
    if source.pairs is not None:
        facts["pairs"] = [pairs.fingerprint for pairs in _read(objective, seed=seed)]
    if source.folder is not None:
        facts["folder"] = hash_folder(_require_folder(source.folder))
    return hash_value(facts)


def require_sources(objectives: Sequence[ObjectiveSettings], *, seed: int) -> None:
    """Return when every source can be read, so that a wrong one is refused before work is done.

    Raises:
        InvalidInputError: a file, folder, rule or trunk setting is missing or wrong.
        FormatError: a reward folder holds something else.
    """
    for objective in objectives:
        source = objective.reward
        if source.rule is not None:
            rule_from(source.rule, objective=objective.name)
        elif source.folder is not None:
            load_reward(_require_folder(source.folder))
        else:
            trunk_settings(source.trunk, overrides=source.trunk_settings)
            human_pairs(objective, seed=seed)


def human_pairs(objective: ObjectiveSettings, *, seed: int) -> PairSet | None:
    """The training pairs of the objective's file, or `None` where it has none."""
    return None if objective.reward.pairs is None else _read(objective, seed=seed)[0]


def _fill_of(objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int) -> Fill:
    source = objective.reward
    if source.rule is not None:
        rule_from(source.rule, objective=objective.name)  # refuses what is no rule
        content = {"objective": objective.name, "rule": source.rule}
        return lambda folder: write_versioned(
            folder / RULE, kind=_RULE_KIND, version=_RULE_VERSION, content=content
        )
    reward = _learned(objective, answers, seed=seed)
    if reward.objective != objective.name:
        raise FormatError(
            f"The reward folder {str(source.folder)!r} is of the objective {reward.objective!r}, "
            f"but {objective.name!r} is asked for."
        )
    if reward.card.calibration is None:
        prompts, texts = [row.prompt for row in answers], [row.completion for row in answers]
        reward = calibrate(reward, prompts=prompts, answers=texts, kind=source.scale)
    return reward.save


def _learned(
    objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int
) -> LearnedReward:
    source = objective.reward
    if source.folder is not None:
        return load_reward(_require_folder(source.folder))
    if source.pairs is not None:
        train, validation = _read(objective, seed=seed)
    else:
        train, validation = _annotated(objective, answers, seed=seed)
    with progress_of(f"reward {objective.name}") as report:
        return fit_reward(
            train,
            validation=validation,
            settings=trunk_settings(source.trunk, overrides=source.trunk_settings),
            seed=derive_seed(seed, "reward", objective.name),
            on_step=report,
        )


def _read(objective: ObjectiveSettings, *, seed: int) -> tuple[PairSet, PairSet]:
    """Training and validation pairs of the objective's files."""
    source = objective.reward
    files = [path for path in (source.pairs, source.validation) if path is not None]
    sets = [
        read_pairs(
            path,
            objective=objective.name,
            group_by=source.group_by,
            is_swapped=source.is_swapped,
        )
        for path in files
    ]
    return (sets[0], sets[1]) if len(sets) == 2 else split_groups(sets[0], seed=seed)


def _annotated(
    objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int
) -> tuple[PairSet, PairSet]:
    """Pairs of the base's answers, labelled by simulated annotators."""
    settings = objective.reward.annotators
    if settings is None or objective.name not in OBJECTIVE_NAMES:
        raise InvalidInputError(
            f"Annotators can judge only {', '.join(OBJECTIVE_NAMES)}, not {objective.name!r}; give "
            "pairs, a folder or a rule."
        )
    generator = generator_for(seed, "annotators", objective.name)
    texts: dict[str, list[str]] = {}
    for row in answers:
        texts.setdefault(row.prompt, []).append(row.completion)
    comparisons = pair_up(prompts=list(texts), answers=list(texts.values()))
    shown = generator.permutation(len(comparisons))[: settings.n_pairs]
    pairs = annotate(
        objective.name,
        [comparisons[index] for index in shown],
        annotators=sample_annotators(settings.n_annotators, generator=generator),
        generator=generator,
    )
    made = pair_set(pairs, objective=objective.name, source="simulated annotators")
    return split_groups(made, seed=seed)


def split_groups(pairs: PairSet, *, seed: int) -> tuple[PairSet, PairSet]:
    """Training and validation pairs; no group stands on both sides.

    Raises:
        InvalidInputError: there is one group only.
    """
    groups = sorted(set(pairs.groups))
    n_held_out = max(1, round(VALIDATION_SHARE * len(groups)))
    if n_held_out >= len(groups):
        raise InvalidInputError(
            f"The pairs of {pairs.source!r} are {len(groups)} group, which cannot be split; give "
            "validation pairs."
        )
    order = generator_for(seed, "split", pairs.objective).permutation(len(groups))
    held_out = {groups[index] for index in order[:n_held_out]}

    def side(*, is_held_out: bool) -> PairSet:
        rows = [
            (pair, group)
            for pair, group in zip(pairs.pairs, pairs.groups, strict=True)
            if (group in held_out) == is_held_out
        ]
        return pair_set(
            [pair for pair, _ in rows],
            objective=pairs.objective,
            groups=[group for _, group in rows],
            source=pairs.source,
        )

    return side(is_held_out=False), side(is_held_out=True)


def _load(folder: Path, objective: str) -> Reward:
    if not (folder / RULE).is_file():
        return load_reward(folder)
    content = read_versioned(folder / RULE, kind=_RULE_KIND, version=_RULE_VERSION)
    return rule_from(content["rule"], objective=objective)


def _require_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InvalidInputError(f"The reward folder {str(folder)!r} does not exist.")
    return folder
