"""The reference of the face: one entry for each name that `import palate` gives."""

import ast
from pathlib import Path

GROUPS = {
    "Answers": ("Library", "Output", "Score", "SamplingParams", "VLLMEngine"),
    "Decisions": ("Known", "Decision", "Method", "Messages"),
    "Users": ("open_store", "UserStore"),
    "Building and measuring": ("build", "evaluate"),
    "Errors": ("PalateError", "InvalidInputError", "FormatError", "MissingExtraError"),
}


def face(source: Path) -> dict[str, str]:
    """Where each name of the face is defined, by name; read from the imports for type checkers."""
    tree = ast.parse((source / "palate/__init__.py").read_text())
    places = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("palate."):
            for alias in node.names:
                places[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    places.pop("missing_extra", None)  # imported inside a function
    return places


def python_page(source: Path) -> str:
    """The page, in which mkdocstrings puts every docstring; a name without a group is an error."""
    places = face(source)
    grouped = {name for names in GROUPS.values() for name in names}
    if grouped != set(places):
        raise SystemExit(f"python_reference.py groups other names: {grouped ^ set(places)}")
    lines = ["# Python reference", "", "What `import palate` gives. How the names are used:"]
    lines += ["[Python](../docs/python.md).", ""]
    for title, names in GROUPS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: {places[name]}", "    options:", f"      heading: palate.{name}"]
            lines += [f"      toc_label: palate.{name}", ""]
    return "\n".join(lines)
