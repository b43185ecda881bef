"""The reference of the HTTP interface, from the server's own OpenAPI description."""

import json
from types import SimpleNamespace
from typing import Any, cast

from palate.serve.app import make_app
from palate.serve.settings import ServeSettings
from palate.serve.state import Served

BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "minLength": "characters: at least",
    "maxLength": "characters: at most",
}


def openapi() -> dict[str, Any]:
    """What a server answers at `/openapi.json`; no library is needed for it."""
    served = cast("Served", SimpleNamespace(settings=ServeSettings()))
    return make_app(served).openapi()


def openapi_text() -> str:
    """The same as a file."""
    return json.dumps(openapi(), indent=1) + "\n"


def http_page() -> str:
    """The page: requests, then the objects that they carry."""
    described = openapi()
    lines = [
        "# HTTP reference",
        "",
        "Made from the server's own description, which it gives at `/openapi.json`",
        "([the file](openapi.json)). How requests are used, and what the fields of `palate` mean:",
        "[serving](../docs/serving.md). Every error is an [ErrorOut](#errorout) with a 4xx or 5xx",
        "status.",
        "",
        "## Requests",
        "",
    ]
    for path, operations in described["paths"].items():
        for verb, operation in operations.items():
            lines += _operation(f"{verb.upper()} {path}", operation)
    lines += ["## Objects", ""]
    for name, schema in described.get("components", {}).get("schemas", {}).items():
        lines += _object(name, schema)
    return "\n".join(lines)


def _operation(title: str, operation: dict[str, Any]) -> list[str]:
    text = operation.get("description") or operation.get("summary") or ""
    lines = [f"### `{title}`", "", " ".join(text.split()), ""]
    rows = [
        (f"`{one['name']}` ({one['in']})", _kind(one.get("schema", {})), one.get("description", ""))
        for one in operation.get("parameters", [])
    ]
    body = _content(operation.get("requestBody", {}))
    if body:
        rows.append(("body", _kind(body), ""))
    for status, response in operation.get("responses", {}).items():
        if status.isdigit():
            rows.append((f"answer {status}", _kind(_content(response)), ""))
    return [*lines, *_table(("part", "type", "what"), rows), ""]


def _content(part: dict[str, Any]) -> dict[str, Any]:
    for media in part.get("content", {}).values():
        return media.get("schema", {})
    return {}


def _object(name: str, schema: dict[str, Any]) -> list[str]:
    text = " ".join(schema.get("description", "").split())
    required = set(schema.get("required", ()))
    rows = []
    for key, value in schema.get("properties", {}).items():
        default = "must be given" if key in required else _default(value)
        rows.append((f"`{key}`", _kind(value), default))
    table = _table(("field", "type", "default"), rows) if rows else [_kind(schema)]
    return [f"### {name} {{ #{name.lower()} }}", "", text, "", *table, ""]


def _default(schema: dict[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def _kind(schema: dict[str, Any]) -> str:
    """A schema in words, with links to the objects that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[many]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum") or [schema["const"]]
        return " or ".join(f"`{json.dumps(value)}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {_kind(schema['additionalProperties'])}"
    said = [f"{words} {schema[key]:.19g}" for key, words in BOUNDS.items() if key in schema]
    return schema.get("type", "anything") + (f" ({', '.join(said)})" if said else "")


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    if not any(row[-1] for row in rows):  # nothing to say in the last column
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    head = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return head + ["| " + " | ".join(row) + " |" for row in cells]
