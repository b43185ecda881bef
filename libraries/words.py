"""Is a user served better by words read as a belief than by the same words as a prompt?

    python -m libraries.words LIBRARY --prompts questions.jsonl --out reports/NAME

Every sentence of `research/preferences/sentences.jsonl` that asks for something is a user; the
utility of an answer is the mean, over the axes that the sentence asks for, of the judges' scores in
the direction that was written by hand. Judges are those of `evaluate.py`.
The methods know the sentence alone:

    prompt           the sentence as a system prompt
    soup             the coefficients of the belief that is read from it, and no prompt
    prompted-soup    both
    auto             what `palate` serves for the sentence alone
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from libraries.evaluate import Answers, held_out, judged
from palate import Known, Library, SamplingParams
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
JUDGES = ("form ", "meaning ")  # how their names begin
BLOCK = 12  # sentences that are answered together
BASE = "base"  # which answers every sentence anew, as the methods do
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
    sampling = SamplingParams(
        temperature=library.sampling.temperature, max_tokens=options.max_tokens
    )
    answered = Answered(library, prompts, sampling)
    worth: dict[str, list[Float[ndarray, " prompts"]]] = {name: [] for name in (BASE, *METHODS)}
    with progress_of("sentences") as report:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            for name in worth:
                users = [
                    (known_of(library, row["text"], name), start + place)
                    for place, row in enumerate(block, start=1)
                ]
                scores = answered.scores(name, users)
                worth[name] += [utility(own, row) for own, row in zip(scores, block, strict=True)]
            report(start + len(block), len(rows))
    table = {name: np.subtract(worth[name], worth[BASE]) for name in METHODS}
    facts = {
        "n_sentences": len(rows),
        "n_prompts": len(prompts),
        "prompts": [path.name for path in options.prompts],
        "rows": summary(table, rows),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "words.json", facts)
    text = as_markdown(facts)
    write_text_atomic(options.out / "words.md", text)
    print(text)  # noqa: T201


def known_of(library: Library, text: str, method: str) -> Known:
    """What a method knows of the user who wrote the text."""
    if method == BASE:
        return Known()
    is_read = method in ("soup", "prompted-soup")
    return Known(
        belief=library.describe(text).belief(library.soups.prior()) if is_read else None,
        instruction=None if method == "soup" else text,
    )


@dataclass(frozen=True, eq=False)
class Answered:
    """A library that answers the prompts as users want, and what the judges say of it."""

    library: Library
    prompts: list[str]
    sampling: SamplingParams

    def scores(
        self, method: str, users: list[tuple[Known, int]]
    ) -> list[dict[str, Float[ndarray, " prompts"]]]:
        """By judge, `[prompts]`, for each user and seed of one method; all in one batch."""
        decisions = [
            self.library.decide(prompt, known, method=method)
            for known, _ in users
            for prompt in self.prompts
        ]
        seeds = [seed for _, seed in users for _ in self.prompts]
        outputs = self.library.execute(decisions, seeds=seeds, sampling=self.sampling)
        texts = [output.text.strip() for output in outputs]
        asked = self.prompts * len(users)
        scores = judged(self.library, Answers(asked, texts), {"method": "base"}, n_first=0)
        wanted = {name: own for name, own in scores.items() if name.startswith(JUDGES)}
        by_user = {name: np.split(np.asarray(own), len(users)) for name, own in wanted.items()}
        return [{name: own[place] for name, own in by_user.items()} for place in range(len(users))]


def utility(
    scores: dict[str, Float[ndarray, " prompts"]], row: dict[str, Any]
) -> Float[ndarray, " prompts"]:
    """`[prompts]`: judges' scores in the direction that the sentence asks for, mean over axes."""
    wanted: list[ndarray] = []
    for axis, (one, other) in AXES.items():
        for name, sign in ((one, row[axis]), (other, -row[axis])):
            own = [scores[f"{kind}{name}"] for kind in JUDGES if f"{kind}{name}" in scores]
            wanted += [sign * np.mean(own, axis=0)] if sign else []
    n_axes = sum(1 for axis in AXES if row[axis])
    return np.sum(wanted, axis=0) / (2 * n_axes)


def summary(
    table: dict[str, Float[ndarray, "sentences prompts"]], rows: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Gains over the base and differences of methods, with 95 % intervals.

    They are clustered by sentence and prompt: other prompts would move all sentences together.
    """
    kinds = np.array([row["kind"] for row in rows])
    compared = {name: table[name] for name in METHODS}
    compared |= {f"{a} over {b}": compared[a] - compared[b] for a, b in PAIRS}
    result: dict[str, dict[str, float]] = {}
    for name, each in list(compared.items()):
        for kind in ("all", "instruction", "profile", "vague"):
            own = each if kind == "all" else each[kinds == kind]
            sentences, prompts = np.indices(own.shape)
            interval = bootstrap_interval(
                own.ravel(),
                generator=generator_for(0, "words", name, kind),
                clusters=sentences.ravel(),
                second_clusters=prompts.ravel(),
            )
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
        f"{facts['n_sentences']} sentences as users, {facts['n_prompts']} prompts of "
        f"{', '.join(facts['prompts'])} each, one answer; gains in utility over the base, "
        "95 % intervals clustered by sentence and prompt.",
        "",
        "| | n | gain |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['n']} | {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] |"
        for name, row in facts["rows"].items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
