"""Does each expert do what it was trained for, on prompts that nothing was trained on?

    python libraries/evaluate.py LIBRARY --prompts koala.jsonl questions.jsonl --out reports/NAME

Every expert alone (coefficient 1 times the library's strength unless `--strength` says otherwise),
the base and a system prompt answer held-out prompts; judges of another family than the teachers
score them: the library's held-back rewards (another trunk, on the half of the pairs that taught
nothing), and for objectives that a rule defines another measure of the same thing. Guards: cosine
of prompt and answer, perplexity under the untouched base, share of words in whole sentences.
"""

import argparse
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library, SamplingParams
from palate.core.files import read_jsonl, write_json, write_jsonl, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.library.generate import score_all
from palate.library.rewards import held_back_rewards
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.embedder import load_embedder
from palate.rewards.sentences import whole_sentences, whole_share
from palate.rewards.settings import EMBEDDER

LONGEST = 400  # characters of a prompt
GUARDS = ("relevance", "log perplexity", "whole", "words")
_SHORT, _LONG = 60, 420  # characters: the concise judge's ramp
_THIN, _DENSE = 60, 300  # compressed bytes: the informative judge's ramp


def brevity(answer: str) -> float:
    """Few characters, [0, 1], times the share in whole sentences."""
    share = min(1.0, max(0.0, (_LONG - len(answer)) / (_LONG - _SHORT)))
    return share * whole_share(answer)


def density(answer: str) -> float:
    """Bytes of the whole sentences after compression, [0, 1]: what is said twice counts once."""
    size = len(zlib.compress(" ".join(whole_sentences(answer)).encode(), 9)) if answer else 0
    return min(1.0, max(0.0, (size - _THIN) / (_DENSE - _THIN)))


MEASURES = {"concise": brevity, "informative": density}


@dataclass(frozen=True, eq=False)
class Answers:
    """One policy's answers."""

    prompts: list[str]
    texts: list[str]


def main() -> None:
    """Answer, judge, and write `experts.json`, `experts.md` and `answers.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library")
    parser.add_argument("--base", default=None)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n-prompts", type=int, default=110)
    parser.add_argument("--n-seeds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--strength", type=float, default=None)
    parser.add_argument("--experts", default="")
    parser.add_argument("--without-prompt", action="store_true")
    options = parser.parse_args()
    library = Library.load(options.library, base=options.base)
    strength = options.strength or library.strength
    prompts = held_out(options.prompts, options.n_prompts)
    names = options.experts.split(",") if options.experts else list(library.bank.names)
    policies: dict[str, dict[str, object]] = {"base": {"method": "base"}}
    for name in names:
        policies[name] = {"method": "soup", "coefficients": {name: strength}}
        if not options.without_prompt:
            policies[f"prompt: {name}"] = {"method": "prompt", "preference": {name: 1.0}}
    sampling = SamplingParams(temperature=options.temperature, max_tokens=options.max_tokens)
    answers: dict[str, Answers] = {}
    with progress_of("answers, policies") as report:
        for done, (name, known) in enumerate(policies.items(), start=1):
            outputs = [
                output
                for seed in range(options.n_seeds)
                for output in library.generate(prompts, sampling=sampling, seed=seed, **known)
            ]
            texts = [output.text.strip() for output in outputs]
            answers[name] = Answers(prompts * options.n_seeds, texts)
            report(done, len(policies))
    scores = {name: judged(library, own) for name, own in answers.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    result = compared(scores, answers["base"].prompts, n_seeds=options.n_seeds)
    facts = {
        "library": str(options.library),
        "strength": strength,
        "n_prompts": len(prompts),
        "n_seeds": options.n_seeds,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "policies": result,
    }
    write_json(options.out / "experts.json", facts)
    write_jsonl(
        options.out / "answers.jsonl",
        (
            {"policy": name, "prompt": prompt, "answer": text}
            for name, own in answers.items()
            for prompt, text in zip(own.prompts[: len(prompts)], own.texts, strict=False)
        ),
    )
    table = as_markdown(facts)
    write_text_atomic(options.out / "experts.md", table)
    print(table)  # noqa: T201


def held_out(paths: list[Path], n: int) -> list[str]:
    """So many different prompts of the files, of a fit length, in a seeded order."""
    rows = [row for path in paths for row in read_jsonl(path, what="prompts file")]
    texts = sorted({str(row["prompt"]).strip() for row in rows if len(row["prompt"]) <= LONGEST})
    return [texts[k] for k in generator_for(0, "held-out prompts").permutation(len(texts))[:n]]


def judged(library: Library, answers: Answers) -> dict[str, Float[ndarray, " answers"]]:
    """By objective and guard, one number for each answer, `[answers]`."""
    rewards, _ = held_back_rewards(library.files)
    values = np.clip(rewards.score(answers.prompts, answers.texts), 0.0, 1.0)
    scores = {name: values[:, column] for column, name in enumerate(rewards.objectives)}
    for name, measure in MEASURES.items():
        if name in scores:
            scores[name] = np.array([measure(text) for text in answers.texts])
    embedder = load_embedder(EMBEDDER, max_length=256)
    left, right = embedder.embed(answers.prompts), embedder.embed(answers.texts)
    scores["relevance"] = (left * right).sum(axis=1)
    scores["log perplexity"] = perplexities(library, answers)
    scores["whole"] = np.array([whole_share(text) for text in answers.texts])
    scores["words"] = np.array([float(len(text.split())) for text in answers.texts])
    return scores


def perplexities(library: Library, answers: Answers) -> Float[ndarray, " answers"]:
    """Mean surprise per token under the base, nats, `[answers]`; NaN for an empty answer."""
    pairs = [pair for pair in zip(answers.prompts, answers.texts, strict=True) if pair[1]]
    decisions = [library.decide(prompt, method="base") for prompt, _ in pairs]
    scores = iter(score_all(library, decisions, [text for _, text in pairs]))
    each = [next(scores) if text else None for text in answers.texts]
    return np.array([-s.log_prob / len(s.tokens) if s else float("nan") for s in each])


def compared(
    scores: dict[str, dict[str, Float[ndarray, " answers"]]], prompts: list[str], *, n_seeds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """By policy and measure: mean, difference to the base and its 95 % interval over prompts."""
    n = len(prompts) // n_seeds
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, own in scores.items():
        result[name] = {}
        for measure, values in own.items():
            paired = (values - scores["base"][measure]).reshape(n_seeds, n)
            differences = np.nanmean(paired, axis=0)
            differences = differences[np.isfinite(differences)]
            generator = generator_for(0, "experts", name, measure)
            interval = bootstrap_interval(differences, generator=generator)
            result[name][measure] = {
                "mean": float(np.nanmean(values)),
                "difference": float(differences.mean()),
                "low": float(interval.low),
                "high": float(interval.high),
            }
    return result


def as_markdown(facts: dict[str, Any]) -> str:
    """The table: own objective, then the guards."""
    policies: dict[str, dict[str, dict[str, float]]] = facts["policies"]
    lines = [
        f"Library {facts['library']}, strength {facts['strength']}, {facts['n_prompts']} held-out "
        f"prompts x {facts['n_seeds']} seeds, temperature {facts['temperature']}, at most "
        f"{facts['max_tokens']} tokens. Differences to the base with 95 % intervals over prompts.",
        "",
        "| policy | own objective, base | gain | relevance | log perplexity | whole | words |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in policies.items():
        objective = name.removeprefix("prompt: ")
        cells = [name]
        if objective in own:
            cells += [f"{policies['base'][objective]['mean']:.3f}", _difference(own[objective])]
        else:
            cells += ["", ""]
        cells += [
            f"{own['words']['mean']:.0f}"
            if g == "words"
            else _difference(own[g], is_base=name == "base")
            for g in GUARDS
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _difference(cell: dict[str, float], *, is_base: bool = False) -> str:
    if is_base:
        return f"{cell['mean']:.3f}"
    return f"{cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


if __name__ == "__main__":
    main()
