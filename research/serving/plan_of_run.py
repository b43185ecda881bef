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

# target_modules of a run file to placements of the plan
PLACEMENTS = {"all-linear": "all", "lm_head": "head", "top_no_kv": "top_no_kv"}


def settings_of_run(run: Path, *, overrides: Sequence[str] = ()) -> PlanSettings:
    """The plan of a run file of `palate build`: its base, experts, rollouts and training.

    Args:
        run: The run file; nothing that it names is read.
        overrides: `key=value` of the plan, over what the run file says.

    Raises:
        InvalidInputError: the run file breaks a rule, or its base is not listed.
    """
    found = load_settings(RunSettings, run)
    if found.model_name_or_path not in HUB:
        raise InvalidInputError(
            f"The base {found.model_name_or_path!r} of {str(run)!r} is not listed; listed are "
            f"{', '.join(HUB)}."
        )
    modules = str(found.adapter.target_modules)
    if modules not in PLACEMENTS:
        raise InvalidInputError(
            f"The target_modules {modules} of {str(run)!r} are not planned; planned are "
            f"{', '.join(PLACEMENTS)}."
        )
    anchors = make_anchors(found.anchors, objectives=found.objective_names, seed=found.seed)
    values: dict[str, Any] = {
        "model": HUB[found.model_name_or_path],
        "bytes_per_number": 4 if found.dtype == "float32" else 2,
        "n_experts": len(anchors),
        "rank": found.adapter.r,
        "placement": PLACEMENTS[modules],
        "n_completions": found.rollouts.num_generations,
        "rollout_tokens": found.rollouts.max_completion_length,
        "n_steps": found.training.max_steps,
        "batch_pairs": found.training.per_device_train_batch_size
        * found.training.gradient_accumulation_steps,
        "accumulate": found.training.gradient_accumulation_steps,
    }
    if found.rollouts.n_prompts:
        values["n_prompts"] = found.rollouts.n_prompts
    return load_settings(
        PlanSettings, overrides=[*(f"{k}={v}" for k, v in values.items()), *overrides]
    )
