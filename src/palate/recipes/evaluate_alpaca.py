"""Answers to AlpacaEval's instructions by a library, for one person, as AlpacaEval reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.protocols import Request, Sampling
from palate.core.seeds import derive_seed
from palate.evaluate.alpaca import prompt_of, read_instructions, write_outputs
from palate.models.chat import format_messages
from palate.models.engine import LocalEngine
from palate.recipes.mixture_answer import controlled
from palate.recipes.mixture_open import has_controller, open_mixture
from palate.recipes.opened import Opened
from palate.recipes.progress import progress_of
from palate.recipes.ways import Asked, Chosen, choose

BLOCK = 64  # instructions that are answered at a time


@dataclass(frozen=True)
class AlpacaAnswers:
    """What was answered.

    Attributes:
        path: The file of outputs.
        generator: Under which name.
        way: The way that was taken.
        coefficients: By expert.
        n_answers: One per instruction.
    """

    path: Path
    generator: str
    way: str
    coefficients: dict[str, float]
    n_answers: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": str(self.path),
            "generator": self.generator,
            "way": self.way,
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
    sampling: Sampling
    generator: str = "palate"
    seed: int = 0


def answer_instructions(opened: Opened, asked: Asked, job: AlpacaJob) -> AlpacaAnswers:
    """Answer every instruction in the person's taste, and write the outputs file.

    Raises:
        InvalidInputError: the file is missing or empty, or see `palate.recipes.ways.choose`.
        FormatError: the file holds no instructions.
    """
    rows = read_instructions(job.instructions)
    prompts = [prompt_of(row) for row in rows]
    seeds = [derive_seed(job.seed, "alpaca", prompt) for prompt in prompts]
    chosen, requests, engine = _requests(opened, asked, prompts, sampling=job.sampling, seeds=seeds)
    texts: list[str] = []
    with progress_of("answers, instructions") as report:
        for start in range(0, len(requests), BLOCK):
            answers = engine.generate(requests[start : start + BLOCK])
            texts += [answer.text.strip() for answer in answers]
            report(len(texts), len(requests))
    write_outputs(job.out, rows, texts, generator=job.generator)
    return AlpacaAnswers(job.out, job.generator, chosen.way, chosen.coefficients, len(texts))


def _requests(
    opened: Opened,
    asked: Asked,
    prompts: Sequence[str],
    *,
    sampling: Sampling,
    seeds: Sequence[int],
) -> tuple[Chosen, list[Request], LocalEngine]:
    if asked.way == "mixture" and asked.coefficients is None and has_controller(opened):
        chosen, requests, engine = controlled(
            opened, prompts[0], asked.preference, sampling=sampling, seeds=seeds[:1]
        )
        mixture = open_mixture(opened)
        requests += [
            mixture.request(prompt, asked.preference or {}, sampling=sampling, seed=seed)
            for prompt, seed in zip(prompts[1:], seeds[1:], strict=True)
        ]
        return chosen, requests, engine
    portfolio = opened.portfolio if asked.way == "portfolio" else None
    chosen = choose(opened.library.manifest, asked, portfolio=portfolio)
    requests = [
        Request(format_messages(opened.base, prompt), chosen.plan, sampling, seed)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return chosen, requests, opened.engine
