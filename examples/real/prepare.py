"""Cut real preference pairs into teachers' and judges' halves, and collect short prompts.

    python prepare.py DATA OUT

DATA holds `preferences/NAME.train.jsonl` and `.validation.jsonl` with `prompt`, `chosen`,
`rejected`. For every
objective OUT gets `NAME.teacher.jsonl` (a reward model that experts learn from) and
`NAME.judge.jsonl`
(another one, that only judges): no prompt is in both. `prompts.jsonl` and `held_out.jsonl` are
short prompts of
the training and of the validation files.
"""

import sys
from pathlib import Path

from palate.core.files import JsonObject, hash_value, read_jsonl, write_jsonl
from palate.core.seeds import generator_for

OBJECTIVES = ("simple", "polite", "helpful", "harmless")
PROMPT_SOURCES = ("polite", "helpful", "harmless")  # the prompts of `simple` are whole articles
MAX_CHARACTERS = 160
N_PROMPTS, N_HELD_OUT = 96, 48


def main(data: Path, out: Path) -> None:
    """Write the halves and the prompts."""
    for name in OBJECTIVES:
        rows = read_jsonl(data / f"preferences/{name}.train.jsonl", what="pairs")
        rows = [row for row in rows if row["chosen"] != row["rejected"]]
        is_judge = {row["prompt"]: hash_value(row["prompt"])[0] in "01234567" for row in rows}
        for half in (False, True):
            part = [row for row in rows if is_judge[row["prompt"]] == half]
            write_jsonl(out / f"{name}.{'judge' if half else 'teacher'}.jsonl", part)
    write_jsonl(out / "prompts.jsonl", prompts(data, split="train", n=N_PROMPTS))
    write_jsonl(out / "held_out.jsonl", prompts(data, split="validation", n=N_HELD_OUT))


def prompts(data: Path, *, split: str, n: int) -> list[JsonObject]:
    """`n` short prompts of a split, equally many of each source, drawn with a fixed seed."""
    found: list[JsonObject] = []
    for name in PROMPT_SOURCES:
        rows = read_jsonl(data / f"preferences/{name}.{split}.jsonl", what="pairs")
        texts = list(dict.fromkeys(row["prompt"] for row in rows))
        short = [text for text in texts if len(text) <= MAX_CHARACTERS]
        order = generator_for(0, name, split).permutation(len(short))
        found += [{"prompt": short[place], "source": name} for place in order[: n // 3]]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
