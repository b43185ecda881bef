"""The reference of run files, from the settings classes: keys, types, defaults, and what they do.

What a key does is the comment beside it in the source, or above it. Read without importing.
"""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from field_comments import comment_of

FILES = {  # class of a file's whole content: what it is given to
    "RunSettings": "The run file of `palate build RUN.yaml --out LIBRARY`.",
    "MixtureRun": "The run file of `palate mixture fit LIBRARY RUN.yaml`.",
    "Suite": "The suite of `palate evaluate LIBRARY SUITE.yaml --out FOLDER`.",
    "RewardJob": "Settings of `palate rewards train`.",
    "PayoffJobSettings": "Settings of `palate portfolio measure`.",
    "ServeSettings": "The file of `palate serve LIBRARY --config FILE`.",
    "VllmSettings": "The file of `--engine vllm --engine-config FILE`.",
    "OpenAISettings": "The file of `--engine openai --engine-config FILE`.",
}


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: As it is written in a file.
        kind: Its type, as Python writes it.
        default: As Python writes it; empty where the key must be given.
        bounds: Of numbers, such as `ge=1`.
        text: What it does.
    """

    name: str
    kind: str
    default: str
    bounds: str
    text: str


@dataclass(frozen=True)
class Section:
    """One settings class: its name, the first paragraph of its docstring, its keys."""

    name: str
    text: str
    keys: tuple[Key, ...]


def sections(source: Path) -> dict[str, Section]:
    """All settings classes of the package by name."""
    every: dict[str, tuple[ast.ClassDef, list[str]]] = {}
    constants: dict[str, str] = {}
    for path in sorted((source / "palate").rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        constants |= _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                every[node.name] = (node, text.splitlines())
    return {
        name: Section(name, _first_paragraph(node), tuple(_keys(node, lines, constants)))
        for name, (node, lines) in every.items()
        if _is_settings(name, every)
    }


def _constants(tree: ast.Module) -> dict[str, str]:
    """Names in capitals that a module gives a number or a text."""
    return {
        target.id: ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def _is_settings(name: str, every: dict[str, tuple[ast.ClassDef, list[str]]]) -> bool:
    bases = [base.id for base in every[name][0].bases if isinstance(base, ast.Name)]
    return "Settings" in bases or any(base in every and _is_settings(base, every) for base in bases)


def _first_paragraph(node: ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())


def _keys(node: ast.ClassDef, lines: list[str], constants: dict[str, str]) -> list[Key]:
    keys = []
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        kind = ast.unparse(item.annotation)
        if kind.startswith("ClassVar") or item.target.id.startswith("_"):
            continue
        default, bounds = _default(item.value)
        default = constants.get(default, default)
        keys.append(Key(item.target.id, kind, default, bounds, comment_of(item, lines)))
    return keys


def _default(value: ast.expr | None) -> tuple[str, str]:
    if value is None:
        return "", ""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        named = {one.arg or "": ast.unparse(one.value) for one in value.keywords}
        default = named.pop("default", ast.unparse(value.args[0]) if value.args else "")
        factory = named.pop("default_factory", "")
        bounds = ", ".join(f"{name}={text}" for name, text in named.items())
        return default or (f"{factory}()" if factory else ""), bounds
    return ast.unparse(value), ""


def settings_page(source: Path) -> str:
    """The page: every file's keys, then the sections that its keys hold."""
    known = sections(source)
    lines = [
        "# Run files",
        "",
        "Made from the settings classes in the source. Every file is YAML; an unknown key is an",
        "error that names it; `--set key.sub=value` changes one key. Keys without a default must",
        "be given. `ge`, `gt`, `le` and `lt` are bounds: at least, more than, at most, less than.",
        "",
    ]
    done: set[str] = set()
    for root, what in FILES.items():
        left = [root]
        while left:
            name = left.pop(0)
            if name in done:
                continue
            done.add(name)
            level = "##" if name in FILES else "###"
            lines += [f"{level} {name} {{ #{name.lower()} }}", ""]
            if name in FILES:
                lines += [what, ""]
            lines += [*textwrap.wrap(known[name].text, 110), "", *_table(known[name], known), ""]
            left += [one for one in _inner(known[name], known) if one not in FILES]
    return "\n".join(lines)


def _inner(section: Section, known: dict[str, Section]) -> list[str]:
    words = [word for key in section.keys for word in re.findall(r"\w+", key.kind)]
    return [word for word in dict.fromkeys(words) if word in known]


def _table(section: Section, known: dict[str, Section]) -> list[str]:
    rows = ["| key | type | default | what |", "|---|---|---|---|"]
    for key in section.keys:
        kind = _words(ast.parse(key.kind, mode="eval").body, known)
        default = re.sub(r"^'(.*)'$", r"\1", key.default)
        default = {"None": "null", "True": "true", "False": "false", "()": "[]"}.get(
            default, default
        )
        default = _code(default) if default and not re.fullmatch(r"\w+\(\)", default) else ""
        text = key.text.replace("|", "\\|") + (f" ({_code(key.bounds)})" if key.bounds else "")
        rows.append(f"| `{key.name}` | {kind} | {default} | {text.strip()} |")
    return rows


WORDS = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "`true` or `false`",
    "Path": "path",
    "None": "`null`",
    "Any": "anything",
    "Prompts": "path, or list of text",
}


def _words(node: ast.expr, known: dict[str, Section]) -> str:
    """A type as those who write YAML know it; settings classes as links to their keys."""
    if isinstance(node, ast.BinOp):  # one or the other
        return f"{_words(node.left, known)} or {_words(node.right, known)}"
    if not isinstance(node, ast.Subscript):
        text = ast.unparse(node).strip("'")
        if text in known:
            return f"[{text}](#{text.lower()})"
        return WORDS.get(text, f"`{text}`" if isinstance(node, ast.Constant) else text)
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    match ast.unparse(node.value):
        case "Literal":
            return " or ".join(_code(ast.unparse(one).strip("'")) for one in inner)
        case "Annotated":
            return _words(inner[0], known)
        case "tuple" | "list":
            return f"list of {_words(inner[0], known)}"
        case _:
            return f"mapping to {_words(inner[-1], known)}"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
