"""A run file of `palate build` as settings of a plan: base, experts, rollouts, training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.build.run_file import RunSettings
from palate.core.errors import InvalidInputError
from palate.core.settings import load_settings
from palate.training.anchors import make_anchors
from research.serving.model_sizes import HUB
from research.serving.plan_counts import PlanSettings


def settings_of_run(run: Path, *, overrides: Sequence[str] = ()) -> PlanSettings:
    """The plan of a run file of `palate build`: its base, experts, rollouts and training.

    Args:
        run: The run file; nothing that it names is read.
        overrides: `key=value` of the plan, over what the run file says.

    Raises:
        InvalidInputError: the run file breaks a rule, or its base is not listed.
    """
    found = load_settings(RunSettings, run)
    if found.base not in HUB:
        raise InvalidInputError(
            f"The base {found.base!r} of {str(run)!r} is not listed; listed are {', '.join(HUB)}."
        )
    anchors = make_anchors(found.anchors, objectives=found.objective_names, seed=found.seed)
    values: dict[str, Any] = {
        "model": HUB[found.base],
        "bytes_per_number": 4 if found.dtype == "float32" else 2,
        "n_experts": len(anchors),
        "rank": found.adapter.rank,
        "placement": found.adapter.placement,
        "n_completions": found.rollouts.n_completions,
        "rollout_tokens": found.rollouts.max_tokens,
        "n_steps": found.training.n_steps,
        "batch_pairs": found.training.batch_pairs,
        "accumulate": found.training.accumulate,
    }
    if found.rollouts.n_prompts:
        values["n_prompts"] = found.rollouts.n_prompts
    return load_settings(
        PlanSettings, overrides=[*(f"{k}={v}" for k, v in values.items()), *overrides]
    )
