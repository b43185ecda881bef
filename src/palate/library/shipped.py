"""Libraries that come with the package, known by name wherever a library's folder is."""

from importlib.resources import files
from pathlib import Path

SHIPPED = ("smollm2-135m",)
_CHECKOUT = "libraries"  # beside src/, where the package runs from a checkout


def library_folder(folder: str | Path) -> Path:
    """The folder behind a library's name; another text, or a folder that exists, is itself."""
    path = Path(folder)
    if str(folder) not in SHIPPED or path.is_dir():
        return path
    package = Path(str(files("palate")))
    installed = package / _CHECKOUT / path
    return installed if installed.is_dir() else package.parents[1] / _CHECKOUT / path
