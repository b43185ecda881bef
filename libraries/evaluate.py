"""Does each expert do what it was trained for, on prompts that nothing was trained on?

    python -m libraries.evaluate LIBRARY --prompts koala.jsonl questions.jsonl --out reports/NAME

Every expert alone, a system prompt, and soups of three objectives answer held-out prompts beside
the base. Two judges of other families than the teachers score each objective:

    meaning   the library's held-back reward: another trunk, on the half of the pairs held back
    form      a measure without training: characters, compressed bytes, reading ease, and lists of
              courteous and rude words, all of whole sentences only

For an objective that a rule taught, the form is another measure of the same thing, and there is no
second judge. Guards: cosine of prompt and answer, perplexity under the untouched base, KL to the
base (nats an answer, along the policy's own answers; not for prompts), share of words in whole
sentences, words.

`--curve 0.5,1,2` answers with every expert at these strengths instead.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate import Library, SamplingParams
from palate.core.decision import Known
from palate.core.files import read_jsonl, write_json, write_jsonl, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.engine.logprobs import answer_divergences
from palate.library.features import scored_text
from palate.library.generate import score_all
from palate.library.rewards import held_back_rewards
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.embedding import load_embedder
from palate.rewards.sentences import unbroken_share
from palate.rewards.settings import EMBEDDER
from research.board.forms import FORMS

LONGEST = 400  # characters of a prompt
JUDGES = ("form", "meaning")
GUARDS = ("relevance", "log perplexity", "KL", "whole", "words")
PLAIN = {"KL": 1, "words": 0}  # digits of guards that are printed as they are


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
    parser.add_argument("--temperature", type=float, default=None, help="the library's")
    parser.add_argument("--strength", type=float, default=None, help="the library's")
    parser.add_argument("--curve", default="", help="strengths, with commas")
    parser.add_argument("--experts", default="", help="names, with commas")
    parser.add_argument("--without-rivals", action="store_true", help="no prompts, no soups")
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    library = Library.load(options.library, base=options.base, dtype=options.dtype)
    strength = options.strength or library.strength
    prompts = held_out(options.prompts, options.n_prompts)
    names = options.experts.split(",") if options.experts else list(library.bank.names)
    curve = [float(value) for value in options.curve.split(",") if value]
    policies = along(names, curve) if curve else compared_policies(library, names, strength)
    if options.without_rivals:
        policies = {name: known for name, known in policies.items() if ":" not in name}
    temperature = options.temperature or library.sampling.temperature
    sampling = SamplingParams(temperature=temperature, max_tokens=options.max_tokens)
    answers: dict[str, Answers] = {}
    with progress_of("answers, policies") as report:
        for done, (name, known) in enumerate(policies.items(), start=1):
            texts: list[str] = []
            for seed in range(options.n_seeds):
                outputs = library.generate(prompts, sampling=sampling, seed=seed, **known)
                texts += [output.text.strip() for output in outputs]
            answers[name] = Answers(prompts * options.n_seeds, texts)
            report(done, len(policies))
    scores: dict[str, dict[str, Float[ndarray, " answers"]]] = {}
    with progress_of("judgments, policies") as report:
        for done, (name, known) in enumerate(policies.items(), start=1):
            scores[name] = judged(library, answers[name], known, n_first=len(prompts))
            report(done, len(policies))
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "library": str(options.library),
        "strength": strength,
        "n_prompts": len(prompts),
        "n_seeds": options.n_seeds,
        "temperature": temperature,
        "max_tokens": options.max_tokens,
        "policies": compared(scores, n_seeds=options.n_seeds),
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


def compared_policies(
    library: Library, names: Sequence[str], strength: float
) -> dict[str, dict[str, Any]]:
    """The base, every expert alone, its system prompt, and soups of one of every two neighbours."""
    policies: dict[str, dict[str, Any]] = {"base": {"method": "base"}}
    for name in names:
        policies[name] = {"method": "soup", "coefficients": {name: strength}}
        policies[f"prompt: {name}"] = {"method": "prompt", "preference": {name: 1.0}}
    every = library.manifest.objective_names
    pairs = [every[k : k + 2] for k in range(0, len(every), 2)] if names == list(every) else []
    for chosen in itertools.product(*pairs) if pairs else ():
        thirds = dict.fromkeys(chosen, 1 / len(chosen))
        policies[f"soup: {', '.join(chosen)}"] = {"method": "soup", "preference": thirds}
    return policies


def along(names: Sequence[str], curve: Sequence[float]) -> dict[str, dict[str, Any]]:
    """The base, and every expert at every strength."""
    policies: dict[str, dict[str, Any]] = {"base": {"method": "base"}}
    for name, strength in itertools.product(names, curve):
        coefficients = {name: strength}
        policies[f"{name} at {strength:g}"] = {"method": "soup", "coefficients": coefficients}
    return policies


def held_out(paths: list[Path], n: int) -> list[str]:
    """So many different prompts of the files, of a fit length, in a seeded order."""
    rows = [row for path in paths for row in read_jsonl(path, what="prompts file")]
    texts = sorted({str(row["prompt"]).strip() for row in rows if len(row["prompt"]) <= LONGEST})
    return [texts[k] for k in generator_for(0, "held-out prompts").permutation(len(texts))[:n]]


def judged(
    library: Library, answers: Answers, known: dict[str, Any], *, n_first: int
) -> dict[str, Float[ndarray, " answers"]]:
    """By judge and objective, and by guard, one number for each answer, `[answers]`.

    Perplexity and KL are measured on the first answers only, NaN for the others; `known` is what
    the policy was decided by.
    """
    rewards, self_judged = held_back_rewards(library.files)
    values = np.clip(rewards.score(answers.prompts, answers.texts), 0.0, 1.0)
    scores = {
        f"meaning {name}": values[:, column]
        for column, name in enumerate(rewards.objectives)
        if name not in self_judged
    }
    for name, form in FORMS.items():
        scores[f"form {name}"] = np.array([form(text) for text in answers.texts])
    embedder = load_embedder(EMBEDDER, max_length=256)
    left, right = embedder.embed(answers.prompts), embedder.embed(answers.texts)
    scores["relevance"] = (left * right).sum(axis=1)
    scores["log perplexity"] = perplexities(library, answers, n=n_first)
    scores["KL"] = divergences(library, answers, known, n=n_first)
    scores["whole"] = np.array([unbroken_share(text) for text in answers.texts])
    scores["words"] = np.array([float(len(text.split())) for text in answers.texts])
    return scores


def perplexities(library: Library, answers: Answers, *, n: int) -> Float[ndarray, " answers"]:
    """Mean surprise per token under the base, nats, `[answers]`; NaN for an empty answer.

    Only the first `n` are measured.
    """
    texts = [text if k < n else "" for k, text in enumerate(answers.texts)]
    pairs = [pair for pair in zip(answers.prompts, texts, strict=True) if pair[1]]
    decisions = [library.decide(prompt, method="base") for prompt, _ in pairs]
    scores = iter(score_all(library, decisions, [text for _, text in pairs]))
    each = [next(scores) if text else None for text in texts]
    return np.array([-s.log_prob / len(s.tokens) if s else float("nan") for s in each])


def divergences(
    library: Library, answers: Answers, known: dict[str, Any], *, n: int
) -> Float[ndarray, " answers"]:
    """KL of the policy to the base along each answer, nats, at the temperature of sampling.

    NaN for an empty answer, for answers behind the first `n`, and for policies of other prompts.
    """
    values = np.full(len(answers.texts), np.nan)
    places = [k for k, text in enumerate(answers.texts[:n]) if text]
    coefficients = known.get("coefficients")
    if not coefficients or not places:
        return values
    decision = library.decide("", Known(coefficients=coefficients), method=known["method"])
    items = [scored_text(library.base, answers.prompts[k], answers.texts[k]) for k in places]
    values[places] = [
        float(own.double().sum())
        for own in answer_divergences(
            library.base,
            library.bank,
            plans=[decision.plan] * len(items),
            items=items,
            temperature=library.sampling.temperature,
        )
    ]
    return values


def compared(
    scores: dict[str, dict[str, Float[ndarray, " answers"]]], *, n_seeds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """By policy and measure: mean, difference to the base and its 95 % interval over prompts."""
    n = len(scores["base"]["words"]) // n_seeds
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, own in scores.items():
        result[name] = {}
        for measure, values in own.items():
            reference = 0.0 if measure == "KL" else scores["base"][measure]
            paired = (values - reference).reshape(n_seeds, n)
            measured = np.isfinite(paired).any(axis=0)
            if not measured.any():
                continue
            differences = np.nanmean(paired[:, measured], axis=0)
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
    """Gains in the policy's own objectives, judge by judge, then the guards."""
    policies: dict[str, dict[str, dict[str, float]]] = facts["policies"]
    lines = [
        f"Library {facts['library']}, strength {facts['strength']}, {facts['n_prompts']} held-out "
        f"prompts x {facts['n_seeds']} seeds, temperature {facts['temperature']}, at most "
        f"{facts['max_tokens']} tokens. Differences to the base with 95 % intervals over prompts.",
        "",
        f"| {' | '.join(('policy', 'objective', 'form', 'meaning', *GUARDS))} |",
        "|---|---|" + "---|" * (2 + len(GUARDS)),
    ]
    for name, own in policies.items():
        guards = [_guard(own, guard, is_base=name == "base") for guard in GUARDS]
        plain = name.removeprefix("prompt: ").removeprefix("soup: ").partition(" at ")[0]
        objectives = plain.split(", ") if name != "base" else list(FORMS)
        for place, objective in enumerate(objectives):
            cells = [
                _difference(own[key], is_base=name == "base") if key in own else ""
                for key in (f"form {objective}", f"meaning {objective}")
            ]
            row = [name if place == 0 else "", objective, *cells]
            lines.append(
                "| " + " | ".join([*row, *(guards if place == 0 else [""] * len(GUARDS))]) + " |"
            )
    return "\n".join(lines) + "\n"


def _guard(own: dict[str, dict[str, float]], guard: str, *, is_base: bool) -> str:
    if guard not in own:
        return ""
    if guard in PLAIN:
        return f"{own[guard]['mean']:.{PLAIN[guard]}f}"
    return _difference(own[guard], is_base=is_base)


def _difference(cell: dict[str, float], *, is_base: bool = False) -> str:
    if is_base:
        return f"{cell['mean']:.3f}"
    return f"{cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


if __name__ == "__main__":
    main()
