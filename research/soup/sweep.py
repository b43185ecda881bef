"""How many experts a basis needs: nested greedy subsets of one basis, everybody's soup on each."""

from typing import Any

from research.soup.fit import fit_users, serve_users
from research.soup.judge import Judge, answer_cell
from research.soup.study_users import N_EXPERTS, Seed, Table

SIZES = (1, 2, 4, 7, 12, 24)
N_COMPARISONS = 100
N_PROMPTS = 16


def measure_sweep(seed: Seed) -> list[dict[str, Any]]:
    """One row per size: utilities of parameter soups with the prior, and effective ranks."""
    whole = seed.judge
    judge = Judge(whole.base, whole.folder, whole.prompts[:N_PROMPTS], whole.seed)
    table = Table(seed, seed.basis(N_EXPERTS).soup.settings)
    base, ceiling = (
        part.first(N_PROMPTS).utilities(seed.preferences).tolist()
        for part in (table.base, table.bespoke)
    )
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        basis = seed.basis(size)
        soups = serve_users(
            basis, fit_users(basis, seed.votes, n_comparisons=N_COMPARISONS), method="soup"
        )
        cell = answer_cell(
            judge,
            f"sweep-{size}",
            [soup.plan for soup in soups],
            experts=seed.experts(basis.soup.experts),
        )
        rows.append(
            {
                "seed": seed.number,
                "n_experts": size,
                "experts": list(basis.soup.experts),
                "effective_rank": basis.soup.effective_rank,
                "budget": basis.soup.settings.budget,
                "n_prompts": N_PROMPTS,
                "utility": cell.utilities(seed.preferences).tolist(),
                "base": base,
                "ceiling": ceiling,
                "kl_per_token": cell.kl_per_token,
                "well_formed": float(cell.is_well_formed.mean()),
            }
        )
    return rows
