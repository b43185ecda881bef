"""The tutorials, run as they stand: files are written, commands and Python run in order."""

import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from document_steps import run_command, run_python, serving
from documents import Block
from fakes import save_tiny_llama
from palate.models.load import load_base
from vllm_stand_in import StandIn, standing_in

BASE = "smollm2-135m"  # of the tutorials; a tiny one takes its place
BLACK_BOXES = ":8123"  # where the tutorial's servers are


@dataclass(frozen=True)
class Titled:
    """A fenced block, and the file that its fence names."""

    block: Block
    file: str | None


def titled_blocks(path: Path) -> list[Titled]:
    """The tutorial's blocks in order."""
    fences = re.findall(
        r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', path.read_text(), flags=re.DOTALL | re.M
    )
    return [Titled(Block(language, text), file or None) for language, file, text in fences]


class Tutorial:
    """Runs a tutorial in the present folder."""

    def __init__(self, path: Path, *, swaps: dict[str, str]) -> None:
        self.path, self.swaps = path, swaps
        self.servers = ExitStack()
        self.parts: list[Block] = []
        self.namespace: dict[str, object] = {}

    def run(self) -> None:
        with self.servers:
            for one in titled_blocks(self.path):
                text = one.block.text
                for old, new in self.swaps.items():
                    text = text.replace(old, new)
                self._run(Block(one.block.language, text), one.file)

    def _run(self, block: Block, file: str | None) -> None:
        if file is not None:
            Path(file).write_text(block.text)
        elif block.language == "bash":
            for line in block.commands:
                if line.startswith("palate serve"):
                    port = self.servers.enter_context(serving(line))
                    self.swaps[":8000"] = f":{port}"
                else:
                    assert line.startswith("palate "), f"{self.path.name}: {line}"
                    run_command(line)
        else:
            assert block.language == "python", f"{self.path.name}: {block.language}"
            self.parts.append(block)
            run_python([block], name=self.path.name, namespace=self.namespace)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """The folder that the first tutorial leaves."""
    folder = tmp_path_factory.mktemp("tutorials")
    save_tiny_llama(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = project_root / "docs/tutorials/own-base.md"
        Tutorial(path, swaps={BASE: str(folder / "tiny")}).run()
    return folder


@pytest.fixture
def in_copy(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to work in."""
    folder = tmp_path / "tutorial"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_a_base_and_pairs_become_a_library_and_an_adapter(built: Path) -> None:
    assert (built / "library/methods.json").is_file()
    assert (built / "library/rewards/polite/held_back").is_dir()
    assert (built / "merged/adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serve-and-learn", "portfolio", "evaluate"])
def test_the_tutorial_runs_as_it_stands(in_copy: Path, project_root: Path, name: str) -> None:
    tutorial = Tutorial(project_root / f"docs/tutorials/{name}.md", swaps={})
    tutorial.run()
    assert tutorial.parts


@pytest.fixture
def black_boxes(in_copy: Path):
    members = {name: in_copy / "library/experts" / name for name in ("polite", "brief")}
    with standing_in(load_base(in_copy.parent / "tutorial/tiny"), members) as server:
        yield server


@pytest.mark.slow
def test_black_boxes_are_mixed_as_the_tutorial_says(
    in_copy: Path, project_root: Path, black_boxes: StandIn
) -> None:
    port = f":{black_boxes.server_address[1]}"
    Tutorial(project_root / "docs/tutorials/black-boxes.md", swaps={BLACK_BOXES: port}).run()
    assert {call["model"] for call in black_boxes.calls} >= {"base", "polite", "brief"}


def test_every_tutorial_is_run(project_root: Path) -> None:
    run = {"own-base", "serve-and-learn", "portfolio", "evaluate", "black-boxes"}
    assert {path.stem for path in (project_root / "docs/tutorials").glob("*.md")} == run


def test_a_title_on_a_fence_is_the_file_of_its_block(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```yaml title="run.yaml"\na: 1\n```\n\n```bash\npalate --version\n```\n')
    first, second = titled_blocks(page)
    assert (first.file, first.block.text) == ("run.yaml", "a: 1\n")
    assert (second.file, second.block.commands) == (None, ["palate --version"])
