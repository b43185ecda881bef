"""The run file of the embedded world: six objectives, their annotators, one expert each."""

from palate.build.run_file import (
    AnnotatorSettings,
    ObjectiveSettings,
    RewardSource,
    RunSettings,
)
from palate.library.opening import WORLD
from palate.training.job import TrainSettings
from palate.training.placement import AdapterSettings
from palate.training.rollouts import RolloutSettings
from palate.world.objectives import OBJECTIVES
from palate.world.prompts import MAX_ANSWER_TOKENS


def world_run(*, seed: int = 0) -> RunSettings:
    """What `palate demo` builds, on the world's own base, prompts and annotators.

    Steps, learning rate, rank and number of pairs were chosen on training prompts that were kept
    out of the rollouts (docs/log.md), never on held-out ones.
    """
    return RunSettings(
        base=WORLD,
        prompts=WORLD,
        objectives=tuple(
            ObjectiveSettings(
                name=objective.name,
                description=objective.description,
                instruction=objective.instruction,
                reward=RewardSource(
                    annotators=AnnotatorSettings(n_pairs=4000),
                    trunk_settings=("ridge=1",),  # what cross-validation mostly chose
                ),
            )
            for objective in OBJECTIVES
        ),
        rollouts=RolloutSettings(max_tokens=MAX_ANSWER_TOKENS),
        adapter=AdapterSettings(rank=8),
        training=TrainSettings(beta=0.1, n_steps=50, learning_rate=1.5e-3),
        seed=seed,
    )
