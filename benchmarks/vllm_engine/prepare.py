"""Write what the comparison of the two engines needs: a library and its twin for vLLM.

    python -m benchmarks.vllm_engine.prepare BASE OUT

OUT/library is a library of three experts on BASE (random adapters of ranks 8, 8 and 4, large enough
to change greedy answers); OUT/wide/base and OUT/wide/experts are the same models with heads of 32,
which vLLM's attention on the CPU needs.
"""

from pathlib import Path

import torch

from palate.core.types import BaseRecord, Objective
from palate.library.folder import LibraryFolder
from palate.library.manifest import ExpertRecord, Manifest
from palate.models.adapter import Factor, save_adapter
from palate.models.load import load_base
from palate.training.anchors import Anchor
from research.command_line import run
from research.serving.widen import widen_adapters, widen_base

EXPERTS = {"bright": (8, 16.0), "short": (8, 8.0), "gentle": (4, 6.0)}  # rank, lora_alpha
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SIZE = 0.06  # of the factors' entries
HEAD = 32


def main(base_folder: Path, out: Path) -> None:
    """Make the library and the rewritten base and experts of the comparison."""
    base = load_base(base_folder)
    record = BaseRecord(base.path, None, base.fingerprint, base.tokenizer_fingerprint)
    objectives = tuple(Objective(name) for name in EXPERTS)
    library = LibraryFolder.create(out / "library", Manifest(record, objectives, beta=0.1, seed=0))
    layers = {
        name: (module.out_features, module.in_features)
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in TARGETS
    }
    for place, (name, (rank, alpha)) in enumerate(EXPERTS.items()):
        generator = torch.Generator().manual_seed(place)
        adapter = {
            layer: Factor(
                SIZE * torch.randn(rank, d_in, generator=generator),
                SIZE * torch.randn(d_out, rank, generator=generator),
                alpha / rank,
            )
            for layer, (d_out, d_in) in layers.items()
        }
        direction = tuple(float(k == place) for k in range(len(EXPERTS)))
        library = library.with_expert(
            ExpertRecord(Anchor(name, tuple(EXPERTS), direction), key=name, files={}),
            lambda target, adapter=adapter: _fill(target, adapter, base.path),
        )
    heads = widen_base(base_folder, out / "wide" / "base", head=HEAD)
    widen_adapters(
        library.expert_folders(),
        out / "wide" / "experts",
        heads=heads,
        base_path=str(out / "wide" / "base"),
    )


def _fill(target: Path, adapter: dict[str, Factor], base_path: str) -> None:
    save_adapter(adapter, target / "made", base_path=base_path)
    for file in (target / "made").iterdir():
        file.rename(target / file.name)
    (target / "made").rmdir()


if __name__ == "__main__":
    run(main)
