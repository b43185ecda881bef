"""`palate portfolio grow`: a portfolio for a library that is there, or for a run file."""

from collections.abc import Sequence
from pathlib import Path

from palate.build.library import Built, build_library
from palate.build.run_file import RunSettings
from palate.core.files import dump_json
from palate.core.settings import load_settings
from palate.library.folder import MANIFEST, LibraryFolder


def grow_portfolio(
    target: Path, *, out: Path | None = None, overrides: Sequence[str] = ()
) -> Built:
    """Build the target with a portfolio section, its defaults where it has none.

    Args:
        target: Folder of a library, which is extended by the run file stored in it; or a run file.
        out: Folder of the library, for a run file; by default out/ and the file's name.
        overrides: `key=value`, such as `portfolio.tolerance=0.05`.

    Raises:
        InvalidInputError: a setting, a file, a reward or a folder is not as it must be.
        FormatError: the folder holds a library of another base or other objectives.
    """
    if (target / MANIFEST).is_file():
        settings = stored_settings(LibraryFolder.open(target), overrides=overrides)
        return build_library(settings, out=target)
    settings = load_settings(RunSettings, target, overrides=overrides)
    if settings.portfolio is None:
        settings = load_settings(RunSettings, target, overrides=[*overrides, "portfolio={}"])
    return build_library(settings, out=out or Path("out") / target.stem)


def stored_settings(library: LibraryFolder, *, overrides: Sequence[str] = ()) -> RunSettings:
    """The run file that the library was built by, with a portfolio section.

    Raises:
        InvalidInputError: the library was not built by a run file, or an override is wrong.
    """
    stored = {"portfolio": {}} | {
        key: value for key, value in library.manifest.config.items() if value is not None
    }
    texts = [f"{key}={dump_json(value, indent=None)}" for key, value in stored.items()]
    return load_settings(RunSettings, overrides=[*texts, *overrides])
