"""Opens a library's folder: manifest, base and bank, compared with each other."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from palate.core.types import BaseRecord
from palate.engine.bank import AdapterBank
from palate.library.folder import MANIFEST, LibraryFolder
from palate.library.hub import pull_library
from palate.library.manifest import Manifest
from palate.models.load import Base, load_base
from palate.rewards.functions import RewardFunction, require_functions

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


class ServeOptions(TypedDict, total=False):
    """How a library is served; everything has a default."""

    store: Any  # from `palate.open_store`, or the URL of a database; `users.db` here by default
    host: str  # address to listen on; public ones need keys
    port: int  # to listen on; 8000 by default
    engine: Any  # that executes plans, such as `palate.VLLMEngine`; this process by default
    settings: Any  # `palate.serve.settings.ServeSettings`, or a mapping of its keys


def open_parts(
    folder: Path,
    *,
    base: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    reward_funcs: Mapping[str, RewardFunction] | None = None,
    revision: str | None = None,
) -> tuple[LibraryFolder, Base, AdapterBank]:
    """The folder, its base and its experts; a folder, GGUF file or hub id of a base has no experts.

    A hub id may also be that of a library; `revision` is the hub's.

    Raises:
        InvalidInputError: there is no library, its base cannot be found, or a function is for an
            unknown objective.
        FormatError: the base is not the library's, or a part was changed.
    """
    is_hub_id = not folder.exists() and bool(_HUB_ID.fullmatch(str(folder)))
    pulled = pull_library(str(folder), revision=revision) if is_hub_id else None
    is_base = (folder / "config.json").is_file() or folder.suffix == ".gguf" or is_hub_id
    if is_base and pulled is None and not (folder / MANIFEST).is_file():
        loaded = load_base(folder, revision=revision, device=device, dtype=dtype)
        manifest = Manifest(base_record(str(folder), loaded), (), beta=1.0, seed=0)
        return LibraryFolder(folder, manifest), loaded, AdapterBank(loaded, {})
    files = LibraryFolder.open(folder if pulled is None else pulled)
    files = replace(files, reward_funcs=reward_funcs or {}, is_foreign=pulled is not None)
    require_functions(files.reward_funcs, objectives=files.manifest.objective_names)
    record = files.manifest.base
    loaded = load_base(base or record.path, revision=record.revision, device=device, dtype=dtype)
    files.require_base(base_record(loaded.path, loaded))
    return files, loaded, AdapterBank.load(loaded, files.expert_folders())


def base_record(name: str, base: Base) -> BaseRecord:
    """What a manifest says of the base that was loaded under this name."""
    return BaseRecord(
        name, base.revision, base.fingerprint, base.tokenizer_fingerprint, base.text_fingerprint
    )
