"""One expert more or less in a finished library: its folder, its manifest and its `soup.json`.

What was measured for the library as it was counts no more: `methods.json` and a controller are of
other experts then, and are left out until they are made anew. The portfolio stays.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.engine.bank import AdapterBank
from palate.library.features import log_ratios
from palate.library.folder import LibraryFolder, hash_folder
from palate.library.library import Library
from palate.library.manifest import ExpertRecord
from palate.library.soup import SOUP, answers_to_measure, extended_basis
from palate.models.adapter import CONFIG, PARAMETERS
from palate.soup.basis_file import load_basis, save_basis
from palate.training.anchors import Anchor, require_name

N_ANSWERS = 16  # on which the scale of a new expert's features is measured


def add_expert(library: Library, name: str, source: Path, *, wanted: Mapping[str, float]) -> None:
    """Copy the PEFT adapter in `source` into the library's folder as its last expert.

    `wanted` is the preference that it was trained for, shares by objective. Nothing but the two
    files of an adapter is read.

    Raises:
        InvalidInputError: the name is taken or no name, there is no adapter, or the preference is
            off the simplex.
        FormatError: the adapter does not fit the base.
    """
    files = LibraryFolder.open(library.files.folder)
    require_name(name, what="expert")
    if name in files.manifest.expert_names:
        raise InvalidInputError(f"The library has an expert {name!r}; remove it, or give a name.")
    if not (source / PARAMETERS).is_file() or not (source / CONFIG).is_file():
        raise InvalidInputError(
            f"There is no adapter {name!r}; put its {CONFIG} and {PARAMETERS} into a folder of "
            "that name beside the others."
        )
    direction = {"name": name, "direction": wanted}
    anchor = Anchor.from_json(direction, objectives=files.manifest.objective_names)
    AdapterBank.load(library.base, {name: source}).close()  # refuses what does not fit
    answers = answers_to_measure(files, library.base, library.bank)[:N_ANSWERS]
    tilts = files.manifest.beta * log_ratios(library.base, {name: source}, answers)
    record = ExpertRecord(
        anchor,
        key=hash_value(hash_folder(source)),
        files={},
        tilt_mean=float(tilts.mean()),
        tilt_sd=float(tilts.std()),
        n_tilts=len(answers),
    )

    def fill(folder: Path) -> None:
        for file in (CONFIG, PARAMETERS):
            shutil.copy(source / file, folder / file)

    _extend_soup(files.with_expert(record, fill))


def remove_expert(library: Library, name: str) -> None:
    """Take the expert out of the library's manifest; its folder stays.

    Raises:
        InvalidInputError: there is no such expert, it is the last one, the safety floor holds it,
            or a member of the portfolio is made of it.
    """
    files, portfolio = LibraryFolder.open(library.files.folder), library.portfolio
    files.manifest.expert(name)
    members = {} if portfolio is None else portfolio.policies
    used = [member for member, policy in members.items() if policy.coefficients.get(name)]
    floor = library.floor
    reasons = {
        "it is the last one": files.manifest.expert_names == (name,),
        "the safety floor holds it": floor is not None and floor.name == name,
        f"the portfolio's member {''.join(used[:1])!r} is made of it": bool(used),
    }
    for reason, holds in reasons.items():
        if holds:
            raise InvalidInputError(f"The expert {name!r} stays, because {reason}.")
    _extend_soup(files.without_expert(name))


def _extend_soup(files: LibraryFolder) -> None:
    path = files.folder / SOUP
    if path.is_file():
        save_basis(path, extended_basis(load_basis(path), files.manifest))
