"""A tiny library: a random base and three random experts, on disk as `palate build` leaves it."""

import shutil
from pathlib import Path
from typing import Any

from fakes import save_random_adapter, save_tiny_llama
from palate.core.types import BaseRecord, Objective
from palate.library.folder import LibraryFolder
from palate.library.manifest import ExpertRecord, Manifest
from palate.models.load import load_base
from palate.training.anchors import Anchor
from palate.training.rollouts import Rollout, write_rollouts

OBJECTIVES = ("kind", "short", "plain")
OPPOSITES = {"short": "Give a long and detailed answer."}  # of which users' words can ask
PROMPTS = ("a b c", "d e", "f g h i")
ANSWERS = ("b a d", "c c", "e f a b", "d", "g h", "i a i", "b b b b", "h")
OPTIONS = {
    "kind": {"rank": 2, "lora_alpha": 4},
    "short": {"rank": 4, "lora_alpha": 8, "targets": ("q_proj", "up_proj", "lm_head")},
    "plain": {"rank": 3, "lora_alpha": 6, "use_rslora": True},
}


def save_tiny_library(root: Path, **of_base: Any) -> Path:
    """The library's folder; its base, `save_tiny_llama` with these, lies beside it as `base`."""
    base = load_base(save_tiny_llama(root / "base", **of_base))
    record = BaseRecord(base.path, None, base.fingerprint, base.tokenizer_fingerprint)
    library = LibraryFolder.create(
        root / "library",
        Manifest(
            record,
            tuple(Objective(name, opposite=OPPOSITES.get(name, "")) for name in OBJECTIVES),
            beta=0.1,
            seed=0,
        ),
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
    from palate.build.soup_fit import write_soup
    from palate.library.features import scored_text

    shutil.copytree(tiny_library, folder)
    base = load_base(tiny_library.parent / "base")
    rows = [
        Rollout(prompt, answer, scored_text(base, prompt, answer).answer, -1.0, (0.5,) * 3, "stop")
        for prompt in PROMPTS
        for answer in ANSWERS
    ]
    library = LibraryFolder.open(folder).with_rollouts_begun(key="k")
    library.with_rollouts(
        key="k", write=lambda path: write_rollouts(path, rows, objectives=OBJECTIVES)
    )
    write_soup(folder)
    return folder


INSTRUCTIONS = {"kind": "be kind", "short": "be short", "plain": "be plain"}
CALIBRATION = tuple(f"{a} {b}" for a in "abcd" for b in "ef")
FULL_FLOOR = ("plain", 0.3)


def save_tiny_full_library(
    tiny_library: Path,
    folder: Path,
    *,
    floor: tuple[str, float] | None = None,
    order: tuple[str, ...] = OBJECTIVES,
) -> Path:
    """The tiny library with every part that a method can need, and `methods.json`.

    Args:
        tiny_library: From `save_tiny_library`.
        folder: New folder.
        floor: Safety expert and its coefficient.
        order: Of the experts in the bank.
    """
    from palate.build.calibration import CalibrationSettings, calibrate_methods
    from palate.build.soup_fit import write_soup
    from palate.core.files import read_json, write_json
    from palate.library.library import Library as OpenedLibrary

    save_tiny_soup_library(tiny_library, folder)
    manifest = read_json(folder / "library.json")
    for objective in manifest["objectives"]:
        objective["instruction"] = INSTRUCTIONS[objective["name"]]
    manifest["experts"].sort(key=lambda row: order.index(row["name"]))
    write_json(folder / "library.json", manifest)
    _add_rules(folder)
    write_soup(folder, floor=None if floor is None else dict([floor]))
    _set_strength(folder, 1.5)
    _add_portfolio(folder)
    _add_controller(folder)
    calibrate_methods(
        OpenedLibrary.load(folder),
        CALIBRATION,
        settings=CalibrationSettings(max_points=6),
        max_tokens=6,
    )
    return folder


def _add_rules(folder: Path) -> None:
    from palate.core.files import write_versioned

    library = LibraryFolder.open(folder)
    for place, name in enumerate(OBJECTIVES):
        prefer = "shorter" if place % 2 == 0 else "longer"
        rule = {"kind": "length", "unit": "characters", "low": 1, "high": 12, "prefer": prefer}

        def fill(target: Path, name: str = name, rule: dict = rule) -> None:
            content = {"objective": name, "rule": rule}
            write_versioned(target / "rule.json", kind="palate-rule", version=1, content=content)

        library = library.with_reward(name, fill, key=name)


def _set_strength(folder: Path, strength: float) -> None:
    from dataclasses import replace

    from palate.soup.basis_file import load_basis, save_basis

    path = folder / "soup.json"
    save_basis(path, replace(load_basis(path), strength=strength))


def _add_portfolio(folder: Path) -> None:
    """Two of the three experts, of exactly known worth."""
    import numpy as np

    from palate.core.types import PayoffTable
    from palate.portfolio.certificate import certify
    from palate.portfolio.record import Record, save_record
    from palate.portfolio.terms import Terms
    from research.portfolio.exact import exact_payoffs

    values = np.array([[0.9, 0.2, 0.3], [0.1, 0.8, 0.3], [0.2, 0.3, 0.7]])
    table = PayoffTable(
        objectives=OBJECTIVES,
        policies=OBJECTIVES,
        values=values,
        standard_errors=np.zeros((3, 3)),
        beta=0.1,
        kl=np.zeros(3),
        preferences=np.full((3, 3), np.nan),
    )
    payoffs, terms = exact_payoffs(table), Terms()
    certified = certify(payoffs, members=[0, 1], terms=terms)
    save_record(
        folder / "portfolio.json", Record(payoffs, OBJECTIVES[:2], (), terms, {}, certified)
    )


def _add_controller(folder: Path) -> None:
    """An untrained controller, which gives equal shares: what it mixes does not depend on order."""
    from palate.core.files import write_versioned
    from palate.library.controller import RUN_FILE, RUN_KIND, RUN_VERSION
    from palate.library.manifest import experts_key
    from palate.mixture.controller import new_controller
    from palate.models.trunk import TrunkSettings

    library = LibraryFolder.open(folder)
    base = load_base(library.manifest.base.path)
    controller = new_controller(
        TrunkSettings(hidden=8, layers=1, heads=2, feed_forward=8),
        experts=library.manifest.expert_names,
        n_vocab=len(base.tokenizer),
        tokenizer_fingerprint=base.tokenizer_fingerprint,
        seed=0,
    )
    key = experts_key(library.manifest)

    def fill(target: Path) -> None:
        controller.save(target)
        content = {"experts": key, "settings": {"fit": {"prompts": "own"}}, "combinations": []}
        write_versioned(target / RUN_FILE, kind=RUN_KIND, version=RUN_VERSION, content=content)

    library.with_controller(fill, key=key)
