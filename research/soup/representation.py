"""Are the log-ratios of preference-tuned policies linear in one representation, on a real model?

    python -m research.soup.representation LIBRARY --prompts koala.jsonl

LIBRARY is a folder, a hub id or a shipped library's name. Each expert in turn is the *new* one. Its
tilts at states of the base's answers are predicted by ridge regression from

    psi               the base's last hidden state after the final norm
    psi, middle       the hidden state after half of the blocks instead
    random states     as many random numbers, one vector for each preceding token
    tokens alone      one number, the same in every state
    basis of others   singular directions of the other experts' tilts, of rank 1, 2, ...
    random directions as many random changes of the unembedding of rank one
    tangent           not fitted: the first-order change along the expert's own adapter

and the share of variance explained is counted on held-out prompts: those of `--prompts`, answered
by the base, or else prompts of the library's rollouts that the regressions were not fitted to.
Method and limits: `research.soup.linearity`.
"""

from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray

from palate import Library
from palate.core.errors import InvalidInputError
from palate.core.files import write_json, write_text_atomic
from palate.core.plan import one_hot
from research.command_line import IsJson, Seed, print_result, run
from research.soup.linearity import (
    Share,
    TokenStates,
    by_basis,
    by_features,
    by_random_directions,
    energy_by_rank,
    explained,
    ranks_by_number,
)
from research.soup.representation_report import as_markdown
from research.soup.representation_states import MAX_TOKENS, items_of, states_of

SHARES = (0.9, 0.99, 0.999)
FEATURES = {
    "psi": "psi",
    "middle": "psi, middle",
    "random": "random states",
    "none": "tokens alone",
}


def main(
    *,
    library: Annotated[str, typer.Argument(help="A folder, hub id or shipped library.")] = (
        "smollm2-135m"
    ),
    prompts: Annotated[
        Path | None, typer.Option(help="JSONL of prompts that no expert was trained on.")
    ] = None,
    n_prompts: Annotated[int, typer.Option(help="To fit to; half as many to count on.")] = 48,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Report's path without ending.")] = None,
    is_json: IsJson = False,
) -> None:
    """Print shares and ranks; with `--out`, write them as Markdown and JSON."""
    start = process_time()
    opened = Library.load(library)
    if opened.bank.n_experts < 2:
        raise InvalidInputError(
            f"The library {library!r} has {opened.bank.n_experts} experts; a new one is predicted "
            "from others, so give a library of at least two."
        )
    sizes = n_prompts, max(2, n_prompts // 2)
    fit, held_out = items_of(opened, prompts, sizes=sizes, seed=seed)
    train, _ = states_of(opened, fit, seed=seed, has_tangent=False)
    test, tangent = states_of(opened, held_out, seed=seed, has_tangent=True)
    facts = {
        "library": opened.files.folder.name,
        "prompts": "held-out rollouts" if prompts is None else prompts.name,
        "n_prompts": n_prompts,
        "max_tokens": MAX_TOKENS,
        "seed": seed,
        **measured(train, test, tangent, names=opened.manifest.expert_names, seed=seed),
        "head_only": head_only(opened),
        "cpu_seconds": round(process_time() - start),
    }
    if out is not None:
        write_json(out.with_suffix(".json"), facts)
        write_text_atomic(out.with_suffix(".md"), as_markdown(facts))
    print_result(facts, is_json=is_json)


def head_only(opened: Library) -> list[str]:
    """Names of the experts that are changes of the unembedding alone."""
    names = opened.manifest.expert_names
    rows = {name: one_hot(index=k, n_experts=len(names)) for k, name in enumerate(names)}
    return [name for name, row in rows.items() if not any(opened.bank.before_head(row))]


def measured(
    train: TokenStates,
    test: TokenStates,
    tangent: Float[ndarray, "states tokens experts"] | None,
    *,
    names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Shares by expert and representation, for tokens and whole answers, and effective ranks."""
    train, test = _renumbered(train, test)
    n_others = len(names) - 1
    predictions: dict[str, list[ndarray]] = {}
    ridges: dict[str, float] = {}
    for feature, title in FEATURES.items():
        predicted, ridges[title] = by_features(train, test, feature, seed=seed)
        predictions[title] = [predicted[..., k] for k in range(len(names))]
    for rank in range(1, n_others + 1):
        predictions[f"basis of others, rank {rank}"] = [
            by_basis(train, test, expert=k, rank=rank) for k in range(len(names))
        ]
    if tangent is not None:
        predictions["tangent"] = [tangent[..., k] for k in range(len(names))]
    shares = {
        unit: {
            title: [
                vars(explained(test, own[k], expert=k, seed=seed, is_answers=unit == "answers"))
                for k in range(len(names))
            ]
            for title, own in predictions.items()
        }
        for unit in ("tokens", "answers")
    }
    shares["tokens"][f"random directions, {n_others}"] = [
        vars(_random_share(train, test, expert=k, n=n_others, seed=seed)) for k in range(len(names))
    ]
    return {
        "experts": list(names),
        "n": {
            "fit": [len(np.unique(train.prompts)), len(train.prompts)],
            "held out": [len(np.unique(test.prompts)), len(test.prompts)],
        },
        "ridges": ridges,
        "shares": shares,
        "effective_rank": [
            {"experts": n, **{f"{share:g}": rank for share, rank in ranks.items()}}
            for n, ranks in ranks_by_number(test, shares=SHARES)
        ],
        "energy_by_rank": energy_by_rank(test),
    }


def _random_share(
    train: TokenStates, test: TokenStates, *, expert: int, n: int, seed: int
) -> Share:
    """The mean share over random sets of directions, with the central 95 % of the sets."""
    drawn = by_random_directions(train, test, name="psi", expert=expert, n=n, seed=seed)
    shares = [explained(test, one, expert=expert, seed=seed).estimate for one in drawn]
    low, high = np.quantile(shares, [0.025, 0.975])
    return Share(float(np.mean(shares)), float(low), float(high))


def _renumbered(train: TokenStates, test: TokenStates) -> tuple[TokenStates, TokenStates]:
    """The same with tokens numbered from zero, of those that occur."""
    both = np.concatenate([train.tokens.ravel(), test.tokens.ravel()])
    numbers = np.unique(both, return_inverse=True)[1]
    parts = np.split(numbers, [train.tokens.size])
    return tuple(
        TokenStates(
            states.features,
            part.reshape(states.tokens.shape),
            states.shares,
            states.tilts,
            states.prompts,
            states.answers,
        )
        for states, part in zip((train, test), parts, strict=True)
    )  # type: ignore[return-value]


if __name__ == "__main__":
    run(main)
