"""A run file of seconds with a portfolio, for tests of builds and commands."""

import json
from pathlib import Path

import yaml

from fakes import save_tiny_llama

PORTFOLIO = {"tolerance": 1e-6, "max_policies": 4, "size": 2, "n_answers": 2, "confidence": 0.9}


def length_rule(prefer: str) -> dict[str, object]:
    return {
        "rule": {"kind": "length", "unit": "characters", "low": 0, "high": 16, "prefer": prefer}
    }


def write_portfolio_run(folder: Path, **changes: object) -> Path:
    """A run of seconds: a random base, two rules that contradict each other, two experts."""
    save_tiny_llama(folder / "base")
    rows = [{"prompt": f"prompt {index}"} for index in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "model_name_or_path": str(folder / "base"),
        "prompts": str(folder / "prompts.jsonl"),
        "objectives": [
            {"name": "short", "reward": length_rule("shorter")},
            {"name": "long", "reward": length_rule("longer")},
        ],
        "rollouts": {"num_generations": 3, "max_completion_length": 8, "chunk_prompts": 4},
        "adapter": {"r": 4},
        "training": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05},
        "portfolio": PORTFOLIO,
        "seed": 5,
        **changes,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
