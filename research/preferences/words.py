"""How well are a user's own words read? Sixty sentences with a truth by hand.

    python -m research.preferences.words                  the shipped library's objectives
    python -m research.preferences.words --library LIBRARY --out reports/words

The truth of a sentence is written for three axes (simple against specialist, short against long,
warm against cold), each -1, 0 or 1, before any estimator was run (`sentences.jsonl`: 20
instructions, 20 profiles, 20 vague or about something else). Two numbers of the estimator were
chosen on 40 other sentences (`sentences_fit.jsonl`, `python -m libraries.fit_words`).

An axis that is asked for counts as read where the mean has its sign. Calibration: how often the
truth, +-1, lies within the belief's central 68 and 95 %, of axes that are asked for.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library
from palate.core.files import read_jsonl, write_json, write_text_atomic
from palate.core.seeds import generator_for
from palate.metrics.intervals import bootstrap_interval

FOLDER = Path(__file__).parent
MEASURED = FOLDER / "sentences.jsonl"
AXES = {"simple": "elementary", "short": "concise", "warm": "friendly"}
KINDS = ("instruction", "profile", "vague")
INSIDE = {"68": 1.0, "95": 1.96}

Table = Float[ndarray, "sentences axes"]


def main() -> None:
    """Print the fit and the measurement; with `--out`, write them as Markdown and JSON."""
    parser = argparse.ArgumentParser(description="How well are a user's own words read?")
    parser.add_argument("--library", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=None, help="without ending")
    options = parser.parse_args()
    library = Library.load(options.library, dtype="bfloat16")
    rows, truth, read = read_all(library, MEASURED)
    facts = measured(rows, truth, read)
    text = as_markdown(facts)
    print(text)  # noqa: T201
    if options.out is not None:
        write_json(options.out.with_suffix(".json"), facts)
        write_text_atomic(options.out.with_suffix(".md"), text)


def read_all(library: Library, path: Path) -> tuple[list[dict[str, Any]], Table, dict[str, Table]]:
    """The sentences, their truth, and the `mean` and `sd` that are read of them."""
    rows = read_jsonl(path, what="file of sentences")
    truth = np.array([[row[axis] for axis in AXES] for row in rows], dtype=float)
    reading = [library.describe(row["text"]).objectives for row in rows]
    read = {
        part: np.array([[getattr(own[name], part) for name in AXES.values()] for own in reading])
        for part in ("mean", "sd")
    }
    return rows, truth, read


def measured(rows: list[dict[str, Any]], truth: Table, read: dict[str, Table]) -> dict[str, Any]:
    """Signs, calibration, and what is read from sentences about something else."""
    is_asked = truth != 0
    is_right = np.where(is_asked, np.sign(read["mean"]) == truth, np.nan)
    kinds = np.array([row["kind"] for row in rows])
    facts: dict[str, Any] = {"signs": {}, "inside": {}}
    for name in ("all", *KINDS):
        own = is_right[(kinds == name) | (name == "all")]
        facts["signs"][name] = _share(own, name)
    for column, axis in enumerate(AXES):
        facts["signs"][axis] = _share(is_right[:, [column]], axis)
    deviations = np.abs(truth - read["mean"]) / read["sd"]
    for level, width in INSIDE.items():
        facts["inside"][level] = float((deviations[is_asked] < width).mean())
    silent = ~is_asked.any(axis=1)
    facts["n_silent"] = int(silent.sum())
    facts["silent_mean"] = float(np.abs(read["mean"][silent]).mean())
    facts["asked_mean"] = float((read["mean"] * truth)[is_asked].mean())
    return facts


def _share(is_right: Table, name: str) -> dict[str, float]:
    """Share of a sentence's axes that are read, mean and 95 % interval over sentences."""
    own = is_right[np.isfinite(is_right).any(axis=1)]
    each = np.nanmean(own, axis=1)
    interval = bootstrap_interval(each, generator=generator_for(0, "words", name))
    n = int(np.isfinite(own).sum())
    return {
        "share": float(each.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "n": n,
    }


def as_markdown(facts: dict[str, Any]) -> str:
    """The measurement as a table."""
    lines = [
        "# Words to a belief",
        "",
        "`python -m research.preferences.words`; no randomness but the bootstrap's, seed 0.",
        "",
        "| of 60 sentences | axes asked for | sign read | 95 % over sentences |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['n']} | {row['share']:.2f} | [{row['low']:.2f}, {row['high']:.2f}] |"
        for name, row in facts["signs"].items()
    ]
    lines += [
        "",
        f"The truth lies within the belief's central 68 % in {facts['inside']['68']:.2f} and "
        f"within its 95 % in {facts['inside']['95']:.2f} of the axes asked for. Mean where asked "
        f"for {facts['asked_mean']:.2f} of 1; of the {facts['n_silent']} sentences about something "
        f"else {facts['silent_mean']:.2f} in size.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
