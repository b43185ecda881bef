"""Prompts and preference pairs of `libraries/smollm2-135m.yaml`, from public data sets.

    python libraries/prepare.py --data DATA --out out/smollm2-data

DATA is a folder with, as JSON lines with the columns `prompt`, `chosen`, `rejected` where they are
pairs:

    preferences/helpful.train.jsonl        first turns of anthropics/hh-rlhf (MIT)
    preferences/simple.train.jsonl         OneStopEnglish: teachers' rewrites (CC BY-SA 4.0)
    preferences/polite.train.jsonl         rasbt/LLMs-from-scratch, synthetic (Apache-2.0)
    prompts/self_instruct_seed/*.jsonl     yizhongw/self-instruct, human-written tasks (Apache-2.0)
    prompts/gsm8k/*.jsonl                  openai/grade-school-math, column `question` (MIT)

Koala and MT-Bench are never read here: they are kept for evaluation.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from palate.core.seeds import generator_for

N_HELPFUL, N_TASKS, N_SCHOOL = 310, 90, 50
N_PORTFOLIO = 96  # first turns on which the portfolio is measured, never trained on
N_HELD_BACK, N_FURTHER = 24, 48  # prompts that methods are measured on: of the others, first turns
SHORTEST, LONGEST = 12, 200  # characters of a prompt


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a JSONL file, or of all such files in a folder."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    lines = [line for file in files for line in file.read_text().split("\n") if line]
    return [json.loads(line) for line in lines]


def first_turns(rows: list[dict[str, str]]) -> list[str]:
    """The first message of each conversation."""
    return [row["prompt"].split("\n\nAssistant:")[0].removeprefix("Human:").strip() for row in rows]


def sample(texts: list[str], n: int, *, seed: int) -> list[str]:
    """So many different texts of a fit length."""
    fit = sorted({text for text in texts if SHORTEST <= len(text) <= LONGEST})
    places = np.random.default_rng(seed).permutation(len(fit))[:n]
    return [fit[place] for place in places.tolist()]


def main() -> None:
    """Write `prompts.jsonl`, `calibration.jsonl`, `portfolio.jsonl` and two files of pairs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data, out = options.data, options.out
    turns = first_turns(rows_of(data / "preferences/helpful.train.jsonl"))
    turns = sample(turns, N_HELPFUL + N_PORTFOLIO + N_FURTHER, seed=0)
    tasks = [row["prompt"] for row in rows_of(data / "prompts/self_instruct_seed")]
    school = [row["question"] for row in rows_of(data / "prompts/gsm8k")]
    prompts = turns[:N_HELPFUL]
    prompts += sample(tasks, N_TASKS, seed=1) + sample(school, N_SCHOOL, seed=2)
    prompts = [prompts[k] for k in np.random.default_rng(3).permutation(len(prompts)).tolist()]
    order = generator_for(0, "calibration prompts").permutation(len(prompts))
    held_back = sorted(order[:N_HELD_BACK].tolist())
    parts = {
        "prompts": [text for k, text in enumerate(prompts) if k not in held_back],
        "calibration": [prompts[k] for k in held_back] + turns[N_HELPFUL + N_PORTFOLIO :],
        "portfolio": turns[N_HELPFUL : N_HELPFUL + N_PORTFOLIO],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in parts.items():
        write(out / f"{name}.jsonl", [{"prompt": text} for text in texts])
    for name in ("simple", "polite"):
        pairs = [
            {key: row[key] for key in ("prompt", "chosen", "rejected")}
            for row in rows_of(data / f"preferences/{name}.train.jsonl")
            if row["chosen"] != row["rejected"]
        ]
        write(out / f"{name}.jsonl", pairs)
    print(f"{len(parts['prompts'])} prompts and two files of pairs in {out}")  # noqa: T201


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
