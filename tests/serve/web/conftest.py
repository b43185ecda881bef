"""A real server on a tiny library, and a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tiny import _add_controller

CHROMIUM = Path(os.environ.get("PALATE_CHROMIUM", "/usr/bin/chromium"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
START_SECONDS = 120
# Who is worth what to whom: with kind and short as members, `plain` is badly served.
PAYOFFS = {"kind": (0.9, 0.2, 0.35), "short": (0.25, 0.85, 0.3), "plain": (0.3, 0.3, 0.8)}

PALATE = [sys.executable, "-c", "from palate.cli.app import main; main()"]

StartServer = Callable[..., str]


@pytest.fixture(scope="session")
def page_library(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny library with a portfolio of two of its three experts, and a controller."""
    folder = tmp_path_factory.mktemp("page") / "library"
    shutil.copytree(tiny_library, folder)
    _add_controller(folder)
    for name in PAYOFFS:
        card = f"# Expert `{name}`\n\nA LoRA adapter of the tiny base.\n"
        (folder / "experts" / name / "README.md").write_text(card)
    payoffs = {
        "objectives": list(PAYOFFS),
        "beta": 0.1,
        "policies": [
            {
                "name": name,
                "values": values,
                "stderr": [0.01] * 3,
                "kl": 1.0,
                "preference": [float(other == name) for other in PAYOFFS],
            }
            for name, values in PAYOFFS.items()
        ],
        "optimum": None,
    }
    table = folder.parent / "payoff.json"
    table.write_text(json.dumps(payoffs))
    out = folder / "portfolio.json"
    run = ["portfolio", "select", str(table), "--size", "2", "--out", str(out)]
    subprocess.run([*PALATE, *run], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts `palate serve` and returns its address; stops all of them at the end."""
    with ExitStack() as stack:

        def start(library: Path, *options: str, database: Path | None = None) -> str:
            folder = tmp_path_factory.mktemp("server")
            kept = database or folder / "users.db"
            return stack.enter_context(serving(library, kept, folder / "log", *options))

        yield start


@contextmanager
def serving(library: Path, database: Path, log: Path, *options: str) -> Iterator[str]:
    port = free_port()
    command = [
        *(*PALATE, "serve", str(library)),
        *("--database", str(database), "--port", str(port), *options),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  our own server
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"The server did not start:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def address(start_server: StartServer, page_library: Path) -> str:
    """A server that needs no keys."""
    return start_server(page_library, "--set", "requests_per_minute=6000", "--set", "burst=600")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"Chromium is not installed at {CHROMIUM}; set PALATE_CHROMIUM")
    expect.set_options(timeout=20_000)  # a busy machine streams slowly
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console complained of."""
    return []


@pytest.fixture
def open_page(browser: Browser, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Opens an address in a fresh browser profile."""
    contexts = []

    def open_(url: str, *, width: int = 1280, scheme: str = "light", **options: object) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: listen(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    def listen(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            complaints.append(text)

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def page(address: str, open_page: Callable[..., Page], complaints: list[str]) -> Iterator[Page]:
    """The page, loaded; the test fails if the console complains."""
    opened = open_page(address)
    opened.wait_for_selector("#main[aria-busy=false]")
    yield opened
    assert complaints == []
