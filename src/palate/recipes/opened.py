"""A library, opened: its base, its bank and an engine that answers from both."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palate.core.errors import FormatError
from palate.experts.library import MANIFEST, Library
from palate.experts.manifest import BaseRecord, Manifest
from palate.models.bank import AdapterBank
from palate.models.engine import LocalEngine
from palate.models.load import Base, load_base
from palate.recipes.palm_route import LibraryPortfolio, open_portfolio
from palate.world.prompts import base_folder

WORLD = "world"  # in place of a path: the base that comes with palate


@dataclass(frozen=True, eq=False)
class Opened:
    """What is needed to answer from a library.

    Attributes:
        library: The folder and its manifest.
        base: Loaded and compared with the manifest.
        bank: The experts, in the manifest's order.
        engine: Executes plans on both.
    """

    library: Library
    base: Base
    bank: AdapterBank
    engine: LocalEngine

    @cached_property
    def portfolio(self) -> LibraryPortfolio | None:
        """The library's certified members, read once; `None` where it has none.

        Raises:
            FormatError: they are of other experts or objectives than the library's.
        """
        return open_portfolio(self.library)


def base_path(name: str) -> str:
    """The folder or hub id behind a base's name; `world` is the base that comes with palate."""
    return str(base_folder()) if name == WORLD else name


def open_library(
    folder: Path, *, base: str | None = None, device: str = "cpu", dtype: str = "float32"
) -> Opened:
    """The library in `folder`, ready to answer.

    Args:
        folder: Made by `palate build` or `palate demo`.
        base: Where the base is now, if not where the library says.
        device: As torch names devices.
        dtype: Of the base's parameters.

    Raises:
        InvalidInputError: there is no library, or its base cannot be found.
        FormatError: the base is not the library's, or a part was changed.
    """
    library = Library.open(folder)
    record = library.manifest.base
    loaded = load_base(
        base_path(base or record.path), revision=record.revision, device=device, dtype=dtype
    )
    if loaded.fingerprint != record.fingerprint:
        raise FormatError(
            f"The library {str(folder)!r} belongs to the base {record.path!r} (hash "
            f"{record.fingerprint[:12]}), but {loaded.path!r} has hash {loaded.fingerprint[:12]}; "
            "give the base it was built on."
        )
    bank = AdapterBank.load(loaded, library.expert_folders())
    return Opened(library, loaded, bank, LocalEngine(loaded, bank))


def open_for_scoring(
    folder: Path, *, base: str | None = None
) -> tuple[Base, AdapterBank, Manifest]:
    """Base, bank and manifest of a library, or of a bare base model with no experts.

    Raises:
        InvalidInputError: the folder is neither.
        FormatError: as in `open_library`.
    """
    if (folder / MANIFEST).is_file() or not (folder / "config.json").is_file():
        opened = open_library(folder, base=base)
        return opened.base, opened.bank, opened.library.manifest
    loaded = load_base(folder)
    record = BaseRecord(str(folder), None, loaded.fingerprint, loaded.tokenizer_fingerprint)
    return loaded, AdapterBank(loaded, {}), Manifest(record, (), beta=1.0, seed=0)
