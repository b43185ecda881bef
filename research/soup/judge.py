"""Answers of many users' plans to held-out prompts, judged by the gold rules, kept on disk.

Every cell of the study is one way of answering everybody. All cells answer the same prompts with
the same seeds, so differences are paired. A cell on disk is used again when its key, a hash of
plans, experts, prompts and seed, is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from palate.core.files import hash_value, read_json, write_json
from palate.core.plan import Plan, reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored
from palate.library.features import log_probs
from palate.models.chat import encode_prompt
from palate.models.load import Base
from research.world.gold import gold_rewards
from research.world.grammar import parse
from research.world.prompts import MAX_ANSWER_TOKENS, format_prompt


@dataclass(frozen=True)
class Judge:
    """What all cells of one seed have in common.

    Attributes:
        base: The base model.
        folder: Where cells are kept.
        prompts: Held out.
        seed: Of the answers.
    """

    base: Base
    folder: Path
    prompts: tuple[str, ...]
    seed: int


@dataclass(frozen=True, eq=False)
class Cell:
    """One way of answering everybody.

    Attributes:
        texts: `[users][prompts]`.
        gold: `[users, prompts, objectives]` in [0, 1].
        is_well_formed: `[users, prompts]`.
        kl: `[users, prompts]`, log-probability of the answer less the base's, nats; its mean is
            the KL per answer. NaN where the plan's probability is not known.
        n_tokens: `[users, prompts]`.
    """

    texts: list[list[str]]
    gold: Float[ndarray, "users prompts objectives"]
    is_well_formed: Bool[ndarray, "users prompts"]
    kl: Float[ndarray, "users prompts"]
    n_tokens: Float[ndarray, "users prompts"]

    def utilities(
        self, preferences: Float[ndarray, "users objectives"]
    ) -> Float[ndarray, " users"]:
        """`[users]`: mean utility of each user over the prompts."""
        return np.einsum("pqo,po->pq", self.gold, preferences).mean(axis=1)

    def first(self, n_prompts: int) -> "Cell":
        """The same on the first prompts."""
        part = slice(None, n_prompts)
        return Cell(
            [row[part] for row in self.texts],
            self.gold[:, part],
            self.is_well_formed[:, part],
            self.kl[:, part],
            self.n_tokens[:, part],
        )

    def of_users(self, index: Sequence[int]) -> "Cell":
        """The rows at these places, one per user."""
        at = list(index)
        return Cell(
            [self.texts[k] for k in at],
            self.gold[at],
            self.is_well_formed[at],
            self.kl[at],
            self.n_tokens[at],
        )

    @property
    def kl_per_token(self) -> float:
        """Mean KL per token, nats."""
        return float(np.sum(self.kl) / np.sum(self.n_tokens))


def answer_cell(
    judge: Judge,
    name: str,
    plans: Sequence[Plan],
    *,
    experts: Mapping[str, Path],
    instructions: Sequence[str] | None = None,
) -> Cell:
    """Everybody's answers under their plans, one per prompt at temperature 1.

    Args:
        judge: Base, prompts and seed.
        name: Of the cell, and of its file.
        plans: `[users]`; equal plans are answered once.
        experts: Adapter folders in the plans' bank order.
        instructions: `[users]`, sentences put before the prompt.
    """
    sentences = list(instructions) if instructions is not None else [""] * len(plans)
    requested = list(zip(plans, sentences, strict=True))
    unique = list(dict.fromkeys(requested))
    key = hash_value(
        {
            "plans": [[plan.to_json(), sentence] for plan, sentence in unique],
            "experts": {
                k: (v / "adapter_model.safetensors").stat().st_size for k, v in experts.items()
            },
            "folders": [str(folder) for folder in experts.values()],
            "prompts": judge.prompts,
            "seed": judge.seed,
        }
    )
    path = judge.folder / f"{name}.json"
    content: dict[str, Any] = read_json(path) if path.is_file() else {}
    if content.get("key") != key:
        content = {"key": key, **_answered(judge, name, unique, experts)}
        write_json(path, content)
    places = [unique.index(pair) for pair in requested]
    return cell_of(content, judge.prompts, places=places)


def cell_of(content: Mapping[str, Any], prompts: Sequence[str], *, places: Sequence[int]) -> Cell:
    """A cell from what was written: `texts`, `kl` and `n_tokens`, each `[unique][prompts]`."""
    texts: list[list[str]] = content["texts"]
    gold = np.stack([gold_rewards(row) for row in texts])
    is_good = np.array(
        [
            [parse(p, t).answer is not None for p, t in zip(prompts, row, strict=True)]
            for row in texts
        ]
    )
    kl, n_tokens = (np.array(content[field], dtype=float) for field in ("kl", "n_tokens"))
    whole = Cell(texts, gold, is_good, kl, n_tokens)
    return whole.of_users(places)


def _answered(
    judge: Judge,
    name: str,
    requested: Sequence[tuple[Plan, str]],
    experts: Mapping[str, Path],
) -> dict[str, Any]:
    bank = AdapterBank.load(judge.base, experts)
    engine = LocalEngine(judge.base, bank)
    rows: list[list[Completion]] = []
    try:
        with progress_of(f"cell {name}, plans") as report:
            step = max(1, 256 // len(judge.prompts))
            for start in range(0, len(requested), step):
                part = requested[start : start + step]
                found = engine.generate(_requests(judge, part))
                n = len(judge.prompts)
                rows += [found[at * n : (at + 1) * n] for at in range(len(part))]
                report(len(rows), len(requested))
    finally:
        bank.close()
    kl = _kl(judge, rows)
    return {
        "texts": [[answer.text for answer in row] for row in rows],
        "kl": kl.tolist(),
        "n_tokens": [[len(answer.tokens) for answer in row] for row in rows],
    }


def _requests(judge: Judge, requested: Sequence[tuple[Plan, str]]) -> list[Request]:
    return [
        Request(
            format_prompt(prompt, sentence),
            plan,
            SamplingParams(max_tokens=MAX_ANSWER_TOKENS),
            seed=derive_seed(judge.seed, "soup study", "judged", prompt),
        )
        for plan, sentence in requested
        for prompt in judge.prompts
    ]


def _kl(judge: Judge, rows: Sequence[Sequence[Completion]]) -> Float[ndarray, "plans prompts"]:
    items = [
        Scored(tuple(encode_prompt(judge.base, format_prompt(prompt))), answer.tokens)
        for row in rows
        for prompt, answer in zip(judge.prompts, row, strict=True)
    ]
    bare = AdapterBank(judge.base, {})
    reference = log_probs(judge.base, bare, plan=reference_plan(n_experts=0), items=items)
    own = np.array([sum(answer.log_probs) for row in rows for answer in row])
    return (own - reference).reshape(len(rows), len(judge.prompts))
