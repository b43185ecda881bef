"""Which prompts a run trains on, and which it holds back to measure methods."""

from pathlib import Path

from palate.build.calibration import MIN_PROMPTS
from palate.build.run_file import RunSettings, read_prompts
from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.library.opening import WORLD
from palate.world.prompts import further_prompts, train_prompts

HELD_BACK_SHARE = 5  # one prompt in so many, at most, is held back


def run_prompts(settings: RunSettings) -> tuple[str, ...]:
    """The prompts that rollouts, rewards and experts see, in the order of the file.

    Raises:
        InvalidInputError: the file is missing or empty.
    """
    if settings.prompts == WORLD:
        return train_prompts()[: settings.rollouts.n_prompts or None]
    held_back = set(calibration_prompts(settings))
    seen = [text for text in read_prompts(Path(settings.prompts)) if text not in held_back]
    return tuple(seen[: settings.rollouts.n_prompts or None])


def calibration_prompts(settings: RunSettings) -> tuple[str, ...]:
    """The prompts that methods are measured on; empty where there are too few.

    From the file that `calibration.prompts` names; for the small world, further prompts about its
    training topics; else held back from the run's own, at most every fifth.

    Raises:
        InvalidInputError: the file is missing, or has fewer than `MIN_PROMPTS` prompts.
    """
    wanted = settings.calibration.n_prompts
    generator = generator_for(settings.seed, "calibration prompts")
    if settings.calibration.prompts is not None:
        own = read_prompts(Path(settings.calibration.prompts))[:wanted]
        if len(own) < MIN_PROMPTS:
            raise InvalidInputError(
                f"The file {settings.calibration.prompts!r} of calibration.prompts has {len(own)} "
                f"prompts; give at least {MIN_PROMPTS}."
            )
        return own
    if settings.prompts == WORLD:
        pool = further_prompts()
        return tuple(pool[k] for k in sorted(generator.permutation(len(pool))[:wanted]))
    every = read_prompts(Path(settings.prompts))
    n = min(wanted, len(every) // HELD_BACK_SHARE)
    if n < MIN_PROMPTS:
        return ()
    return tuple(every[k] for k in sorted(generator.permutation(len(every))[:n]))
