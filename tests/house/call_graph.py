"""Which functions of the package anybody can reach, by walking the names that bodies use.

A node is a function, a class or a method at the top of a module. The names in its body lead on:
through the module's own names, its imports, and, for attributes, to every method of that name of a
class that is reached. Roots run without a caller in the package: statements of modules, decorated
functions (commands, routes, validators), the face, entry points, what documents import and call,
and what the laboratory imports from the light folders, which are open to every user. The walk knows
names, not types: it may reach a method that only shares another's name, but it never misses one
that is called.
"""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
IMPORT = re.compile(r"from (palate[\w.]*) import \(?([\w\s,]+)")
OPEN = re.compile(r"palate\.(core|metrics|portfolio|soup|preferences)\b")
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@dataclass
class Node:
    """A function, class or method.

    Attributes:
        module: Name of its module.
        tree: Its definition.
        owner: Key of a method's class; empty for what is at the top of a module.
    """

    module: str
    tree: Function | ast.ClassDef
    owner: str = ""


@dataclass
class Module:
    """One module, and where its imported names come from."""

    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)


@dataclass
class Walk:
    """What is reached so far.

    Attributes:
        modules: By name.
        nodes: By key, `module.name` or `module.Class.name`.
        attributes: Every attribute that something reached uses.
        reached: Keys.
    """

    modules: dict[str, Module]
    nodes: dict[str, Node]
    attributes: set[str]
    reached: set[str] = field(default_factory=set)

    def run(self, keys: Iterable[str]) -> None:
        """Reach the keys and everything that they lead to."""
        waiting = [key for key in keys if key in self.nodes]
        while waiting:
            while waiting:
                key = waiting.pop()
                if key not in self.reached:
                    self.reached.add(key)
                    waiting += [k for k in self._leads_to(key) if k in self.nodes]
            waiting = [
                key
                for key, node in self.nodes.items()
                if node.owner in self.reached
                and key not in self.reached
                and key.rsplit(".", 1)[1] in self.attributes
            ]

    def used(self, module: str, tree: ast.AST) -> Iterator[str]:
        """Keys that a piece of a module may name."""
        imports = self.modules[module].imports
        for part in ast.walk(tree):
            if isinstance(part, ast.Name):
                yield imports.get(part.id, f"{module}.{part.id}")
            elif isinstance(part, ast.Attribute):
                self.attributes.add(part.attr)
                if isinstance(part.value, ast.Name) and part.value.id in imports:
                    yield f"{imports[part.value.id]}.{part.attr}"
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield f"{module}.{part.value}"  # a quoted annotation

    def _leads_to(self, key: str) -> Iterator[str]:
        node = self.nodes[key]
        if not isinstance(node.tree, ast.ClassDef):
            yield from self.used(node.module, node.tree)
            return
        is_called_from_outside = self._has_foreign_base(node)
        for part in [*node.tree.bases, *node.tree.decorator_list, *node.tree.keywords]:
            yield from self.used(node.module, part)
        for part in node.tree.body:
            if not isinstance(part, Function):
                yield from self.used(node.module, part)
            elif part.name.startswith("__") or _is_registered(part) or is_called_from_outside:
                yield f"{key}.{part.name}"

    def _has_foreign_base(self, node: Node) -> bool:
        """Whether a base is another library's, which may call any method that is overridden."""
        assert isinstance(node.tree, ast.ClassDef)
        bases = [ast.unparse(base).split("[")[0].split(".")[0] for base in node.tree.bases]
        imports = self.modules[node.module].imports
        return any(base in imports and not imports[base].startswith("palate") for base in bases)

    def is_protocol(self, node: Node) -> bool:
        """Whether it is a method that a protocol asks for."""
        owner = self.nodes[node.owner].tree if node.owner else node.tree
        bases = owner.bases if isinstance(owner, ast.ClassDef) else []
        return any(ast.unparse(base).split("[")[0].endswith("Protocol") for base in bases)


def unreached(root: Path) -> list[str]:
    """Public functions and methods that nothing reaches, as `module.name`, sorted."""
    modules = dict(_modules(root / "src"))
    nodes = {key: node for name, module in modules.items() for key, node in _nodes(name, module)}
    walk = Walk(modules, nodes, attributes=_documented_attributes(root))
    walk.run([*_roots_of_modules(walk), *_face(modules), *_entry_points(root), *_documented(root)])
    return sorted(
        key
        for key, node in nodes.items()
        if key not in walk.reached
        and not key.rsplit(".", 1)[1].startswith("_")
        and isinstance(node.tree, Function)
        and ".migrations." not in key
        and not walk.is_protocol(node)
    )


def _modules(source: Path) -> Iterator[tuple[str, Module]]:
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        module = Module(ast.parse(path.read_text()))
        for part in ast.walk(module.tree):
            if isinstance(part, ast.ImportFrom) and part.module:
                for alias in part.names:
                    module.imports[alias.asname or alias.name] = f"{part.module}.{alias.name}"
            elif isinstance(part, ast.Import):
                for alias in part.names:
                    module.imports[alias.asname or alias.name.split(".")[0]] = alias.name
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), module


def _nodes(name: str, module: Module) -> Iterator[tuple[str, Node]]:
    for part in module.tree.body:
        if isinstance(part, Function | ast.ClassDef):
            key = f"{name}.{part.name}"
            yield key, Node(name, part)
            if isinstance(part, ast.ClassDef):
                for inner in part.body:
                    if isinstance(inner, Function):
                        yield f"{key}.{inner.name}", Node(name, inner, owner=key)


def _roots_of_modules(walk: Walk) -> Iterator[str]:
    for name, module in walk.modules.items():
        for part in module.tree.body:
            if isinstance(part, Function) and part.decorator_list:
                yield f"{name}.{part.name}"
            elif not isinstance(part, Function | ast.ClassDef):
                yield from walk.used(name, part)
        for part in ast.walk(module.tree):  # "palate.library.library:Library", "palate.core.x"
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value.replace(":", ".")


def _face(modules: dict[str, Module]) -> Iterator[str]:
    """Every name in the strings of `palate/__init__.py`, in every module that it names."""
    texts = [
        part.value
        for part in ast.walk(modules["palate"].tree)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    yield from (f"{a}.{b}" for a in texts if a.startswith("palate") for b in texts)
    yield from ("palate.__getattr__", "palate.__dir__")


def _entry_points(root: Path) -> Iterator[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for group in [project["scripts"], *project.get("entry-points", {}).values()]:
        yield from (target.replace(":", ".") for target in group.values())


def _documented(root: Path) -> Iterator[str]:
    laboratory = [p for name in ("research", "benchmarks") for p in (root / name).rglob("*.py")]
    imports = [found for text in _documents(root) for found in IMPORT.findall(text)]
    imports += [
        found
        for path in laboratory
        for found in IMPORT.findall(path.read_text())
        if OPEN.match(found[0])
    ]
    for module, names in imports:
        yield from (f"{module}.{name}" for name in re.findall(r"\w+", names))


def _documented_attributes(root: Path) -> set[str]:
    """Attributes that the documents' Python uses: methods of what a user holds."""
    return {name for text in _documents(root) for name in re.findall(r"\.(\w+)", text)}


def _documents(root: Path) -> Iterator[str]:
    """The Python of README, docs and examples."""
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        yield from PYTHON_BLOCK.findall(path.read_text())
    yield from (path.read_text() for path in sorted((root / "examples").rglob("*.py")))


def _is_registered(function: Function) -> bool:
    """Whether a decorator hands it to a library; a property waits for its name to be used."""
    return any("property" not in ast.unparse(d) for d in function.decorator_list)
