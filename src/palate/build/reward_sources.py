"""Rewards for a library: learned from pairs, or a folder, rule, function, finished model or judge.

A learned reward is calibrated on the base's own answers, once, and written into the library with
its card; from then on it is read from there, so an interrupted build scores with the same reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from palate.rewards.functions import (
    RewardFunction,
    fit_function,
    function_at,
    function_from,
    identity_of,
    require_functions,
    stored_function,
)
from palate.rewards.held_out import HeldOut
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet, read_pairs
from palate.rewards.reward import LearnedReward, calibrate, load_reward
from palate.rewards.rules import rule_from
from palate.rewards.scale import ScaleKind
from palate.rewards.settings import LightSettings, TrunkSettings, trunk_settings
from palate.training.rollouts import Rollout

MIN_HELD_BACK = 20  # groups of pairs that a second reward needs
# unset, they leave earlier keys as they were
_LATER_KEYS = ("judge_trunk", "model", "judge", "whole_sentences", "on_topic")
VALIDATION_SHARE = 0.5  # of the groups, where no validation file is given: the half held back


def add_reward(
    library: LibraryFolder, objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int
) -> LibraryFolder:
    """The library with the objective's reward, which is made unless it is there.

    The library knows the objectives' functions. Scales are fitted on the base's answers.

    Raises:
        InvalidInputError: the pairs are empty or wrong, or a setting is, or a function does not
            give one number for each answer.
        FormatError: the reward folder is another objective's or holds something else.
    """
    name, source = objective.name, objective.reward
    function, kind = library.reward_funcs.get(name), "logistic" if source is None else source.scale
    if function is None:
        key = _key(objective, answers, seed=seed)
    else:
        facts = {"objective": name, "function": identity_of(function), "answers": _hash(answers)}
        key = hash_value(facts | ({} if kind == "logistic" else {"scale": kind}))
    if library.has_reward(name, key=key):
        return library
    if function is None and source is not None and _is_sourced(source):
        function = function_from(_plain_source(source))
    if function is None:
        fill = _fill_of(objective, answers, seed=seed)
    else:
        prompts, texts = [row.prompt for row in answers], [row.completion for row in answers]
        fitted = fit_function(function, objective=name, prompts=prompts, answers=texts, kind=kind)
        fill = fitted.save
    return library.with_reward(name, fill, key=key)


def held_out_of(library: LibraryFolder) -> dict[str, HeldOut]:
    """How well the library's learned rewards rank held-out pairs; rules are not among them."""
    folders = {name: library.reward_folder(name) for name in library.manifest.rewards}
    return {
        name: load_card(folder).held_out
        for name, folder in folders.items()
        if (folder / CARD).is_file()
    }


def _hash(answers: Sequence[Rollout]) -> str:
    return hash_value([[row.prompt, row.completion] for row in answers])


def _key(objective: ObjectiveSettings, answers: Sequence[Rollout], *, seed: int) -> str:
    """Hash of everything that determines a reward that is no function."""
    source = _source_of(objective)
    left_out = {"pairs", "validation", "folder"}  # known by their content
    left_out |= {name for name in _LATER_KEYS if getattr(source, name) in (None, False)}
    facts: dict[str, Any] = {
        "objective": objective.name,
        "source": source.model_dump(mode="json", exclude=left_out),
    }
    if source.judge is not None:
        facts["source"]["judge"] = source.judge.fingerprint  # address and budget change nothing
    if source.rule is None:
        facts["answers"] = _hash(answers)
        facts["seed"] = seed
    if source.pairs is not None:
        facts["pairs"] = [pairs.fingerprint for pairs in _read(objective)]
        models = [one for one in _settings_of(source) if not isinstance(one, LightSettings)]
        trunks = [Path(name) for name in dict.fromkeys(one.trunk for one in models)]
        local = [hash_folder(trunk) for trunk in trunks if trunk.is_dir()]
        facts |= {"trunks": local} if local else {}
    if source.folder is not None:
        facts["folder"] = hash_folder(source.folder)
    if source.model is not None and Path(source.model).is_dir():
        facts["folder"] = hash_folder(Path(source.model))
    return hash_value(facts)


def functions_of(
    objectives: Sequence[ObjectiveSettings], *, given: Mapping[str, RewardFunction], folder: Path
) -> dict[str, RewardFunction]:
    """The functions of a build, by objective.

    Those that an earlier build stored in the library's folder are imported.

    Raises:
        InvalidInputError: a function is of an unknown objective, cannot be imported or called, or
            belongs to an objective that has a reward in the run file.
    """
    require_functions(given, objectives=[objective.name for objective in objectives])
    functions = dict(given)
    for objective in objectives:
        address = None if objective.reward is None else objective.reward.function
        if objective.reward is not None and objective.name in given:
            raise InvalidInputError(
                f"The objective {objective.name!r} has a reward in the run file and a function; "
                "leave one of them out."
            )
        if address is not None:
            functions[objective.name] = function_at(address)
        elif objective.reward is None and objective.name not in functions:
            stored = stored_function(folder / "rewards" / objective.name)
            functions |= {} if stored is None else {objective.name: stored}
    return functions


def require_sources(
    objectives: Sequence[ObjectiveSettings], *, functions: Mapping[str, RewardFunction]
) -> None:
    """Refuse sources that cannot be read, before any work is done.

    Raises:
        InvalidInputError: a file, folder, rule or trunk setting is missing or wrong, or an
            objective has no source or two.
        FormatError: a reward folder holds something else.
    """
    for objective in objectives:
        if objective.name in functions:
            continue
        source = _source_of(objective)
        if source.rule is not None:
            rule_from(source.rule, objective=objective.name)
        elif source.folder is not None:
            load_reward(source.folder)
        elif _is_sourced(source):
            function_from(_plain_source(source))
        else:
            _settings_of(source)
            human_pairs(objective)


def human_pairs(objective: ObjectiveSettings) -> PairSet | None:
    """The training pairs of the objective's file, or `None` where it has none."""
    if objective.reward is None or objective.reward.pairs is None:
        return None
    return _read(objective)[0]


def _source_of(objective: ObjectiveSettings) -> RewardSource:
    if objective.reward is None:
        raise InvalidInputError(
            f"The objective {objective.name!r} has no reward; give it `reward` with pairs, folder, "
            f"rule, function, model or judge in the run file, or a function in `palate.build(..., "
            f"reward_funcs={{{objective.name!r}: function}})`."
        )
    return objective.reward


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


def _is_sourced(source: RewardSource) -> bool:
    return source.model is not None or source.judge is not None


def _plain_source(source: RewardSource) -> dict[str, Any]:
    return source.model_dump(mode="json", include={"model", "judge"}, exclude_none=True)


def _calibrated(
    reward: LearnedReward, kind: ScaleKind, answers: Sequence[Rollout]
) -> LearnedReward:
    """The reward with its own scale, or one fitted on the base's answers."""
    if reward.card.calibration is not None:
        return reward
    prompts, texts = [row.prompt for row in answers], [row.completion for row in answers]
    return calibrate(reward, prompts=prompts, answers=texts, kind=kind)


def _learned(
    objective: ObjectiveSettings, *, seed: int
) -> tuple[LearnedReward, LearnedReward | None]:
    """The reward that teaches, and one fitted on the other's held-out pairs if they suffice."""
    source = _source_of(objective)
    if source.folder is not None:
        return load_reward(source.folder), None
    train, validation = _read(objective)
    settings, judge_settings = _settings_of(source)
    sides = [("reward", settings, train, validation)]
    if len(set(validation.groups)) >= MIN_HELD_BACK:
        sides.append(("held-back reward", judge_settings, validation, train))
    fitted: list[LearnedReward] = []
    for name, options, own, other in sides:
        own_seed = derive_seed(seed, name, objective.name)
        with progress_of(f"{name} {objective.name}") as report:
            one = fit_reward(own, validation=other, settings=options, seed=own_seed, on_step=report)
            is_topical = source.on_topic and not fitted  # not the judge
            update = {"whole_sentences": source.whole_sentences, "on_topic": is_topical}
            fitted.append(replace(one, card=one.card.model_copy(update=update)))
    return fitted[0], fitted[1] if len(fitted) > 1 else None


def _settings_of(source: RewardSource) -> tuple[TrunkSettings, TrunkSettings]:
    """Settings of the reward that teaches and of the one held back."""
    settings = trunk_settings(source.trunk, overrides=source.trunk_settings)
    if source.judge_trunk in (None, source.trunk):
        return settings, settings
    return settings, trunk_settings(source.judge_trunk)


def _read(objective: ObjectiveSettings) -> tuple[PairSet, PairSet]:
    """Training and validation pairs of the objective's files."""
    source = _source_of(objective)
    files = [path for path in (source.pairs, source.validation) if path is not None]
    group_by, is_swapped = source.group_by, source.is_swapped
    sets = [
        read_pairs(path, objective=objective.name, group_by=group_by, is_swapped=is_swapped)
        for path in files
    ]
    return (sets[0], sets[1]) if len(sets) == 2 else split_groups(sets[0])


def split_groups(pairs: PairSet) -> tuple[PairSet, PairSet]:
    """Training and validation pairs by whole groups; InvalidInputError where there is only one.

    The opposite, whose pairs are these swapped, and other seeds hold back the same.
    """
    groups = sorted(set(pairs.groups))
    n_held_out = max(1, round(VALIDATION_SHARE * len(groups)))
    if n_held_out >= len(groups):
        raise InvalidInputError(
            f"The pairs of {pairs.source!r} are {len(groups)} group, which cannot be split; give "
            "validation pairs."
        )
    order = generator_for(0, "split").permutation(len(groups))
    held_out = {groups[index] for index in order[:n_held_out]}

    def side(*, is_held_out: bool) -> PairSet:
        places = [k for k, group in enumerate(pairs.groups) if (group in held_out) == is_held_out]
        rows = tuple(pairs.pairs[k] for k in places)
        return replace(pairs, pairs=rows, groups=tuple(pairs.groups[k] for k in places))

    return side(is_held_out=False), side(is_held_out=True)
