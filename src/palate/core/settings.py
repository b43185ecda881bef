"""Settings: YAML, strictly typed, every key settable from the command line.

A settings class derives from `Settings`; its fields and defaults are declared once, beside the
algorithm they belong to. An unknown key is an error that names it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from palate.core.errors import InvalidInputError
from palate.core.files import read_text

SettingsType = TypeVar("SettingsType", bound="Settings")
_RENAMED = "renamed_key"


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # earlier names of keys to present ones, TRL's; earlier ones are refused, naming these
    RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _has_present_names(cls, values: Any) -> Any:
        names = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
        for name in names:
            if name in cls.RENAMED:
                context = {"old": name, "new": cls.RENAMED[name]}
                raise PydanticCustomError(_RENAMED, "{old} is now {new}", context)
        return values

    @classmethod
    def renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data of an earlier version with the present names of keys."""
        return {cls.RENAMED.get(name, name): value for name, value in values.items()}

    @classmethod
    def checked(cls, values: object, *, source: str) -> Self:
        """The settings held by plain data; InvalidInputError where a key or value is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidInputError(_sentence(error, source=source)) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which the last would hold without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise InvalidInputError(f"the key {max(keys, key=keys.count)!r} occurs twice")
        return node


def parsed_yaml(text: str, *, what: str) -> Any:
    """The content of a YAML text; InvalidInputError where it is none or a key occurs twice."""
    try:
        return _Loader(text).get_single_data()
    except Exception as error:  # tags, dates and depth break the reader in ways of their own
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"The {what} is not valid YAML ({reason}); correct it.") from error


def load_settings(
    settings: type[SettingsType],
    path: Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
) -> SettingsType:
    """Settings from a YAML file or plain data, and `key.sub=value` overrides, read as YAML.

    Raises:
        InvalidInputError: the file is missing or not YAML, or a key or value is not allowed.
    """
    values: Any = deepcopy(dict(path)) if isinstance(path, Mapping) else {}
    source = "settings"
    if isinstance(path, Path):
        source = str(path)
        what = f"settings file {source!r}"
        values = parsed_yaml(read_text(path, what="settings file"), what=what) or {}
    if not isinstance(values, dict):
        raise InvalidInputError(f"The settings file {source!r} is not a mapping of keys to values.")
    for override in overrides:
        _set(values, override)
    return settings.checked(values, source=source)


def _set(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise InvalidInputError(f"The override {override!r} is not of the form key=value.")
    *folders, last = key.split(".")
    for folder in folders:
        inner = values.setdefault(folder, {})
        if not isinstance(inner, dict):
            raise InvalidInputError(
                f"The override {override!r} goes below {folder!r}, which is a value."
            )
        values = inner
    values[last] = parsed_yaml(text, what=f"value of the override {override!r}")


def _sentence(error: ValidationError, *, source: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"The key {key!r} in {source} is unknown; remove it or correct its name{more}."
    if first["type"] == _RENAMED:
        names = first.get("ctx", {})
        old = ".".join(filter(None, (key, names["old"])))
        return f"The key {old!r} in {source} is now called {names['new']!r} as in TRL; rename it."
    if first["type"] == "missing":
        return f"The key {key!r} in {source} is missing; add it{more}."
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not key:
        return f"The settings in {source} do not hold: {reason}{more}."
    value = repr(first.get("input"))[:80]
    return f"The key {key!r} in {source} has the value {value}: {reason}{more}."
