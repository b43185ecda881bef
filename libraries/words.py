"""Is a user served better by words read as a belief than by the same words as a prompt?

    python -m libraries.words LIBRARY --prompts questions.jsonl --out reports/NAME

Every sentence of `research/preferences/sentences.jsonl` that asks for something is a user; the
utility of an answer is the mean, over the axes that the sentence asks for, of the judges' scores in
the direction that was written by hand. Judges are those of `evaluate.py`: none taught an expert.
The methods know the sentence alone:

    prompt           the sentence as a system prompt
    soup             the coefficients of the belief that is read from it, and no prompt
    prompted-soup    both
    auto             what `palate` serves for the sentence alone
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from libraries.evaluate import Answers, held_out, judged
from palate import Library, SamplingParams
from palate.core.files import read_jsonl, write_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.metrics.intervals import bootstrap_interval

SENTENCES = Path(__file__).parents[1] / "research/preferences/sentences.jsonl"
AXES = {
    "simple": ("elementary", "expert"),
    "short": ("concise", "informative"),
    "warm": ("friendly", "unfriendly"),
}
METHODS = ("prompt", "soup", "prompted-soup", "auto")
PAIRS = (("prompted-soup", "prompt"), ("soup", "prompt"), ("auto", "prompt"))


def main() -> None:
    """Answer, judge, and write `words.json` and `words.md`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library")
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n-prompts", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=96)
    options = parser.parse_args()
    library = Library.load(options.library, dtype="bfloat16")
    prompts = held_out(options.prompts, options.n_prompts)
    rows = [row for row in read_jsonl(SENTENCES, what="sentences") if any(row[a] for a in AXES)]
    sampling = SamplingParams(library.sampling.temperature, max_tokens=options.max_tokens)
    base = _texts(library, prompts, sampling, seed=0, method="base")
    gains: dict[str, list[Float[ndarray, " prompts"]]] = {name: [] for name in METHODS}
    with progress_of("sentences") as report:
        for done, row in enumerate(rows, start=1):
            belief = library.describe(row["text"]).belief(library.soups.prior())
            reference = utility(library, prompts, base, row)
            for name in METHODS:
                known: dict[str, Any] = {"method": name}
                if name in ("soup", "prompted-soup"):
                    known["belief"] = belief
                if name != "soup":
                    known["instruction"] = row["text"]
                texts = _texts(library, prompts, sampling, seed=done, **known)
                gains[name].append(utility(library, prompts, texts, row) - reference)
            report(done, len(rows))
    table = {name: np.array(own) for name, own in gains.items()}
    facts = {"n_sentences": len(rows), "n_prompts": len(prompts), "rows": summary(table, rows)}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "words.json", facts)
    text = as_markdown(facts)
    write_text_atomic(options.out / "words.md", text)
    print(text)  # noqa: T201


def utility(
    library: Library, prompts: list[str], texts: list[str], row: dict[str, Any]
) -> Float[ndarray, " prompts"]:
    """`[prompts]`: judges' scores in the direction that the sentence asks for, mean over axes."""
    scores = judged(library, Answers(prompts, texts), {"method": "base"}, n_first=0)
    wanted: list[ndarray] = []
    for axis, (one, other) in AXES.items():
        for name, sign in ((one, row[axis]), (other, -row[axis])):
            own = [
                scores[f"{kind} {name}"]
                for kind in ("form", "meaning")
                if f"{kind} {name}" in scores
            ]
            wanted += [sign * np.mean(own, axis=0)] if sign else []
    n_axes = sum(1 for axis in AXES if row[axis])
    return np.sum(wanted, axis=0) / (2 * n_axes)


def summary(
    table: dict[str, Float[ndarray, "sentences prompts"]], rows: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Gains over the base and differences of methods, with 95 % intervals over sentences."""
    kinds = np.array([row["kind"] for row in rows])
    compared = {name: table[name].mean(axis=1) for name in METHODS}
    compared |= {f"{a} over {b}": compared[a] - compared[b] for a, b in PAIRS}
    result: dict[str, dict[str, float]] = {}
    for name, each in list(compared.items()):
        for kind in ("all", "instruction", "profile", "vague"):
            own = each if kind == "all" else each[kinds == kind]
            interval = bootstrap_interval(own, generator=generator_for(0, "words", name, kind))
            result[f"{name}, {kind}"] = {
                "mean": float(own.mean()),
                "low": float(interval.low),
                "high": float(interval.high),
                "n": len(own),
            }
    return result


def as_markdown(facts: dict[str, Any]) -> str:
    """The table."""
    lines = [
        f"{facts['n_sentences']} sentences as users, {facts['n_prompts']} held-out prompts each, "
        "one answer; gains in utility over the base, 95 % intervals over sentences.",
        "",
        "| | n | gain |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['n']} | {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] |"
        for name, row in facts["rows"].items()
    ]
    return "\n".join(lines) + "\n"


def _texts(
    library: Library, prompts: list[str], sampling: SamplingParams, *, seed: int, **known: Any
) -> list[str]:
    outputs: Any = library.generate(prompts, sampling=sampling, seed=seed, **known)
    return [output.text.strip() for output in outputs]


if __name__ == "__main__":
    main()
