"""Answers to AlpacaEval's instructions by a library, for one user, as AlpacaEval reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.decision import Known
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.evaluate.alpaca import prompt_of, read_instructions, write_outputs
from palate.library.generate import generate_all
from palate.library.library import Library

BLOCK = 64  # instructions that are answered at a time


@dataclass(frozen=True)
class AlpacaAnswers:
    """What was answered.

    Attributes:
        path: The file of outputs.
        generator: Under which name.
        method: The method that was taken for the first instruction.
        coefficients: By expert.
        n_answers: One per instruction.
    """

    path: Path
    generator: str
    method: str
    coefficients: dict[str, float]
    n_answers: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": str(self.path),
            "generator": self.generator,
            "method": self.method,
            "coefficients": self.coefficients,
            "n_answers": self.n_answers,
        }


@dataclass(frozen=True)
class AlpacaJob:
    """What is answered, and where to.

    Attributes:
        instructions: AlpacaEval's file.
        out: For the outputs.
        sampling: How tokens are drawn.
        generator: Name of the answers in AlpacaEval.
        seed: The same seed gives the same answers.
    """

    instructions: Path
    out: Path
    sampling: SamplingParams
    generator: str = "palate"
    seed: int = 0


def answer_instructions(
    library: Library, known: Known, job: AlpacaJob, *, method: str = "auto"
) -> AlpacaAnswers:
    """Answer every instruction as the user wants it, and write the outputs file.

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
    first = decisions[0]
    return AlpacaAnswers(job.out, job.generator, first.method, dict(first.coefficients), len(texts))
