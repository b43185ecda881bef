"""AlpacaEval: its instructions answered for one user.

instructions   JSON list of objects with `instruction`, perhaps `input` and `dataset`
outputs        the same with `output` and `generator`: what `alpaca_eval --model_outputs` reads
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json, write_json
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.library.generate import generate_all
from palate.library.library import Library

BLOCK = 64  # instructions that are answered at a time
_COPIED = ("dataset", "datasplit", "input")  # of an instruction, in its output


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


def _rows(path: Path, *, what: str) -> list[dict[str, Any]]:
    content = read_json(path, what=what)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise FormatError(f"The {what} {str(path)!r} is no list of objects; give AlpacaEval's.")
    if not content:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one entry.")
    return content
