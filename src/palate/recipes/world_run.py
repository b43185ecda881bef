"""The run file of the embedded world: six objectives, their annotators, one expert each."""

from palate.recipes.opened import WORLD
from palate.recipes.run_file import (
    AnnotatorSettings,
    ObjectiveSettings,
    RewardSource,
    RunSettings,
)
from palate.world.objectives import OBJECTIVES


def world_run(*, seed: int = 0) -> RunSettings:
    """What `palate demo` builds: every default, on the world's own base, prompts and annotators."""
    return RunSettings(
        base=WORLD,
        prompts=WORLD,
        objectives=tuple(
            ObjectiveSettings(
                name=objective.name,
                description=objective.description,
                instruction=objective.instruction,
                reward=RewardSource(annotators=AnnotatorSettings()),
            )
            for objective in OBJECTIVES
        ),
        seed=seed,
    )
