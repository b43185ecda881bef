"""What it costs to adapt fewer layers: gain, keys and values that cannot be shared, decode time.

The same objectives, steps and rewards; only the adapted layers differ. Whether an expert needs its
own keys and values is measured: its cache of a prompt is compared with the base's, layer by layer.
"""

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from time import perf_counter
from typing import Any

import numpy as np
import torch

from palate.build.library import build_library
from palate.core.plan import Plan, member_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.training.anchors import objective_anchors
from palate.training.placement import AdapterSettings
from research.soup.judge import answer_cell
from research.soup.library import study_run
from research.soup.study_users import Seed
from research.world.objectives import OBJECTIVE_NAMES
from research.world.prompts import format_prompt

OBJECTIVES = ("elementary", "informative", "friendly")
PLACEMENTS: dict[str, AdapterSettings] = {
    "all layers": AdapterSettings(r=8),
    "last two blocks without keys, values": AdapterSettings(r=8, target_modules="top_no_kv"),
    "last block without keys, values": AdapterSettings(
        r=8, target_modules="top_no_kv", n_top_blocks=1
    ),
    "head": AdapterSettings(r=8, target_modules="lm_head"),
}
N_ROUNDS = 7
N_TIMED = 24


def measure_placements(seed: Seed, work: Path) -> list[dict[str, Any]]:
    """One row per placement and objective; libraries are built under `work` and resumed."""
    base = seed.judge.base
    bare = answer_cell(seed.judge, "base", [reference_plan(n_experts=0)], experts={})
    rows: list[dict[str, Any]] = []
    for name, adapter in PLACEMENTS.items():
        folders = _experts(seed, work, adapter)
        cell = answer_cell(
            seed.judge,
            f"placement-{adapter.target_modules}-{adapter.n_top_blocks}",
            [member_plan(index=k, n_experts=len(OBJECTIVES)) for k in range(len(OBJECTIVES))],
            experts=folders,
        )
        ratio = _decode_ratio(base, folders, seed.judge.prompts)
        for place, objective in enumerate(OBJECTIVES):
            column = OBJECTIVE_NAMES.index(objective)
            gains = cell.gold[place, :, column] - bare.gold[0, :, column]
            rows.append(
                {
                    "placement": name,
                    "objective": objective,
                    "gains": gains.tolist(),
                    "well_formed": float(cell.is_well_formed[place].mean()),
                    "own_kv_bytes_per_token": _own_kv_bytes(
                        base, {objective: folders[objective]}, seed.judge.prompts[0]
                    ),
                    "decode_ratio": ratio,
                }
            )
    return rows


def _experts(seed: Seed, work: Path, adapter: AdapterSettings) -> dict[str, Path]:
    if adapter.target_modules == "all-linear":
        return seed.experts(OBJECTIVES)
    anchors = tuple(a for a in objective_anchors(OBJECTIVE_NAMES) if a.name in OBJECTIVES)
    run = study_run(seed.library.folder.parent, anchors, seed=seed.number)
    run = run.model_copy(update={"adapter": adapter})
    folder = work / f"placement-{adapter.target_modules}-{adapter.n_top_blocks}"
    if not folder.is_dir():  # the same rollouts and rewards; the build replaces the experts
        copytree(seed.library.folder, folder)
    library = build_library(run, out=folder).library
    return {name: library.expert_folder(name) for name in OBJECTIVES}


@torch.inference_mode()
def _own_kv_bytes(base: Base, expert: dict[str, Path], prompt: str) -> int:
    """Bytes per token of keys and values that differ from the base's."""
    ids = torch.tensor([encode_prompt(base, format_prompt(prompt))])
    bank = AdapterBank.load(base, expert)
    caches: list[Any] = []
    try:
        for coefficient in (0.0, 1.0):
            with bank.applied([[coefficient]]):
                caches.append(base.model(input_ids=ids, use_cache=True).past_key_values)
    finally:
        bank.close()
    n_bytes = 0
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        for mine, yours in ((one.keys, other.keys), (one.values, other.values)):
            if not torch.allclose(mine, yours, atol=1e-6):
                n_bytes += mine.element_size() * mine.numel() // ids.shape[1]
    return n_bytes


def _decode_ratio(base: Base, folders: dict[str, Path], prompts: Sequence[str]) -> float:
    """Time of answers by one expert over that of the base, same tokens asked for, interleaved."""
    bank = AdapterBank.load(base, folders)
    engine = LocalEngine(base, bank)
    n_experts = len(folders)
    plans = (reference_plan(n_experts=n_experts), member_plan(index=0, n_experts=n_experts))
    seconds: dict[Plan, list[float]] = {plan: [] for plan in plans}
    try:
        for _ in range(N_ROUNDS):
            for plan in plans:
                requests = [
                    Request(format_prompt(prompt), plan, SamplingParams(max_tokens=16), seed=place)
                    for place, prompt in enumerate(prompts[:N_TIMED])
                ]
                start = perf_counter()
                engine.generate(requests)
                seconds[plan].append(perf_counter() - start)
    finally:
        bank.close()
    base_seconds, expert_seconds = (np.array(seconds[plan][1:]) for plan in plans)
    return float(np.min(expert_seconds) / np.min(base_seconds))
