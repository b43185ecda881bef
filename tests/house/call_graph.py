"""Which functions of the package anybody can reach, by walking the names that bodies use.

A node is a function, a class or a method at the top of a module. What a body names leads on: through
the module's own names, its imports, and, for attributes, to every method of that name of a class that
is reached. Roots are what runs without a caller in the package: statements of modules, decorated
functions (commands, routes, validators), the face, entry points, and the imports that documents show.
The walk knows names, not types: it may call something reached that is not, never the other way round.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
DOCUMENTED = re.compile(r"from (palate[\w.]*) import \(?([\w\s,]+)")


@dataclass
class Node:
    """A function, class or method.

    Attributes:
        tree: Its definition.
        owner: The class of a method, by key; empty for what is at the top of a module.
    """

    tree: Function | ast.ClassDef
    owner: str = ""


@dataclass
class Module:
    """One module: what it defines, and where its imported names come from."""

    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)


def unreached(root: Path) -> list[str]:
    """Public functions and methods that nothing reaches, as `module.name`, sorted."""
    modules = dict(_modules(root))
    nodes = {key: node for name, module in modules.items() for key, node in _nodes(name, module)}
    methods: dict[str, list[str]] = {}
    for key, node in nodes.items():
        if node.owner:
            methods.setdefault(key.rsplit(".", 1)[1], []).append(key)
    reached: set[str] = set()
    waiting = [key for key in _roots(root, modules) if key in nodes]
    attributes = _documented_attributes(root)
    for name, module in modules.items():
        for statement in module.tree.body:
            if not isinstance(statement, Function | ast.ClassDef):
                waiting += [k for k in _used(name, module, statement, attributes) if k in nodes]
    while waiting:
        key = waiting.pop()
        if key in reached:
            continue
        reached.add(key)
        node = nodes[key]
        name = _module_of(key, modules)
        body = node.tree
        if isinstance(body, ast.ClassDef):
            parts: list[ast.AST] = [s for s in body.body if not isinstance(s, Function)]
            parts += [*body.bases, *body.decorator_list]
            inherits = bool(body.bases)
            waiting += [
                f"{key}.{s.name}"
                for s in body.body
                if isinstance(s, Function)
                and (s.name.startswith("__") or s.decorator_list and not _is_property(s))
            ]
            if inherits:  # a base's method may call it; what the base is of is not known here
                waiting += [
                    f"{key}.{s.name}"
                    for s in body.body
                    if isinstance(s, Function) and _is_of_library(name, modules, body)
                ]
        else:
            parts = [body]
        for part in parts:
            waiting += [k for k in _used(name, modules[name], part, attributes) if k in nodes]
        waiting += [k for a in attributes for k in methods.get(a, ()) if nodes[k].owner in reached]
    return sorted(
        key
        for key, node in nodes.items()
        if key not in reached
        and not key.rsplit(".", 1)[1].startswith("_")
        and isinstance(node.tree, Function)
        and "migrations" not in key
        and not _is_protocol(nodes, node)
    )


def _modules(root: Path) -> Iterator[tuple[str, Module]]:
    source = root / "src"
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        module = Module(ast.parse(path.read_text()))
        for statement in ast.walk(module.tree):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                for alias in statement.names:
                    module.imports[alias.asname or alias.name] = (
                        f"{statement.module}.{alias.name}"
                    )
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    module.imports[alias.asname or alias.name.split(".")[0]] = alias.name
        yield name, module


def _nodes(name: str, module: Module) -> Iterator[tuple[str, Node]]:
    for statement in module.tree.body:
        if isinstance(statement, Function | ast.ClassDef):
            key = f"{name}.{statement.name}"
            yield key, Node(statement)
            if isinstance(statement, ast.ClassDef):
                for inner in statement.body:
                    if isinstance(inner, Function):
                        yield f"{key}.{inner.name}", Node(inner, owner=key)


def _roots(root: Path, modules: dict[str, Module]) -> Iterator[str]:
    for name, module in modules.items():
        for statement in module.tree.body:
            if isinstance(statement, Function) and statement.decorator_list:
                yield f"{name}.{statement.name}"
        for constant in ast.walk(module.tree):  # "palate.library.library:Library", "palate.core.x"
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield constant.value.replace(":", ".")
    face = modules["palate"].tree
    strings = [c.value for c in ast.walk(face) if isinstance(c, ast.Constant)]
    texts = [s for s in strings if isinstance(s, str)]
    yield from (f"{a}.{b}" for a in texts if a.startswith("palate") for b in texts)
    yield from (f"palate.{n}" for n in ("__getattr__", "__dir__"))
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for target in [
        *project["scripts"].values(),
        *(t for group in project.get("entry-points", {}).values() for t in group.values()),
    ]:
        yield target.replace(":", ".")
    documents = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "examples").rglob("*")]
    for path in documents:
        if path.suffix in {".md", ".py"}:
            for module_name, names in DOCUMENTED.findall(path.read_text()):
                yield from (f"{module_name}.{n}" for n in re.findall(r"\w+", names))


def _documented_attributes(root: Path) -> set[str]:
    """Attributes that the documents' Python uses: methods of what a user holds."""
    documents = [root / "README.md", *(root / "docs").rglob("*.md")]
    code = [b for d in documents for b in re.findall(r"```python\n(.*?)```", d.read_text(), re.DOTALL)]
    code += [path.read_text() for path in (root / "examples").rglob("*.py")]
    return {name for block in code for name in re.findall(r"\.(\w+)", block)}


def _used(name: str, module: Module, tree: ast.AST, attributes: set[str]) -> Iterator[str]:
    for part in ast.walk(tree):
        if isinstance(part, ast.Name):
            yield module.imports.get(part.id, f"{name}.{part.id}")
        elif isinstance(part, ast.Attribute):
            attributes.add(part.attr)
            if isinstance(part.value, ast.Name) and part.value.id in module.imports:
                yield f"{module.imports[part.value.id]}.{part.attr}"
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield f"{name}.{part.value}"  # a quoted annotation


def _module_of(key: str, modules: dict[str, Module]) -> str:
    name = key
    while name not in modules:
        name = name.rsplit(".", 1)[0]
    return name


def _is_property(function: Function) -> bool:
    return any("property" in ast.unparse(d) for d in function.decorator_list)


def _is_of_library(name: str, modules: dict[str, Module], tree: ast.ClassDef) -> bool:
    """Whether a base is another library's, which may call any method that we override."""
    bases = [ast.unparse(base).split("[")[0].split(".")[0] for base in tree.bases]
    imports = modules[name].imports
    return any(base in imports and not imports[base].startswith("palate") for base in bases)


def _is_protocol(nodes: dict[str, Node], node: Node) -> bool:
    owner = nodes.get(node.owner)
    return isinstance(owner and owner.tree, ast.ClassDef) and any(
        ast.unparse(base).split("[")[0].endswith("Protocol") for base in owner.tree.bases
    )
