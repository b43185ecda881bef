"""What documents say, to be run: fenced blocks, and a folder in which they hold."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fakes import save_tiny_llama

TRAINING = {
    "rollouts": {"num_generations": 3, "max_completion_length": 8, "chunk_prompts": 4},
    "adapter": {"r": 4},
    "training": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05},
    "seed": 5,
}
SHELL = {"bash", "sh", "console"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: As the fence says.
        text: Its content.
    """

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block, continued lines joined, comments cut."""
        joined = self.text.replace("\\\n", " ")
        lines = [re.sub(r"\s+#.*$", "", line).strip() for line in joined.splitlines()]
        return [line.removeprefix("$ ") for line in lines if line]


def blocks(path: Path, *languages: str) -> list[Block]:
    """The document's blocks in these languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Block(language, text) for language, text in found if language in languages]


def write_story(folder: Path) -> None:
    """What documents take for granted: run files of seconds, prompts, answers to be scored."""
    save_tiny_llama(folder / "base")
    rows = [{"prompt": f"prompt {index}"} for index in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = {"prompt": "Why is the sky blue?", "completion": "Air."}
    (folder / "answers.jsonl").write_text(json.dumps(row) + "\n")
    _write_run(
        folder, "run.yaml", [_by_length("simple", "shorter"), _by_length("polite", "longer")]
    )
    _write_run(folder, "brief.yaml", [{"name": "brief"}, _by_length("polite", "longer")])


def _by_length(name: str, prefer: str) -> dict[str, Any]:
    rule = {"kind": "length", "unit": "characters", "low": 0, "high": 16, "prefer": prefer}
    return {"name": name, "instruction": f"Be {name}.", "reward": {"rule": rule}}


def _write_run(folder: Path, name: str, objectives: list[dict[str, Any]]) -> None:
    content = {
        "model_name_or_path": str(folder / "base"),
        "prompts": str(folder / "prompts.jsonl"),
        "objectives": objectives,
        **TRAINING,
    }
    (folder / name).write_text(yaml.safe_dump(content))
