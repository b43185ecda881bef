"""Write `docs/licences.md`: what each extra installs, and under which licence.

    .venv/bin/python .ci/licences.py            write it, from the metadata of what is installed
    .venv/bin/python .ci/licences.py --check    fail where it is not current

Either fails where a licence is not known, is the GPL or AGPL, or is the LGPL outside of the extra
`postgres`.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

TABLE = Path("docs/licences.md")
EXTRAS = ("", "train", "serve", "postgres", "plots", "dev")  # those that are locked
# where the metadata gives no licence, or a whole text: what stands in the package's own file
OWN_FILE = {"axe-playwright-python": "MIT AND MPL-2.0"}  # its own code, and axe-core within
# as classifiers and older metadata name them
NAMES = {
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
HEAD = """# Licences

palate is under the Apache License 2.0. What each extra installs besides, with everything that it
brings in turn, on Linux with Python 3.11. Written by `make licences` from the metadata of the
installed packages; CI fails where the table is not current, where a licence is the GPL or AGPL, and
where the LGPL stands outside of `postgres`. Packages that an earlier table has are not repeated.

Not listed, because not locked: what `scale` (Ray) and `harness` (lm-eval) bring. Not listed,
because not installed where the table is made: the libraries of CUDA that torch's own build for
Linux brings, which are under NVIDIA's terms; the build for CPUs has none of them. Models and their
data: [libraries](../libraries/README.md).
"""


def canonical(name: str) -> str:
    """The name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(extra: str) -> dict[str, Distribution]:
    """Packages that palate with this extra needs, by name, as far as they are installed."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    own = project["optional-dependencies"][extra] if extra else project["dependencies"]
    found: dict[str, Distribution] = {}
    left = needed(own, frozenset())
    seen: set[tuple[str, frozenset[str]]] = set()
    while left:
        name, extras = left.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another system, or one of torch's libraries of CUDA
        left += needed(found[name].requires or (), extras)
    return found


def needed(lines: Iterable[str], extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """Name and extras of the requirements that hold here, of a package taken with these extras."""
    requirements = [Requirement(line) for line in lines]
    environments = [{"extra": each} for each in ("", *extras)]
    return [
        (canonical(one.name), frozenset(one.extras))
        for one in requirements
        if not one.marker or any(one.marker.evaluate(each) for each in environments)
    ]


def licence_of(one: Distribution) -> str:
    """The licence as the metadata gives it; empty where it gives none."""
    name = canonical(one.metadata["Name"])
    if name in OWN_FILE:
        return OWN_FILE[name]
    if one.metadata["License-Expression"]:
        return one.metadata["License-Expression"]
    classes = [
        line.rpartition(" :: ")[2]
        for line in one.metadata.get_all("Classifier") or []
        if line.startswith("License ::") and not line.endswith(":: OSI Approved")
    ]
    if classes:
        return " or ".join(NAMES.get(line, line) for line in classes)
    text = one.metadata["License"] or ""
    return NAMES.get(text, text) if len(text) < 40 and "\n" not in text else ""


def fault_of(licence: str, *, extra: str) -> str:
    """What is wrong with a licence in an extra; empty where nothing is."""
    if not licence:
        return "has no licence in its metadata; read its file and name it in OWN_FILE"
    words = re.findall(r"[A-Z]*GPL|General Public", licence)
    if any(word != "LGPL" for word in words) and "Lesser" not in licence:
        return f"is under {licence}"
    if words and extra != "postgres":
        return f"is under {licence}, which only the extra postgres may bring"
    return ""


def table() -> tuple[str, list[str]]:
    """The page, and the faults."""
    parts, faults = [HEAD], []
    done: set[str] = set()
    for extra in EXTRAS:
        every = installed(extra)
        new = sorted(name for name in every if name not in done)
        done |= set(new)
        title = f"`palate[{extra}]`" if extra else "`palate` alone"
        parts.append(f"## {title}\n\n| package | licence |\n|---|---|")
        for name in new:
            licence = licence_of(every[name])
            fault = fault_of(licence, extra=extra)
            faults += [f"{name} {fault}"] if fault else []
            parts.append(f"| {name} | {licence} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n", faults


def main() -> int:
    """Write or check the table; the number of faults."""
    text, faults = table()
    if "--check" not in sys.argv:
        TABLE.write_text(text)
    elif not TABLE.exists() or TABLE.read_text() != text:
        faults.append(f"{TABLE} is not current; run `make licences`.")
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    return min(len(faults), 1)


if __name__ == "__main__":
    sys.exit(main())
