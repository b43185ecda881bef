"""Judge the experts and two soups with reward models that taught nobody.

    python measure.py LIBRARY JUDGES HELD_OUT.jsonl OUT.md

JUDGES holds one reward folder per objective, trained on the judges' half of the pairs and
calibrated on the base's
answers. All plans answer the same held-out prompts with the same seeds; differences from the base
are paired and
their intervals resample prompts.
"""

import sys
from pathlib import Path

from palate.core.decision import Known
from palate.core.files import read_jsonl, write_text_atomic
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.library.generate import generate_all
from palate.library.library import Library
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.rewards.reward import RewardVector, load_reward

N_PER_PROMPT = 4
SOUPS = {
    "simple .5, polite .5": {"simple": 0.5, "polite": 0.5},
    "helpful .5, harmless .5": {"helpful": 0.5, "harmless": 0.5},
}


def entries_of(library: Library) -> dict[str, tuple[Known, str]]:
    """The base, every expert, two soups, each also told in words."""
    entries = {"base": (Known(), "base")}
    entries |= {
        f"expert {name}": (Known(coefficients={name: 1.0}), "soup") for name in library.bank.names
    }
    for name, preference in SOUPS.items():
        for method in ("prompt", "soup", "prompted-soup", "auto"):
            entries[f"{method}: {name}"] = (Known(preference=preference), method)
    return entries


def answers_of(library: Library, entry: tuple[Known, str], prompts: list[str]) -> list[str]:
    """Answers to every prompt, the same seeds for every entry."""
    known, method = entry
    places = [(prompt, copy) for prompt in prompts for copy in range(N_PER_PROMPT)]
    outputs = generate_all(
        library,
        [library.decide(prompt, known, method=method) for prompt, _ in places],
        sampling=SamplingParams(max_tokens=48),
        seeds=[derive_seed(7, prompt, copy) for prompt, copy in places],
    )
    return [output.text for output in outputs]


def main(library: Path, judges: Path, held_out: Path, out: Path) -> None:
    """Write the table."""
    opened = Library.load(library)
    objectives = opened.manifest.objective_names
    judge = RewardVector(tuple(load_reward(judges / name) for name in objectives))
    prompts = [row["prompt"] for row in read_jsonl(held_out, what="held-out prompts")]
    asked = [prompt for prompt in prompts for _ in range(N_PER_PROMPT)]
    scores = {
        name: judge.score(asked, answers_of(opened, entry, prompts))
        for name, entry in entries_of(opened).items()
    }
    lines = [f"| answers by | {' | '.join(objectives)} |", "|---" * (len(objectives) + 1) + "|"]
    base = scores.pop("base")
    lines.append("| base (mean) | " + " | ".join(f"{m:.3f}" for m in base.mean(axis=0)) + " |")
    for name, found in scores.items():
        cells = [
            _cell(
                bootstrap_interval(
                    found[:, column] - base[:, column],
                    clusters=asked,
                    generator=generator_for(0, name, column),
                )
            )
            for column in range(len(objectives))
        ]
        lines.append(f"| {name} (gain) | " + " | ".join(cells) + " |")
    note = (
        f"\nn = {len(asked)} answers to {len(prompts)} held-out prompts; 95 % bootstrap intervals "
        "by prompt; the judges were trained on other pairs than the teachers.\n"
    )
    write_text_atomic(out, "\n".join(lines) + "\n" + note)


def _cell(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:5]))
