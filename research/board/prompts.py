"""What is asked: prompts that no expert, reward or controller saw, alone and after other turns.

The board is meant for Koala (Apache-2.0) and MT-Bench (Apache-2.0); files of theirs are given, and
nothing of them is stored here. Without files the questions of `prompts.jsonl` are asked, which were
written for the board. Rows name a prompt by its file and the hash of its text.

A conversation of so many earlier turns begins with other prompts of the same files, each answered
once by the base. Those are about other things than the question, as when a user goes on talking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate import Library, SamplingParams
from palate.core.errors import InvalidInputError
from palate.core.files import append_jsonl, hash_value, read_jsonl
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from research.board.library import outputs_of
from research.board.settings import FOLDER, BoardSettings

PROMPTS = FOLDER / "prompts.jsonl"
BLOCK = 32  # earlier answers that are generated at a time


@dataclass(frozen=True)
class Prompt:
    """One question."""

    key: str  # file and hash: how rows name it
    text: str


@dataclass(frozen=True)
class Case:
    """A prompt after so many earlier turns."""

    prompt: Prompt
    turns: int


def load_prompts(settings: BoardSettings) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts that are judged, and the others, of which earlier turns are made.

    Raises:
        InvalidInputError: a file is missing, a row has no prompt, or there are too few.
    """
    paths = [Path(name) for name in settings.prompts] or [PROMPTS]
    texts: dict[str, Prompt] = {}
    for path in paths:
        for number, row in enumerate(read_jsonl(path, what="prompts file"), start=1):
            text = row.get("prompt")
            if not isinstance(text, str) or not text.strip():
                raise InvalidInputError(
                    f"Row {number} of {str(path)!r} has no text in 'prompt'; give each row one."
                )
            text = text.strip()
            if len(text) <= settings.longest_prompt:
                texts.setdefault(text, Prompt(f"{path.stem}:{hash_value(text)[:10]}", text))
    ordered = [texts[text] for text in sorted(texts)]
    order = generator_for(0, "board prompts").permutation(len(ordered))
    shuffled = [ordered[place] for place in order.tolist()]
    longest = max(settings.turns, default=0) if settings.n_turn_prompts else 0
    if len(shuffled) < settings.n_prompts or len(shuffled) < longest + 1:
        raise InvalidInputError(
            f"There are {len(shuffled)} prompts of at most {settings.longest_prompt} characters, "
            f"but {max(settings.n_prompts, longest + 1)} are needed; give more files, or fewer "
            "n_prompts and turns."
        )
    return shuffled[: settings.n_prompts], shuffled[settings.n_prompts :]


def cases_of(settings: BoardSettings, prompts: Sequence[Prompt], *, with_turns: bool) -> list[Case]:
    """Every prompt alone, and the first of them in conversations where these are wanted."""
    alone = [Case(prompt, 0) for prompt in prompts]
    if not with_turns:
        return alone
    asked = prompts[: settings.n_turn_prompts]
    return alone + [Case(prompt, turns) for turns in settings.turns for prompt in asked]


def earlier_prompts(case: Case, prompts: Sequence[Prompt], spare: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of the case's earlier turns, spare ones first, never its own.

    More turns begin with others and end with the same ones, so a curve over turns is of one talk.
    """
    order = generator_for(0, "board turns", case.prompt.key).permutation(len(spare))
    others = [spare[place] for place in order.tolist()]
    others += [one for one in prompts if one.key != case.prompt.key]
    return others[: case.turns][::-1]


def earlier_answers(
    library: Library, prompts: Sequence[Prompt], *, path: Path, settings: BoardSettings
) -> dict[str, str]:
    """Key to one answer of the base, made once and kept in the file."""
    rows = read_jsonl(path, what="file of earlier answers") if path.is_file() else []
    answers = {str(row["prompt"]): str(row["text"]) for row in rows}
    missing = [one for one in dict.fromkeys(prompts) if one.key not in answers]
    sampling = sampling_of(library, settings)
    with progress_of("earlier turns, answers") as report:
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            outputs = outputs_of(
                library,
                [one.text for one in block],
                method="base",
                sampling=sampling,
                seed=derive_seed(0, "board turns"),
            )
            rows = [
                {"prompt": one.key, "text": output.text.strip()}
                for one, output in zip(block, outputs, strict=True)
            ]
            append_jsonl(path, rows)
            answers |= {row["prompt"]: row["text"] for row in rows}
            report(start + len(block), len(missing))
    return answers


def conversation(
    case: Case, earlier: Sequence[Prompt], answers: Mapping[str, str]
) -> list[dict[str, str]]:
    """The case as messages."""
    messages: list[dict[str, str]] = []
    for one in earlier:
        messages.append({"role": "user", "content": one.text})
        messages.append({"role": "assistant", "content": answers[one.key]})
    return [*messages, {"role": "user", "content": case.prompt.text}]


def sampling_of(library: Library, settings: BoardSettings) -> SamplingParams:
    """How answers are sampled: at the library's temperature unless the board sets one."""
    temperature = settings.temperature
    if temperature is None:
        temperature = library.sampling.temperature
    return SamplingParams(temperature=temperature, max_tokens=settings.max_tokens)
