"""Rewards for a library: learned from pairs, from a folder, a rule, or a function.

A learned reward is calibrated on the base's own answers, once, and written into the library with
its card; from then on it is read from there. So an interrupted build scores with the same reward as
an uninterrupted one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palate.build.run_file import ObjectiveSettings, RewardSource
from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value, write_versioned
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.library.folder import Fill, LibraryFolder, hash_folder
from palate.library.rewards import HELD_BACK, RULE, RULE_KIND, RULE_VERSION
from palate.rewards.card import FILE as CARD
from palate.rewards.card import load_card
from palate.rewards.fit import fit_reward
from palate.rewards.functions import (
    RewardFunction,
    fit_function,
    function_at,
    identity_of,
    require_functions,
    stored_function,
)
from palate.rewards.held_out import HeldOut
from palate.rewards.pairs import PairSet, pair_set, read_pairs
from palate.rewards.reward import LearnedReward, calibrate, load_reward
from palate.rewards.rules import rule_from
from palate.rewards.scale import ScaleKind
from palate.rewards.settings import trunk_settings
from palate.training.rollouts import Rollout

MIN_HELD_BACK = 20  # groups of pairs that a second reward needs
VALIDATION_SHARE = 0.5  # of the groups, where no validation file is given: the half held back


def add_reward(
    library: LibraryFolder, objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int
) -> LibraryFolder:
    """The library with the objective's reward in it; one that is there already is kept.

    Args:
        library: Where to put it; it knows the functions of objectives that have one.
        objective: Name and source.
        answers: Of the base; scales are fitted on them.
        seed: Of the whole build.

    Raises:
        InvalidInputError: the pairs are empty or wrong, or a setting is, or a function does not
            give what it must.
        FormatError: the reward folder is another objective's or holds something else.
    """
    function = library.reward_funcs.get(objective.name)
    if function is not None:
        key = _function_key(function, objective, answers)
        if library.has_reward(objective.name, key=key):
            return library
        return library.with_reward(objective.name, _function(function, objective, answers), key=key)
    key = reward_key(objective, answers, seed=seed)
    if library.has_reward(objective.name, key=key):
        return library
    return library.with_reward(objective.name, _fill_of(objective, answers, seed=seed), key=key)


def held_out_of(library: LibraryFolder) -> dict[str, HeldOut]:
    """How well the library's learned rewards rank held-out pairs; rules are not among them."""
    folders = {name: library.reward_folder(name) for name in library.manifest.rewards}
    return {
        name: load_card(folder).held_out
        for name, folder in folders.items()
        if (folder / CARD).is_file()
    }


def reward_key(objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int) -> str:
    """Hash of everything that determines the objective's reward, of one that is no function.

    Raises:
        InvalidInputError: a file or folder of the source is missing or wrong.
    """
    source = _source_of(objective)
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


def functions_of(
    objectives: Sequence[ObjectiveSettings], *, given: Mapping[str, RewardFunction], folder: Path
) -> dict[str, RewardFunction]:
    """The functions of a build, by objective.

    Args:
        objectives: Of the run.
        given: In this call.
        folder: Of the library; functions of an earlier build that can be imported go on there.

    Raises:
        InvalidInputError: a function is of an unknown objective, cannot be imported or called, or
            belongs to an objective that has a reward in the run file.
    """
    require_functions(given, objectives=[objective.name for objective in objectives])
    found = dict(given)
    for objective in objectives:
        address = None if objective.reward is None else objective.reward.function
        if objective.reward is not None and objective.name in given:
            raise InvalidInputError(
                f"The objective {objective.name!r} has a reward in the run file and a function; "
                "leave one of them out."
            )
        if address is not None:
            found[objective.name] = function_at(address)
        elif objective.reward is None and objective.name not in found:
            stored = stored_function(folder / "rewards" / objective.name)
            found |= {} if stored is None else {objective.name: stored}
    return found


def require_sources(
    objectives: Sequence[ObjectiveSettings],
    *,
    seed: int,
    functions: Mapping[str, RewardFunction] | None = None,
) -> None:
    """Return when every source can be read, so that a wrong one is refused before work is done.

    Raises:
        InvalidInputError: a file, folder, rule or trunk setting is missing or wrong, or an
            objective has no source or two.
        FormatError: a reward folder holds something else.
    """
    for objective in objectives:
        if objective.name in (functions or {}):
            continue
        source = _source_of(objective)
        if source.rule is not None:
            rule_from(source.rule, objective=objective.name)
        elif source.folder is not None:
            load_reward(_require_folder(source.folder))
        else:
            trunk_settings(source.trunk, overrides=source.trunk_settings)
            human_pairs(objective, seed=seed)


def human_pairs(objective: ObjectiveSettings, *, seed: int) -> PairSet | None:
    """The training pairs of the objective's file, or `None` where it has none."""
    if objective.reward is None or objective.reward.pairs is None:
        return None
    return _read(objective, seed=seed)[0]


def _source_of(objective: ObjectiveSettings) -> RewardSource:
    if objective.reward is None:
        raise InvalidInputError(
            f"The objective {objective.name!r} has no reward; give it `reward` with pairs, folder, "
            f"rule or function in the run file, or a function in `palate.build(..., "
            f"reward_funcs={{{objective.name!r}: function}})`."
        )
    return objective.reward


def _function_key(
    function: RewardFunction, objective: ObjectiveSettings, answers: Sequence[Rollout]
) -> str:
    """Hash of the function's code and of the answers that its scale is fitted on."""
    texts = hash_value([[row.prompt, row.completion] for row in answers])
    return hash_value(
        {"objective": objective.name, "function": identity_of(function), "answers": texts}
    )


def _function(
    function: RewardFunction, objective: ObjectiveSettings, answers: Sequence[Rollout]
) -> Fill:
    return fit_function(
        function,
        objective=objective.name,
        prompts=[row.prompt for row in answers],
        answers=[row.completion for row in answers],
    ).save


def _fill_of(objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int) -> Fill:
    source = _source_of(objective)
    if source.rule is not None:
        rule_from(source.rule, objective=objective.name)  # refuses what is no rule
        content = {"objective": objective.name, "rule": source.rule}
        return lambda folder: write_versioned(
            folder / RULE, kind=RULE_KIND, version=RULE_VERSION, content=content
        )
    reward, held_back = _learned(objective, seed=seed)
    if reward.objective != objective.name:
        raise FormatError(
            f"The reward folder {str(source.folder)!r} is of the objective {reward.objective!r}, "
            f"but {objective.name!r} is asked for."
        )
    reward = _calibrated(reward, source.scale, answers)
    if held_back is None:
        return reward.save
    second = _calibrated(held_back, source.scale, answers)

    def fill(folder: Path) -> None:
        reward.save(folder)
        second.save(folder / HELD_BACK)

    return fill


def _calibrated(
    reward: LearnedReward, kind: ScaleKind, answers: Sequence[Rollout]
) -> LearnedReward:
    """The reward with its scale fitted on the base's answers; a scale it has is kept."""
    if reward.card.calibration is not None:
        return reward
    prompts, texts = [row.prompt for row in answers], [row.completion for row in answers]
    return calibrate(reward, prompts=prompts, answers=texts, kind=kind)


def _learned(
    objective: ObjectiveSettings, *, seed: int
) -> tuple[LearnedReward, LearnedReward | None]:
    """The reward that teaches, and one fitted on the pairs that it never saw.

    Each is measured on the other's pairs. A finished reward folder brings no pairs and a small
    validation set too few, so there is no second one.
    """
    source = _source_of(objective)
    if source.folder is not None:
        return load_reward(_require_folder(source.folder)), None
    train, validation = _read(objective, seed=seed)
    settings = trunk_settings(source.trunk, overrides=source.trunk_settings)
    sides = [("reward", train, validation)]
    if len(set(validation.groups)) >= MIN_HELD_BACK:
        sides.append(("held-back reward", validation, train))
    fitted: list[LearnedReward] = []
    for name, own, other in sides:
        with progress_of(f"{name} {objective.name}") as report:
            fitted.append(
                fit_reward(
                    own,
                    validation=other,
                    settings=settings,
                    seed=derive_seed(seed, name, objective.name),
                    on_step=report,
                )
            )
    return fitted[0], fitted[1] if len(fitted) > 1 else None


def _read(objective: ObjectiveSettings, *, seed: int) -> tuple[PairSet, PairSet]:
    """Training and validation pairs of the objective's files."""
    source = _source_of(objective)
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


def _require_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InvalidInputError(f"The reward folder {str(folder)!r} does not exist.")
    return folder
