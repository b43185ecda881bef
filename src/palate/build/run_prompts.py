"""Which prompts a run trains on, and which it holds back to measure methods."""

from palate.build.calibration import MIN_PROMPTS
from palate.build.run_file import RunSettings, read_prompts
from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for

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
