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
        _short(shares["tokens"]),
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
    if facts["is_head_only"]:
        return (
            "All these experts are changes of the unembedding alone, so psi holds each of them "
            "exactly by construction: what psi lacks of 100 % is what a regression cannot find "
            "from so few states, and says nothing against the claim, nor for it."
        )
    return (
        "These experts adapt layers below the unembedding, so nothing makes them linear in psi. "
        "`tangent` is not fitted: it is the first-order change along the expert's own adapter, and "
        "says how far the expert is from being small."
    )


def _short(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    means = {
        title: f"{100 * float(np.mean([share['estimate'] for share in shares])):.0f} %"
        for title, shares in rows.items()
    }
    basis = [title for title in means if title.startswith("basis")][-1]
    return (
        f"In the mean over experts psi explains {means['psi']} of a new expert, one number for "
        f"each token, whatever came before it, {means['tokens alone']}, the {basis.split(', ')[1]} "
        f"basis of all others {means[basis]}. What psi adds to one number a token is what the "
        "representation of the context is worth."
    )


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
