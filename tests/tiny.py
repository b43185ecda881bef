"""A tiny library: a random base and three random experts, on disk as `palate build` leaves it."""

import shutil
from pathlib import Path

from fakes import save_random_adapter, save_tiny_llama
from palate.core.types import Objective
from palate.experts.anchors import Anchor
from palate.experts.library import Library
from palate.experts.manifest import BaseRecord, ExpertRecord, Manifest
from palate.models.load import load_base

OBJECTIVES = ("kind", "short", "plain")
OPTIONS = {
    "kind": {"rank": 2, "lora_alpha": 4},
    "short": {"rank": 4, "lora_alpha": 8, "targets": ("q_proj", "up_proj", "lm_head")},
    "plain": {"rank": 3, "lora_alpha": 6, "use_rslora": True},
}


def save_tiny_library(root: Path) -> Path:
    """The library's folder; its base lies beside it as `base`."""
    base = load_base(save_tiny_llama(root / "base"))
    record = BaseRecord(base.path, None, base.fingerprint, base.tokenizer_fingerprint)
    library = Library.create(
        root / "library",
        Manifest(record, tuple(Objective(name) for name in OBJECTIVES), beta=0.1, seed=0),
    )
    for place, name in enumerate(OBJECTIVES):
        folder = save_random_adapter(root / "base", root / name, seed=place, **OPTIONS[name])
        direction = tuple(float(k == place) for k in range(3))
        library = library.with_expert(
            ExpertRecord(Anchor(name, OBJECTIVES, direction), key=name, files={}),
            lambda target, source=folder: [
                shutil.copy(source / file, target / file)
                for file in ("adapter_config.json", "adapter_model.safetensors")
            ],
        )
    return root / "library"
