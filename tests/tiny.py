"""A tiny library: a random base and three random experts, on disk as `palate build` leaves it."""

import shutil
from pathlib import Path

from fakes import save_random_adapter, save_tiny_llama
from palate.core.types import Objective
from palate.experts.anchors import Anchor
from palate.experts.library import Library
from palate.experts.manifest import BaseRecord, ExpertRecord, Manifest
from palate.experts.rollouts import Rollout, write_rollouts
from palate.models.load import load_base

OBJECTIVES = ("kind", "short", "plain")
PROMPTS = ("a b c", "d e", "f g h i")
ANSWERS = ("b a d", "c c", "e f a b", "d", "g h", "i a i", "b b b b", "h")
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


def save_tiny_soup_library(tiny_library: Path, folder: Path) -> Path:
    """A copy of the tiny library with rollouts and a `soup.json`."""
    from palate.recipes.soup_basis import write_soup
    from palate.recipes.soup_features import scored_text

    shutil.copytree(tiny_library, folder)
    base = load_base(tiny_library.parent / "base")
    rows = [
        Rollout(prompt, answer, scored_text(base, prompt, answer).answer, -1.0, (0.5,) * 3, "stop")
        for prompt in PROMPTS
        for answer in ANSWERS
    ]
    library = Library.open(folder).with_rollouts_begun(key="k")
    library.with_rollouts(
        key="k", write=lambda path: write_rollouts(path, rows, objectives=OBJECTIVES)
    )
    write_soup(folder)
    return folder
