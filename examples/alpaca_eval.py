"""Answer AlpacaEval's instructions as one user wants them, and write what its judges read.

python examples/alpaca_eval.py LIBRARY alpaca_eval.json outputs.json simple=0.6 polite=0.4
alpaca_eval --model_outputs outputs.json --annotators_config ...   # theirs; needs a judge's key
python -m research.statistics.alpaca results/annotations.json      # win rates with intervals
"""

import argparse
import json
from pathlib import Path
from typing import Any

import palate

COPIED = ("dataset", "datasplit", "input")  # of an instruction, in its output


def main() -> None:
    """Answer every instruction in order; the generator's name is `palate`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library")
    parser.add_argument("instructions", type=Path, help="JSON list with instruction and input")
    parser.add_argument("out", type=Path)
    parser.add_argument("preference", nargs="+", metavar="OBJECTIVE=SHARE")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--max-tokens", type=int, default=512)
    options = parser.parse_args()
    shares = {
        name: float(share) for name, _, share in (t.partition("=") for t in options.preference)
    }
    rows: list[dict[str, Any]] = json.loads(options.instructions.read_text())
    outputs = palate.Library.load(options.library).generate(
        [prompt_of(row) for row in rows],
        preference=shares,
        method=options.method,
        sampling=palate.SamplingParams(max_tokens=options.max_tokens),
    )
    written = [
        {
            "instruction": row["instruction"],
            "output": output.text.strip(),
            "generator": "palate",
            **{name: row[name] for name in COPIED if name in row},
        }
        for row, output in zip(rows, outputs, strict=True)
    ]
    options.out.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")


def prompt_of(row: dict[str, Any]) -> str:
    """What is asked: the instruction, and the input after a blank line if there is one."""
    given = str(row.get("input") or "").strip()
    return f"{row['instruction']}\n\n{given}" if given else str(row["instruction"])


if __name__ == "__main__":
    main()
