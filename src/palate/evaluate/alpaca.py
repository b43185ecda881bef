"""AlpacaEval: its instructions answered for one user, and the judgments of its annotators read.

    instructions   JSON list of objects with `instruction`, perhaps `input` and `dataset`
    outputs        the same with `output` and `generator`: what `alpaca_eval --model_outputs` reads
    annotations    JSON list with `output_1`, `generator_1`, `output_2`, `generator_2`, `preference`

A preference of 1 is for the first output, 2 for the second; what lies between is the probability of
the second, plus one. 1.5 and, in old files, 0 are ties; null is a judgment that failed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json, write_json
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.library.generate import generate_all
from palate.library.library import Library
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.win_rates import LengthControl, WinRates, length_controlled_rate, win_rates

OLD_TIE, TIE = 0.0, 1.5
BLOCK = 64  # instructions that are answered at a time
_COPIED = ("dataset", "datasplit", "input")  # of an instruction, in its output


@dataclass(frozen=True)
class Judgment:
    """An annotator's judgment of the answers to one instruction."""

    instruction: str
    score: float  # probability in [0, 1] that ours is better; 0.5 is a tie
    length_difference: int  # characters of ours less those of the other


@dataclass(frozen=True)
class AlpacaRates:
    """Judgments as win rates."""

    generator: str  # ours
    rival: str  # the other, or all others
    annotator: str
    n_failed: int  # judgments without a preference, which are left out
    win_rate: Interval  # mean probability that ours is better, as on AlpacaEval's leaderboard
    rates: WinRates  # of verdicts: above one half is won, one half is a tie
    controlled: LengthControl  # at equal length, by `palate.metrics.win_rates`

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "generator": self.generator,
            "rival": self.rival,
            "annotator": self.annotator,
            "n": self.win_rate.n,
            "n_failed": self.n_failed,
            "win_rate": self.win_rate.to_json(),
            "verdicts": self.rates.to_json(),
            "length_controlled": self.controlled.rate.to_json(),
            "length_effect": self.controlled.length_effect,
        }


def read_instructions(path: Path) -> list[dict[str, Any]]:
    """The instructions of a file.

    Raises:
        InvalidInputError: the file is missing or empty.
        FormatError: it is no list of objects with an `instruction`.
    """
    rows = _rows(path, what="instructions file")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("instruction"), str):
            raise FormatError(
                f"Entry {number} of {str(path)!r} has no 'instruction' that is a string, as a file "
                "of AlpacaEval instructions needs."
            )
    return rows


def prompt_of(row: Mapping[str, Any]) -> str:
    """What is asked: the instruction, and the input after a blank line if there is one."""
    given = str(row.get("input") or "").strip()
    return f"{row['instruction']}\n\n{given}" if given else str(row["instruction"])


def write_outputs(
    path: Path, rows: Sequence[Mapping[str, Any]], texts: Sequence[str], *, generator: str
) -> None:
    """The file that `alpaca_eval --model_outputs` reads."""
    content = [
        {
            "instruction": row["instruction"],
            "output": text,
            "generator": generator,
            **{name: row[name] for name in _COPIED if name in row},
        }
        for row, text in zip(rows, texts, strict=True)
    ]
    write_json(path, content)


@dataclass(frozen=True)
class AlpacaJob:
    """What is answered, and where to."""

    instructions: Path  # of AlpacaEval
    out: Path  # for the outputs
    sampling: SamplingParams
    generator: str = "palate"  # name of the answers in AlpacaEval
    seed: int = 0


def answer_instructions(
    library: Library, known: Known, job: AlpacaJob, *, method: str = "auto"
) -> dict[str, Any]:
    """Answer every instruction as the user wants it, and write the outputs file.

    Method and coefficients that come back are those of the first instruction.

    Raises:
        InvalidInputError: the file is missing or empty, or see `Library.decide`.
        FormatError: the file holds no instructions.
    """
    rows = read_instructions(job.instructions)
    prompts = [prompt_of(row) for row in rows]
    decisions = [library.decide(prompt, known, method=method) for prompt in prompts]
    seeds = [derive_seed(job.seed, "alpaca", prompt) for prompt in prompts]
    texts: list[str] = []
    with progress_of("answers, instructions") as report:
        for start in range(0, len(prompts), BLOCK):
            block = slice(start, start + BLOCK)
            outputs = generate_all(
                library, decisions[block], sampling=job.sampling, seeds=seeds[block]
            )
            texts += [output.text.strip() for output in outputs]
            report(len(texts), len(prompts))
    write_outputs(job.out, rows, texts, generator=job.generator)
    return {
        "path": str(job.out),
        "generator": job.generator,
        "method": decisions[0].method,
        "coefficients": dict(decisions[0].coefficients),
        "n_answers": len(texts),
    }


def read_rates(path: Path, *, generator: str | None = None) -> AlpacaRates:
    """The win rates that an annotations file holds; intervals are clustered by instruction.

    By default the generator that is the second output everywhere wins.

    Raises:
        InvalidInputError: the file is missing or empty, the generator does not occur, several could
            be meant, or fewer than two instructions are judged.
        FormatError: an entry lacks an output or holds no preference.
    """
    rows = _rows(path, what="annotations file")
    names = {generator} if generator else {str(row.get("generator_2")) for row in rows}
    if len(names) != 1 or names == {"None"}:
        raise InvalidInputError(
            f"The second outputs of {str(path)!r} are by {', '.join(sorted(names))}; say whose "
            "wins are counted."
        )
    (ours,) = names
    own = [row for row in rows if ours in (row.get("generator_1"), row.get("generator_2"))]
    if not own:
        raise InvalidInputError(f"Nothing in {str(path)!r} was written by {ours!r}; name another.")
    judgments = [_judgment(row, ours, place=f"An entry of {str(path)!r}") for row in own]
    judged = [one for one in judgments if one is not None]
    instructions = [one.instruction for one in judged]
    if len(set(instructions)) < 2:
        raise InvalidInputError(
            f"{len(set(instructions))} instructions of {str(path)!r} are judged for {ours!r}; "
            "an interval needs two."
        )
    scores = np.array([one.score for one in judged])
    verdicts = np.where(scores == 0.5, 0.5, (scores > 0.5).astype(float))
    rivals = {str(row[name]) for row in own for name in ("generator_1", "generator_2")} - {ours}
    return AlpacaRates(
        generator=ours,
        rival=", ".join(sorted(rivals)),
        annotator=", ".join(sorted({str(row.get("annotator", "")) for row in own})),
        n_failed=len(own) - len(judged),
        win_rate=bootstrap_interval(
            scores, generator=generator_for(0, "alpaca", "mean"), clusters=instructions
        ),
        rates=win_rates(verdicts, clusters=instructions),
        controlled=length_controlled_rate(
            scores,
            length_differences=[one.length_difference for one in judged],
            clusters=instructions,
        ),
    )


def _judgment(row: Mapping[str, Any], ours: str, *, place: str) -> Judgment | None:
    preference = row.get("preference")
    if preference is None:
        return None
    texts = row.get("output_1"), row.get("output_2")
    if not all(isinstance(text, str) for text in (*texts, row.get("instruction"))):
        raise FormatError(f"{place} lacks an instruction or an output; it is no annotation.")
    is_number = isinstance(preference, int | float) and not isinstance(preference, bool)
    if not is_number or not (preference == OLD_TIE or 1 <= preference <= 2):
        raise FormatError(
            f"{place} has the preference {preference!r}; AlpacaEval writes 1 to 2, 0 or null."
        )
    for_second = (TIE if preference == OLD_TIE else float(preference)) - 1.0
    longer_second = len(str(texts[1])) - len(str(texts[0]))
    if row.get("generator_2") == ours:
        return Judgment(str(row["instruction"]), for_second, longer_second)
    return Judgment(str(row["instruction"]), 1.0 - for_second, -longer_second)


def _rows(path: Path, *, what: str) -> list[dict[str, Any]]:
    content = read_json(path, what=what)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise FormatError(f"The {what} {str(path)!r} is no list of objects; give AlpacaEval's.")
    if not content:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one entry.")
    return content
