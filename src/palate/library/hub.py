"""Libraries on the Hugging Face hub: pushed with a model card, pulled without running anything.

Only the parts of a library travel: JSON, safetensors and Markdown, in the folders that a library
has. Parameters are compared with the hashes of `library.json` when the library is opened.
"""

from collections.abc import Iterator
from importlib.resources import files as resources
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download

from palate.core.errors import InvalidInputError, ProviderError
from palate.library.folder import CONTROLLER, MANIFEST, LibraryFolder
from palate.library.manifest import Manifest
from palate.models.embedded import BASES
from palate.training.save import CARD

SUFFIXES = (".json", ".jsonl", ".safetensors", ".md")
FOLDERS = ("experts", "rewards", "policies", CONTROLLER)
PATTERNS = ["*.json", "*.jsonl", *(f"{part}/*{end}" for part in FOLDERS for end in SUFFIXES)]


def push_library(
    files: LibraryFolder, repository: str, *, licence: str, data: str, is_private: bool
) -> str:
    """Put the library on the hub in one commit; the address of the commit.

    Raises:
        InvalidInputError: the licence is empty.
        ProviderError: the hub refused it, or cannot be reached.
    """
    if not licence.strip():
        raise InvalidInputError("The licence is empty; name one as the hub does, as in apache-2.0.")
    card = library_card(files.manifest, repository, licence=licence, data=data)
    operations = [
        CommitOperationAdd(path.relative_to(files.folder).as_posix(), path)
        for path in _parts(files.folder)
    ]
    operations.append(CommitOperationAdd(CARD, card.encode()))
    try:
        api = HfApi()
        api.create_repo(repository, private=is_private, exist_ok=True)
        message = "Push a palate library"
        return str(api.create_commit(repository, operations, commit_message=message).commit_url)
    except Exception as error:  # whatever the hub, the network or a name does
        reason = str(error).strip().partition("\n")[0]
        raise ProviderError(
            f"The library cannot be pushed to {repository!r} ({reason}); check the name, and run "
            "`hf auth login`."
        ) from error


def pull_library(repository: str, *, revision: str | None) -> Path | None:
    """The folder with the library's files, from the hub or its cache; `None` where it is none.

    A repository without `library.json` may be a bare base, which is for others to read.
    """
    try:
        hf_hub_download(repository, MANIFEST, revision=revision)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=PATTERNS))
    except (OSError, ValueError):  # unknown, unreachable, or no library
        return None


def library_card(manifest: Manifest, repository: str, *, licence: str, data: str) -> str:
    """The model card, as Markdown with the hub's front matter."""
    path, names = manifest.base.path, manifest.objective_names
    base = BASES[path].hub_id if path in BASES else path
    front = {"license": licence, "library_name": "palate", "tags": ["palate", "lora", "peft"]}
    if not Path(base).is_absolute():
        front["base_model"] = base
    experts = [
        f"| {record.anchor.name} | {_wanted(record.anchor.to_json()['direction'])} "
        f"| `{record.key[:16]}` |"
        for record in manifest.experts
    ]
    template = resources("palate.library").joinpath("card.md").read_text(encoding="utf-8")
    body = template.format(
        title=repository.rpartition("/")[2],
        repository=repository,
        n=len(manifest.experts),
        base=Path(base).name if Path(base).is_absolute() else base,
        fingerprint=manifest.base.fingerprint,
        data=f"Data: {data}" if data else "",
        objective=names[0] if names else "",
        objectives="\n".join(f"| {o.name} | {o.description} |" for o in manifest.objectives),
        experts="\n".join(experts),
        versions=", ".join(f"{name} {number}" for name, number in manifest.versions.items()),
    )
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{body}"


def _wanted(direction: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in direction.items() if share)


def _parts(folder: Path) -> Iterator[Path]:
    """The library's files, without caches, unfinished parts and its own card."""
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        is_part = len(place.parts) == 1 or place.parts[0] in FOLDERS
        is_hidden = any(part.startswith(".") for part in place.parts) or "unfinished" in path.name
        if is_part and not is_hidden and path.suffix in SUFFIXES and str(place) != CARD:
            yield path
