"""What others would train: adapters by DPO on users' comparisons, built by `palate.build`.

    one per user        on the user's first 10, and on their first 100 comparisons
    everybody           one adapter on all users' comparisons together
    conditioned         the same, with the sentences of each user's preference before the prompt

Every adapter is an expert of a library that `palate.build` makes, whose objectives are users. The
rewards and rollouts that a build makes beside it are as small as it allows, and nothing uses them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import palate
from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value, read_json, write_json, write_jsonl
from palate.core.plan import member_plan
from research.board.comparisons import Comparison
from research.board.settings import BoardSettings
from research.board.users import BoardUser

EVERYBODY, CONDITIONED = "everybody", "conditioned"
SECONDS, LIBRARY = "seconds.json", "library"
UNUSED = "validation.jsonl"  # pairs that a reward is checked on, so that training keeps all others
LEAST_PAIRS = 4  # of a name


@dataclass(frozen=True)
class Adapters:
    """A finished build of adapters."""

    folder: Path  # of the library
    seconds_each: float  # training and preparing, wall clock, divided by the adapters

    def open(self, settings: BoardSettings) -> palate.Library:
        """The library of adapters, on the same base."""
        return palate.Library.load(self.folder, dtype=settings.dtype, device=settings.device)


@dataclass(frozen=True)
class OneAdapter:
    """The method of a library of adapters: this one alone, at full strength."""

    name: str
    expert: str
    instruction: str = ""  # put before the prompt, as in training

    def decide(self, library: palate.Library, messages: Messages, known: Known) -> Decision:
        """The adapter's plan; the base of the library of adapters knows nothing else.

        Raises:
            InvalidInputError: there is no adapter of that name.
        """
        del known
        names = library.require_experts()
        if self.expert not in names:
            raise InvalidInputError(
                f"There is no adapter of {self.expert!r}, only of {', '.join(names)}; raise "
                f"n_lora_users, or leave out the method {self.name!r}."
            )
        plan = member_plan(index=names.index(self.expert), n_experts=len(names))
        reason = f"The adapter trained for {self.expert!r}."
        prompted = with_instruction(messages, self.instruction)
        return Decision(prompted, plan, self.name, {self.expert: 1.0}, reason=reason)


def build_adapters(
    folder: Path,
    pairs: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    base: str,
    settings: BoardSettings,
    seed: int,
) -> Adapters:
    """One adapter for each name, trained on its pairs; goes on where it was interrupted.

    Args:
        folder: Its name with a hash of what determines the adapters gets the files of pairs, the
            library and how long it took; after an interruption, how long the rest took.
        pairs: Name to rows of `prompt`, `chosen` and `rejected`.
        base: Folder, hub id or name of the base model.
        settings: How adapters are trained.
        seed: Random seed of the training.

    Raises:
        InvalidInputError: a name has too few pairs.
    """
    few = next((name for name, rows in pairs.items() if len(rows) < LEAST_PAIRS), None)
    if few is not None:
        raise InvalidInputError(
            f"The adapter of {few!r} would have {len(pairs[few])} pairs; at least {LEAST_PAIRS} "
            "are needed: raise most_comparisons, or leave out its method."
        )
    folder = folder.with_name(f"{folder.name}-{hash_value([pairs, base, seed])[:8]}")
    target, timing = folder / LIBRARY, folder / SECONDS
    if timing.is_file():
        return Adapters(target, float(read_json(timing)["seconds_each"]))
    for name, rows in pairs.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    write_jsonl(folder / UNUSED, _unused_pairs())
    start = monotonic()
    run = run_file(folder, pairs, base=base, settings=settings, seed=seed)
    palate.build(run, output_dir=target)
    seconds = monotonic() - start
    write_json(timing, {"seconds_each": seconds / len(pairs)})
    return Adapters(target, seconds / len(pairs))


def run_file(
    folder: Path,
    pairs: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    base: str,
    settings: BoardSettings,
    seed: int,
) -> dict[str, Any]:
    """The run file of a build: an objective and an expert for each name, DPO on its pairs."""
    lora = settings.lora
    most = max(len(rows) for rows in pairs.values())
    some = next(iter(pairs.values()))
    return {
        "model_name_or_path": base,
        "dtype": lora.dtype,
        "device": settings.device,
        "objectives": [
            {
                "name": name,
                "reward": {
                    "pairs": str(folder / f"{name}.jsonl"),
                    "validation": str(folder / UNUSED),
                },
            }
            for name in pairs
        ],
        "prompts": list(dict.fromkeys(row["prompt"] for row in some))[:2],
        "rollouts": {"num_generations": 2, "max_completion_length": 8},
        "adapter": {
            "r": lora.r,
            "lora_alpha": lora.lora_alpha,
            "target_modules": lora.target_modules,
        },
        "training": {
            "method": "dpo_human",
            "beta": lora.beta,
            "learning_rate": lora.learning_rate,
            "per_device_train_batch_size": lora.batch,
            "max_steps": lora.n_steps(most),
        },
        "seed": seed,
    }


def _unused_pairs() -> list[dict[str, str]]:
    return [
        {"prompt": f"What is {k} and {k}?", "chosen": f"It is {2 * k}.", "rejected": "Who knows."}
        for k in range(1, 5)
    ]


def own_pairs(own: Sequence[Comparison]) -> list[dict[str, str]]:
    """A user's comparisons as rows of a file of pairs."""
    return [
        {"prompt": one.chosen.prompt, "chosen": one.chosen.text, "rejected": one.rejected.text}
        for one in own
    ]


def conditioned_pairs(
    users: Sequence[BoardUser],
    verdicts: Mapping[str, Sequence[Comparison]],
    library: palate.Library,
) -> list[dict[str, str]]:
    """All users' pairs, each under the sentences of its user's preference as a system message."""
    rows: list[dict[str, str]] = []
    for user in users:
        sentence = library.instruction(Known(preference=user.preference))
        for row in own_pairs(verdicts[user.name]):
            prompt = f"System: {sentence}\n\nHuman: {row['prompt']}" if sentence else row["prompt"]
            rows.append({**row, "prompt": prompt})
    return rows
