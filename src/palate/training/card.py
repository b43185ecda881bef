"""Model cards of experts: what it is, for which taste, how it was made, what it does not say."""

from typing import Any

from palate.core.types import BaseRecord
from palate.training.job import ExpertJob

CARD = "README.md"

_CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags:
- palate
- lora
- {method}
---

# Expert `{name}`

A LoRA adapter of `{base}`{revision}, one of a library of experts that `palate` blends, routes and
mixes per user.

| | |
|---|---|
| wants | {wants} |
| method | {method}, {max_steps} steps of {step_size} {unit}, learning rate {learning_rate:g} |
| KL price (beta) | {beta:g} reward units per nat |
| adapter | rank {r}, lora_alpha {lora_alpha:g}{rslora}, target modules `{target_modules}` |
| seed | {seed} |
| mean tilt on rollouts | {tilt_mean:.4f} reward units (sd {tilt_sd:.4f}, {n_tilts} answers) |
| base, SHA-256 | `{fingerprint}` |
| made with | {versions} |

The tilt is `beta * log(expert / base)` of a whole answer. A mean far below zero says that the
expert has moved far from the base.

## Limits

Trained on reward models, which err: an expert can raise its reward by answers that users would not
prefer. It is meant for the base named above and no other. Nothing here measures safety.
"""


def render_card(
    job: ExpertJob, *, base: BaseRecord, tilt: tuple[float, float, int], versions: dict[str, str]
) -> str:
    """The card as Markdown with the Hub's front matter.

    Args:
        job: What the expert was trained for, and how.
        base: The base model.
        tilt: Mean and standard deviation of the tilt in reward units, and number of answers.
        versions: Package to version.
    """
    training, modules = job.training, job.adapter.target_modules
    fields: dict[str, Any] = {
        "base": base.path,
        "revision": f" at revision `{base.revision}`" if base.revision else "",
        "name": job.anchor.name,
        "wants": _wants(job),
        "r": job.adapter.r,
        "step_size": training.per_device_train_batch_size * training.gradient_accumulation_steps,
        "unit": "answers" if training.method == "grpo" else "pairs",
        "lora_alpha": job.adapter.lora_alpha,
        "rslora": " (rsLoRA)" if job.adapter.use_rslora else "",
        "target_modules": modules if isinstance(modules, str) else ", ".join(modules),
        "seed": job.seed,
        "tilt_mean": tilt[0],
        "tilt_sd": tilt[1],
        "n_tilts": tilt[2],
        "fingerprint": base.fingerprint,
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    return _CARD.format(**training.model_dump(), **fields)


def _wants(job: ExpertJob) -> str:
    parts = [
        f"{'less' if share < 0 else 'more'} {name} ({abs(share):.3g})"
        for name, share in zip(job.anchor.objectives, job.anchor.direction, strict=True)
        if share != 0.0
    ]
    return ", ".join(parts)
