"""How much of a user's own words is left after eight turns: as a prompt, and as a belief?

    python -m libraries.turns smollm2-135m --turns 0,8

The first instructions of `research/preferences/sentences.jsonl` are users. Each asks the first of
the board's prompts alone and after earlier turns about other things, which the base answered
(`research.board.prompts`). Answers by the sentence as a system prompt, and by the soup of the
belief that is read from it, are compared with the base's answer to the same conversation: the
measures of form (`research.board.forms`) in the direction of the axes that the sentence asks for,
as in `libraries.words`. Prompt tokens of a method are those beyond the base's, whose chat template
may have a system prompt of its own, which the sentence replaces.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from libraries.words import AXES, SENTENCES, known_of
from palate import Library, Messages, Output, SamplingParams
from palate.core.files import read_jsonl, write_json
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.metrics.intervals import bootstrap_interval
from palate.models.chat import encode_prompt, format_messages
from research.board.forms import FORMS
from research.board.prompts import (
    Case,
    conversation,
    earlier_answers,
    earlier_prompts,
    load_prompts,
)
from research.board.settings import BoardSettings
from research.command_line import print_result

METHODS = ("prompt", "soup")
BLOCK = 8  # sentences that are answered together


def main() -> None:
    """Answer, judge, print, and with `--out` write the facts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library", nargs="?", default="smollm2-135m")
    parser.add_argument("--turns", default="0,8", help="earlier turns, with commas")
    parser.add_argument("--n-sentences", type=int, default=12)
    parser.add_argument("--n-prompts", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    turns = [int(part) for part in options.turns.split(",")]
    rows = [row for row in read_jsonl(SENTENCES, what="sentences") if any(row[a] for a in AXES)]
    rows = [row for row in rows if row["kind"] == "instruction"][: options.n_sentences]
    library = Library.load(options.library, dtype="bfloat16")
    settings = BoardSettings(n_prompts=options.n_prompts, max_tokens=options.max_tokens)
    talks = {n: conversations(library, settings, turns=n) for n in turns}
    sampling = SamplingParams(
        temperature=library.sampling.temperature, max_tokens=options.max_tokens
    )
    gains: dict[tuple[str, int], list[Float[ndarray, " prompts"]]]
    gains = {(m, n): [] for m in METHODS for n in turns}
    tokens: dict[tuple[str, int], list[float]] = {key: [] for key in gains}
    with progress_of("answers, conversations") as report:
        for n, talk in talks.items():
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                numbers = range(start + 1, start + 1 + len(block))
                seeds = [number for number in numbers for _ in talk]
                plain = [library.decide(one, method="base") for _ in block for one in talk]
                bases = library.execute(plain, seeds=seeds, sampling=sampling)
                for name in METHODS:
                    users = [known_of(library, row["text"], name) for row in block]
                    decisions = [
                        library.decide(one, known, method=name) for known in users for one in talk
                    ]
                    outputs = library.execute(decisions, seeds=seeds, sampling=sampling)
                    for place, row in enumerate(block):
                        mine = slice(place * len(talk), (place + 1) * len(talk))
                        own, base = outputs[mine], bases[mine]
                        gain = wanted(own, row) - wanted(base, row)
                        gains[name, n].append(gain)
                        sizes = [
                            n_tokens(library, one.decision.messages)
                            - n_tokens(library, other.decision.messages)
                            for one, other in zip(own, base, strict=True)
                        ]
                        tokens[name, n].append(float(np.mean(sizes)))
                report(start + len(block), len(rows))
    facts = summary(gains, tokens, turns)
    print_result(facts, is_json=False)
    if options.out is not None:
        write_json(options.out, facts)


def conversations(library: Library, settings: BoardSettings, *, turns: int) -> list[Messages]:
    """The board's first prompts after so many earlier turns."""
    prompts, spare = load_prompts(settings)
    cases = [Case(prompt, turns) for prompt in prompts]
    earlier = [earlier_prompts(case, prompts, spare) for case in cases]
    with tempfile.TemporaryDirectory() as folder:
        answers = earlier_answers(
            library,
            [one for own in earlier for one in own],
            path=Path(folder) / "answers.jsonl",
            settings=settings,
        )
    return [conversation(case, own, answers) for case, own in zip(cases, earlier, strict=True)]


def wanted(outputs: list[Output], row: dict[str, Any]) -> Float[ndarray, " answers"]:
    """Form in the direction that the sentence asks for, mean over its axes, `[answers]`."""
    scores = [
        row[axis] * (FORMS[one](output.text.strip()) - FORMS[other](output.text.strip())) / 2
        for output in outputs
        for axis, (one, other) in AXES.items()
        if row[axis]
    ]
    return np.array(scores).reshape(len(outputs), -1).mean(axis=1)


def n_tokens(library: Library, messages: Messages) -> int:
    """Tokens of a conversation as the base reads it."""
    return len(encode_prompt(library.base, format_messages(library.base, messages)))


def summary(
    gains: dict[tuple[str, int], list[Float[ndarray, " prompts"]]],
    tokens: dict[tuple[str, int], list[float]],
    turns: list[int],
) -> dict[str, Any]:
    """Gains over the base after each number of turns, and what the turns cost.

    Intervals are clustered by sentence and prompt.
    """
    facts: dict[str, Any] = {}
    compared = {f"{name} after {n}": np.array(own) for (name, n), own in gains.items()}
    for n in turns:
        compared[f"soup less prompt after {n}"] = np.subtract(gains["soup", n], gains["prompt", n])
    for name in METHODS:
        later = np.subtract(gains[name, turns[-1]], gains[name, turns[0]])
        compared[f"{name} after {turns[-1]} less {turns[0]}"] = later
    for name, values in compared.items():
        sentences, prompts = np.indices(values.shape)
        interval = bootstrap_interval(
            values.ravel(),
            generator=generator_for(0, "turns", name),
            clusters=sentences.ravel(),
            second_clusters=prompts.ravel(),
        )
        facts[name] = interval.to_json()
    facts["prompt tokens"] = {
        f"{name} after {n}": float(np.mean(own)) for (name, n), own in tokens.items()
    }
    return facts


if __name__ == "__main__":
    main()
