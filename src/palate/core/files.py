"""Files that are whole or absent: atomic writes, versioned JSON, JSONL, hashes.

A file is written beside its target and renamed over it, so a reader sees the old content or the
new, never half of either. JSONL logs that are appended to may end in a torn line after a crash.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

from palate.core.errors import FormatError, InvalidInputError, PalateError

JsonObject = dict[str, Any]


def require_file(path: Path, *, what: str) -> Path:
    """The path, if it is a file; InvalidInputError where there is no such file."""
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"The {what} {str(path)!r} {fault}; give the path of a file.")
    return path


def read_text(path: Path, *, what: str) -> str:
    """The text of a UTF-8 file, without a byte order mark; InvalidInputError where it is none."""
    try:
        return require_file(path, what=what).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"The {what} {str(path)!r} is not UTF-8 text ({error}); convert it."
        ) from error


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text, all of it or nothing."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write bytes, all of them or nothing."""
    if path.exists() and not path.is_file():  # a device or pipe, such as /dev/stdout
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def write_folder_atomic(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` by `fill(temporary folder)`, then rename; an old folder is replaced.

    If `fill` raises, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        fill(temporary)
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def dump_json(value: object, *, indent: int | None = 2) -> str:
    """JSON text; numpy values become plain ones; InvalidInputError where a number is not finite."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise InvalidInputError(
            f"A value to be written as JSON is not finite ({error}); replace it by null."
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, with a final newline."""
    write_text_atomic(path, dump_json(value) + "\n")


def read_json(path: Path, *, what: str = "file") -> Any:
    """The parsed content; InvalidInputError where the file is missing or is not JSON."""
    try:
        return _parse(read_text(path, what=what))
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"The {what} {str(path)!r} is not valid JSON ({error}); repair it or write it anew."
        ) from error


def write_versioned(path: Path, *, kind: str, version: int, content: Mapping[str, Any]) -> None:
    """Write a JSON object that says what it is: `{"kind", "schema_version", ...content}`."""
    write_json(path, {"kind": kind, "schema_version": version, **content})


def read_versioned(path: Path, *, kind: str, version: int) -> JsonObject:
    """The object written by `write_versioned`.

    Raises:
        InvalidInputError: the file is missing or not JSON.
        FormatError: it is of another kind or of a newer or older schema version.
    """
    value = read_json(path, what=kind)
    own = value.get("kind") if isinstance(value, dict) else None
    if own != kind:
        fault = "does not say of what kind it is" if own is None else f"is of kind {own!r}"
        raise FormatError(f"The file {str(path)!r} {fault}, but {kind!r} is needed.")
    if value.get("schema_version") != version:
        raise FormatError(
            f"The file {str(path)!r} has schema version {value.get('schema_version')!r}, but this "
            f"palate reads version {version}; use the palate that wrote it."
        )
    return value


@contextmanager
def reading(path: Path, *, remedy: str = "write it anew") -> Generator[None]:
    """Make one sentence, which names the file, of whatever its content breaks in the block.

    Raises:
        PalateError: as in the block, with the file's name.
        FormatError: anything else was raised there; the remedy says what to do.
    """
    try:
        yield
    except PalateError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"The file {str(path)!r} cannot be used: {error}") from error
    except Exception as error:  # what a file holds may break any reader
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise FormatError(
            f"The file {str(path)!r} lacks or garbles a field ({reason}); {remedy}."
        ) from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text_atomic(path, "".join(dump_json(row, indent=None) + "\n" for row in rows))


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line and flush to disk before returning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(dump_json(row, indent=None) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(
    path: Path, *, what: str = "file", is_torn_end_dropped: bool = False
) -> list[JsonObject]:
    """The objects of `numbered_jsonl`, without the numbers of their lines."""
    return [*numbered_jsonl(path, what=what, is_torn_end_dropped=is_torn_end_dropped).values()]


def numbered_jsonl(
    path: Path, *, what: str = "file", is_torn_end_dropped: bool = False
) -> dict[int, JsonObject]:
    """The objects, one a line, by the number of the line; blank lines are skipped.

    A last line that is cut off, as after a crash, may be left out.

    Raises:
        InvalidInputError: the file is missing or not UTF-8, or a line is not a JSON object.
    """
    lines = require_file(path, what=what).read_bytes().split(b"\n")
    rows: dict[int, JsonObject] = {}
    for number, whole in enumerate(lines, start=1):
        line = whole.removeprefix(BOM_UTF8)  # also where files were joined
        if not line.strip():
            continue
        try:
            row = _parse(line.decode())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if is_torn_end_dropped and number == len(lines):
                break
            fault = "UTF-8 text" if isinstance(error, UnicodeDecodeError) else "valid JSON"
            raise InvalidInputError(
                f"Line {number} of the {what} {str(path)!r} is not {fault} ({error}); repair it."
            ) from error
        if not isinstance(row, dict):
            raise InvalidInputError(
                f"Line {number} of the {what} {str(path)!r} is not a JSON object; "
                "write one object a line."
            )
        rows[number] = row
    return rows


def hash_bytes(*parts: bytes) -> str:
    """SHA-256 in hexadecimal of the parts, each preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def hash_value(value: object) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
    return hash_bytes(text.encode())


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files, in the order of their names."""
    parts: list[bytes] = []
    for path in sorted(paths, key=lambda item: item.name):
        parts += [path.name.encode(), path.read_bytes()]
    return hash_bytes(*parts)


def _plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)  # numpy arrays and scalars, without importing numpy
    if callable(to_list):
        return to_list()
    if isinstance(value, Path):
        return str(value)
    raise InvalidInputError(f"A value of type {type(value).__name__} cannot be written as JSON.")


def _parse(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:  # nested too deeply, a number of too many digits
        raise json.JSONDecodeError(f"it cannot be read: {error}", text, 0) from error
    if "\\ud" in text.lower():  # half a pair of escapes is no character and cannot be written
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise json.JSONDecodeError("half a surrogate pair", text, 0) from error
    return value


def _finite(text: str) -> float:
    if not isfinite(value := float(text)):
        raise json.JSONDecodeError(f"{text[:20]} is not a finite number", text, 0)
    return value


def is_finite_number(value: object) -> bool:
    """Whether a JSON value is a finite number (and not a boolean)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # an integer may be too large for a float
