"""A library's rewards, loaded from its folder: for training and for judging.

A learned reward is fitted twice, on two halves of its pairs. The first trains experts and ranks
candidates; the second, in `rewards/NAME/held_back/`, judges the methods (`methods.json`). A rule
has no second half and judges itself.
"""

from pathlib import Path

from palate.core.errors import FormatError
from palate.core.files import read_versioned, reading
from palate.core.protocols import Reward
from palate.library.folder import LibraryFolder
from palate.rewards.functions import FILE as FUNCTION
from palate.rewards.functions import load_function
from palate.rewards.reward import RewardVector, load_reward
from palate.rewards.rules import rule_from

RULE = "rule.json"
RULE_KIND, RULE_VERSION = "palate-rule", 1
HELD_BACK = "held_back"


def library_rewards(files: LibraryFolder) -> RewardVector:
    """The rewards that trained the experts, in the order of the objectives.

    Raises:
        FormatError: an objective has no reward, its folder was changed, or it is a Python function
            that cannot be imported and was not given.
    """
    folders = _folders(files).items()
    return RewardVector(tuple(_read(files, folder, name) for name, folder in folders))


def held_back_rewards(files: LibraryFolder) -> tuple[RewardVector, tuple[str, ...]]:
    """Rewards fitted on the other half of the pairs, and the objectives that have none.

    An objective without one (a rule, a callable, a finished reward folder) is judged by the reward
    of training, which flatters answers that were trained or ranked by it.

    Raises:
        FormatError: an objective has no reward at all, or its folder was changed.
    """
    rewards: list[Reward] = []
    missing: list[str] = []
    for name, folder in _folders(files).items():
        has_second = (folder / HELD_BACK).is_dir()
        where = folder / HELD_BACK if has_second else folder
        rewards.append(_read(files, where, name))
        if not has_second:
            missing.append(name)
    return RewardVector(tuple(rewards)), tuple(missing)


def _folders(files: LibraryFolder) -> dict[str, Path]:
    names, finished = files.manifest.objective_names, files.manifest.rewards
    missing = [name for name in names if name not in finished]
    if missing or not names:
        what = repr(missing[0]) if missing else "any objective"
        raise FormatError(
            f"The library {str(files.folder)!r} has no reward for {what}; build it again."
        )
    return {name: files.reward_folder(name) for name in names}


def _read(files: LibraryFolder, folder: Path, objective: str) -> Reward:
    given = files.reward_funcs
    if (folder / FUNCTION).is_file():
        if files.is_foreign and objective not in given:
            raise FormatError(
                f"The reward of {objective!r} is a function that the library only names, and a "
                "library from the hub imports and asks nothing; give it to `Library.load(..., "
                f"reward_funcs={{{objective!r}: function}})`."
            )
        return load_function(folder, objective=objective, given=given)
    if not (folder / RULE).is_file():
        return load_reward(folder)
    content = read_versioned(folder / RULE, kind=RULE_KIND, version=RULE_VERSION)
    with reading(folder / RULE):
        return rule_from(content["rule"], objective=objective)
