"""What the rows of a folder were made for: a library that changed in place has other answers.

Rows name a library by its place in the settings, and the settings by its name. What is made for it
(compared answers, their features, users, adapters) and every row rest on its content.
"""

from pathlib import Path

from palate import Library
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value, read_json, write_json
from palate.rewards.reward import load_reward
from research.board.judges import HELD_BACK
from research.board.parts import Parts

FILE = "made-for.json"


def require_made_for(parts: Parts, *, users: Path) -> None:
    """Return where the folder is new, or of the library and users as they are; note them there.

    Args:
        parts: A library of the board.
        users: The file of users, of which the first are the board's.

    Raises:
        InvalidInputError: the library or a user is not as it was when rows were made.
    """
    path = parts.folder / FILE
    wanted = [vars(user) for user in parts.users]
    now = {"library": content_key(parts.library), "users": hash_value(wanted)}
    before = read_json(path, what="note of what rows were made for") if path.is_file() else now
    for name, what in (("library", parts.library.files.folder), ("users", users)):
        if before.get(name) != now[name]:
            raise InvalidInputError(
                f"The {name} in {str(what)!r} changed since rows were made in "
                f"{str(parts.folder.parent)!r}; give a new folder with --out."
            )
    write_json(path, now)


def require_clean_judges(first: Library, other: Library, *, number: int) -> None:
    """Return where what is held back from the first library's teachers taught the other's neither.

    All rows are judged by the first library's held-back rewards.

    Raises:
        InvalidInputError: the libraries' teachers of an objective learned from different pairs.
    """
    for name in first.manifest.objective_names:
        folders = [library.files.reward_folder(name) for library in (first, other)]
        if not all((folder / HELD_BACK).is_dir() for folder in folders):
            continue
        own, theirs = (load_reward(folder).card.train.hash for folder in folders)
        if own != theirs:
            raise InvalidInputError(
                f"The judge of {name!r} may have taught library {number}: its teacher learned from "
                "other pairs than the first library's; give both the same 'pairs' and 'validation'."
            )


def content_key(library: Library) -> str:
    """Hash of the descriptions in a library's folder, which hold hashes of its other files."""
    folder = library.files.folder
    paths = sorted([*folder.glob("*.json"), *folder.glob("policies/*.json")])
    return hash_value([[path.name, path.read_text()] for path in paths])
