"""Answers of the base to choose from, with what every expert says of them: best-of-n."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from palate.core.files import read_json, write_json
from palate.core.plan import reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.library.features import log_ratios, scored_text
from research.soup.judge import Cell, Judge
from research.world.gold import gold_rewards
from research.world.grammar import parse
from research.world.prompts import MAX_ANSWER_TOKENS, format_prompt

N_CANDIDATES = 8


@dataclass(frozen=True, eq=False)
class Candidates:
    """The base's answers to held-out prompts.

    Attributes:
        texts: `[prompts][candidates]`.
        gold: `[prompts, candidates, objectives]`.
        is_well_formed: `[prompts, candidates]`.
        log_ratios: `[prompts, candidates, experts]`, nats.
    """

    texts: list[list[str]]
    gold: Float[ndarray, "prompts candidates objectives"]
    is_well_formed: ndarray
    log_ratios: Float[ndarray, "prompts candidates experts"]

    def picked(self, chosen: Int[ndarray, "users prompts"]) -> Cell:
        """A cell of the chosen candidates; its KL is the bound `log n - (n - 1) / n` per answer."""
        rows = np.arange(len(self.texts))
        bound = np.log(N_CANDIDATES) - (N_CANDIDATES - 1) / N_CANDIDATES
        texts = [[self.texts[q][int(c)] for q, c in enumerate(row)] for row in chosen]
        lengths = np.array([[len(text.split()) for text in row] for row in texts], dtype=float)
        return Cell(
            texts,
            self.gold[rows[None], chosen],
            self.is_well_formed[rows[None], chosen],
            np.full(chosen.shape, bound),
            lengths,
        )


def make_candidates(
    path: Path, *, judge: Judge, experts: Mapping[str, Path], seed: int
) -> Candidates:
    """The candidates in the file, or new ones written there."""
    if not path.is_file():
        engine = LocalEngine(judge.base, AdapterBank(judge.base, {}))
        asked = [(prompt, copy) for prompt in judge.prompts for copy in range(N_CANDIDATES)]
        answers = engine.generate(
            [
                Request(
                    format_prompt(prompt),
                    reference_plan(n_experts=0),
                    SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
                    seed=derive_seed(seed, "soup study", "candidates", prompt, copy),
                )
                for prompt, copy in asked
            ]
        )
        pairs = zip(asked, answers, strict=True)
        items = [scored_text(judge.base, prompt, answer.text) for (prompt, _), answer in pairs]
        with progress_of("score candidates, experts") as report:
            ratios = log_ratios(judge.base, experts, items, on_step=report)
        write_json(path, {"texts": [answer.text for answer in answers], "log_ratios": ratios})
    content = read_json(path)
    shape = (len(judge.prompts), N_CANDIDATES)
    texts = np.array(content["texts"], dtype=object).reshape(shape).tolist()
    is_good = [
        [parse(prompt, text).answer is not None for text in row]
        for prompt, row in zip(judge.prompts, texts, strict=True)
    ]
    return Candidates(
        texts,
        gold_rewards(content["texts"]).reshape(*shape, -1),
        np.array(is_good),
        np.array(content["log_ratios"]).reshape(*shape, -1),
    )
