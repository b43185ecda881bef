"""Is a build that is killed again and again the build that nobody disturbed, byte for byte?

    python -m libraries.kills libraries/smollm2-135m.yaml --kills 10 --out out/kills

A small form of the run (few prompts, two experts, few steps) is built whole, and once more while
`kill -9` meets it at random moments of its running time. Files are compared but for `cache/` and
`logs/`, which are no part of a library. Fewer kills are printed where a build was done before one.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from palate.core.files import dump_json, hash_bytes, read_jsonl, write_jsonl, write_text_atomic
from palate.core.seeds import generator_for

SMALL_TRAINING = {"max_steps": 6, "save_steps": 1, "n_threads": 1}
SMALL_ROLLOUTS = {"max_completion_length": 48}
SMALL_CALIBRATION = {"n_prompts": 8, "max_points": 3, "methods": ["base", "soup"]}
N_PROMPTS = 24


def main() -> None:
    """Build, kill, compare, print; exit code 1 where bytes differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--experts", default="unfriendly,friendly", help="by comma")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = small_form(options.run, options.experts.split(","), out=options.out)
    started = time.monotonic()
    if build(run, options.out / "whole").wait():
        raise SystemExit("The build failed; see its messages.")
    seconds = time.monotonic() - started
    longest = 2 * seconds / options.kills
    planned = generator_for(options.seed, "kills").uniform(0.0, longest, size=options.kills)
    moments: list[float] = []
    for moment in planned.tolist():
        if not killed_after(build(run, options.out / "killed"), moment):
            break
        moments.append(round(moment, 1))
    if build(run, options.out / "killed").wait():
        raise SystemExit("A build that was killed before failed; see its messages.")
    whole, again = (contents(options.out / name) for name in ("whole", "killed"))
    differ = sorted(name for name in whole | again if whole.get(name) != again.get(name))
    print(  # noqa: T201
        dump_json(
            {
                "seconds_whole": round(seconds, 1),
                "kills_after_seconds": moments,
                "n_files": len(whole),
                "differ": differ,
            }
        )
    )
    if differ:
        raise SystemExit(1)


def small_form(path: Path, experts: list[str], *, out: Path) -> Path:
    """The run file with few prompts, these objectives and few steps, written beside the builds."""
    run: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    run["objectives"] = [one for one in run["objectives"] if one["name"] in experts]
    for one in run["objectives"]:
        if one.get("opposite") not in experts:
            one.pop("opposite", None)
    prompts = read_jsonl(Path(run["prompts"]), what="prompts file")[:N_PROMPTS]
    write_jsonl(out / "prompts.jsonl", prompts)
    run |= {"prompts": str(out / "prompts.jsonl"), "portfolio": None}
    run["rollouts"] |= SMALL_ROLLOUTS
    run["training"] |= SMALL_TRAINING
    run["calibration"] |= SMALL_CALIBRATION
    write_text_atomic(out / "run.yaml", yaml.safe_dump(run, sort_keys=False))
    return out / "run.yaml"


def build(run: Path, out: Path) -> "subprocess.Popen[bytes]":
    """`palate build` in a process of its own."""
    return subprocess.Popen(  # noqa: S603  the same command that a user types
        [str(Path(sys.executable).with_name("palate")), "build", str(run), "--out", str(out)],
        stdout=subprocess.DEVNULL,
    )


def killed_after(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Kill -9 after so long; false where the build was done before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file of a library by its path."""
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hash_bytes(path.read_bytes())
        for path in inside
        if path.relative_to(folder).parts[0] not in ("cache", "logs")
    }


if __name__ == "__main__":
    main()
