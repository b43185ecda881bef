"""Run what the Dockerfile says without an engine: its Python steps, its command, its health check.

    .venv/bin/python .ci/image.py             into build/image, for CPUs
    .venv/bin/python .ci/image.py --shipped   serve the shipped library; takes minutes

`COPY` and the `RUN` steps that use the image's Python are executed with the image's folders below
`build/image`; steps of the system (`useradd`) are not, and what runs does so as the present user.
Then a key is issued as docs/containers.md says, the command is started on a free port with the
image's environment alone and a tiny library in place of the shipped one, and must pass the image's
own health check.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "build/image"
FOLDERS = re.compile(r"(?<![\w.:])/(?=opt/palate|src\b|var/lib/palate)")
WAIT_SECONDS = 600.0  # of --shipped; the base is converted, and states are measured
SHIPPED = "smollm2-135m"  # in the command
Step = tuple[str, str]  # a word and what follows


def steps_of(text: str) -> list[Step]:
    """The Dockerfile's steps, continued lines joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [line.split(maxsplit=1) for line in lines if line.strip() and line[0] != "#"]
    return [(word, re.sub(r"\s+", " ", rest).strip()) for word, rest in parts]


def placed(text: str) -> str:
    """A step with the image's folders below `build/image`."""
    return FOLDERS.sub(f"{IMAGE}/", text)


def copy(rest: str) -> None:
    """`COPY SOURCE... TARGET` of this folder; a folder's content, as Docker does."""
    *sources, target = rest.split()
    for source in sources:
        path, into = ROOT / source, Path(placed(target))
        if path.is_dir():
            shutil.copytree(path, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into / path.name)


def run(rest: str, environment: dict[str, str]) -> None:
    """A `RUN` step, if it uses the image's Python.

    Wheels may come from pip's cache, and from this machine's index alone: another may be out of
    reach, and pip then waits for it at every package. The hashes are the same.
    """
    if "/opt/palate" not in rest:
        return
    command = placed(rest).replace("--no-cache-dir ", "--quiet ")
    command = re.sub(r"--extra-index-url \S+ ", "", command)
    subprocess.run(["sh", "-euc", command], check=True, env=environment)  # noqa: S603, S607


def build(steps: list[Step]) -> None:
    """The first stage."""
    shutil.rmtree(IMAGE, ignore_errors=True)
    python = str(Path(sys.executable).resolve().parent)
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}
    for word, rest in steps:
        if word == "ARG":
            environment |= [rest.split("=", 1)]
        elif word == "COPY" and not rest.startswith("--from"):
            copy(rest)
        elif word == "RUN":
            run(rest, environment)


def tiny_library() -> str:
    """A library of the tests: a random base and three random experts."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from tiny import save_tiny_library

    folder = ROOT / "build/image-library"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return str(save_tiny_library(folder))


def start(steps: list[Step], library: str) -> float:
    """Issue a key, start the command, ask the health check; seconds until it was well."""
    last = dict(steps)  # of a word that comes twice, the last
    home = Path(placed(last["WORKDIR"]))
    home.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}
    environment |= [one.split("=", 1) for one in last["ENV"].split()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = [placed(word) for word in json.loads(last["ENTRYPOINT"])]
    words = [library if word == SHIPPED else word for word in json.loads(last["CMD"])]
    command = [*program, *words, "--port", port]
    asks = json.loads(last["HEALTHCHECK"][last["HEALTHCHECK"].index("[") :])
    asks = [placed(word).replace(f":{last['EXPOSE']}/", f":{port}/") for word in asks]
    key = [*program, "keys", "issue", "--label", "ci"]
    subprocess.run(key, check=True, cwd=home, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
    began = time.monotonic()
    server = subprocess.Popen(command, cwd=home, env=environment)  # noqa: S603
    try:
        while time.monotonic() - began < WAIT_SECONDS:
            if server.poll() is not None:
                raise SystemExit(f"The command of the image ended with {server.returncode}.")
            done = subprocess.run(asks, check=False, env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
            if done.returncode == 0:
                return time.monotonic() - began
            time.sleep(0.5)
        raise SystemExit(f"The image's health check did not pass within {WAIT_SECONDS:.0f} s.")
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Both, with how long they took."""
    began = time.monotonic()
    steps = steps_of((ROOT / "Dockerfile").read_text())
    build(steps)
    built = time.monotonic() - began
    seconds = start(steps, SHIPPED if "--shipped" in sys.argv else tiny_library())
    print(f"The image's steps took {built:.0f} s; its server was well after {seconds:.0f} s.")  # noqa: T201


if __name__ == "__main__":
    main()
