"""The test of one representation as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def as_markdown(facts: Mapping[str, Any]) -> str:
    """Shares by expert and representation, and effective ranks, as tables."""
    n, shares = facts["n"], facts["shares"]
    is_rollouts = facts["prompts"] == "held-out rollouts"
    where = "" if is_rollouts else f" --prompts {facts['prompts']}"
    lines = [
        "# One representation for all experts",
        "",
        f"`python -m research.soup.representation {facts['library']}{where} --n-prompts "
        f"{facts['n_prompts']}`, seed {facts['seed']}, {facts['cpu_seconds']} s of one core. "
        "Spectral Souping, arXiv 2605.20408, claims that log-ratios of preference-tuned policies "
        "are linear in one representation. Each expert in turn is new; a ridge regression or "
        f"least squares is fitted to its tilts at {n['fit'][1]:,} states of the base's answers to "
        f"{n['fit'][0]} prompts, and counted at {n['held out'][1]:,} states of "
        f"{n['held out'][0]} others"
        + ("" if is_rollouts else ", which no expert was trained on")
        + f". Answers are cut to {facts['max_tokens']} tokens. Intervals: 95 %, bootstrap over "
        "held-out prompts.",
        "",
        _kind(facts),
        "",
        _short(facts),
        "",
        "## Share of a new expert's variance, per cent",
        "",
        "Of the tilts of the 64 most likely tokens of each state, weighted by the base.",
        "",
        *_table(shares["tokens"], facts["experts"]),
        "",
        "Random states are as many numbers as psi, one vector for each preceding token; random "
        "directions are as many as there are other experts, their ranges over 20 sets.",
        "",
        "## The same for whole answers",
        "",
        "Tilts of the tokens that an answer took, summed over the answer.",
        "",
        *_table(shares["answers"], facts["experts"]),
        "",
        "## Effective rank",
        "",
        "Singular directions of the experts' tilts that carry so much of their energy, mean over "
        "all sets of so many experts.",
        "",
        *_ranks(facts["effective_rank"]),
        "",
        "The first directions of all experts carry "
        + ", ".join(f"{share:.1%}" for share in facts["energy_by_rank"])
        + " of the energy.",
    ]
    return "\n".join(lines) + "\n"


def _kind(facts: Mapping[str, Any]) -> str:
    by_construction = facts["head_only"]
    others = [name for name in facts["experts"] if name not in by_construction]
    parts: list[str] = []
    if by_construction:
        parts.append(
            f"Changes of the unembedding alone: {', '.join(by_construction)}. Psi holds each of "
            "them exactly by construction: what psi lacks of 100 % is what a regression cannot "
            "find from so few states, and says nothing against the claim, nor for it."
        )
    if others:
        parts.append(
            f"Adapters of layers below the unembedding: {', '.join(others)}. Nothing makes them "
            "linear in psi. `tangent` is not fitted: it is the first-order change along the "
            "expert's own adapter, and says how far the expert is from being small."
        )
    return " ".join(parts)


def _short(facts: Mapping[str, Any]) -> str:
    rows, experts = facts["shares"]["tokens"], facts["experts"]
    basis = [title for title in rows if title.startswith("basis")][-1]
    groups = {
        "changes of the unembedding": facts["head_only"],
        "adapters of lower layers": [one for one in experts if one not in facts["head_only"]],
    }
    sentences: list[str] = []
    for kind, names in groups.items():
        if not names:
            continue
        means = {
            title: float(np.mean([shares[experts.index(name)]["estimate"] for name in names]))
            for title, shares in rows.items()
        }
        tangent = f"; its own tangent {means['tangent']:.0%}" if "tangent" in means else ""
        sentences.append(
            f"In the mean over {kind} psi explains {means['psi']:.0%} of a new expert, one number "
            f"for each token, whatever came before it, {means['tokens alone']:.0%}, the "
            f"{basis.split(', ')[1]} basis of all others {means[basis]:.0%}{tangent}."
        )
    last = "What psi adds to one number a token is what the representation of the context is worth."
    return " ".join([*sentences, last])


def _table(rows: Mapping[str, Sequence[Mapping[str, float]]], experts: Sequence[str]) -> list[str]:
    lines = [
        f"| from | mean | {' | '.join(experts)} |",
        "|---" * (2 + len(experts)) + "|",
    ]
    for title, shares in rows.items():
        cells = [
            f"{100 * s['estimate']:.0f} [{100 * s['low']:.0f}, {100 * s['high']:.0f}]"
            for s in shares
        ]
        mean = float(np.mean([share["estimate"] for share in shares]))
        lines.append(f"| {title} | {100 * mean:.0f} | {' | '.join(cells)} |")
    return lines


def _ranks(rows: Sequence[Mapping[str, float]]) -> list[str]:
    shares = [key for key in rows[0] if key != "experts"]
    heads = [f"{100 * float(share):g} %" for share in shares]
    lines = [f"| experts | {' | '.join(heads)} |", "|---" * (1 + len(shares)) + "|"]
    lines += [
        f"| {row['experts']} | {' | '.join(f'{row[share]:.1f}' for share in shares)} |"
        for row in rows
    ]
    return lines
