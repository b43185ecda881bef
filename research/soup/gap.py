"""Output soup against parameter soup on one bank, and implicit against explicit draws.

Along answers of the base, mixtures of the basis experts are pooled by outputs and by parameters;
how far the two next-token distributions are apart is shown by strength, the sum of absolute
coefficients. Mixtures are points of the simplex, and signed directions whose absolute entries sum
to one, both multiplied by the strength.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import chi2, chisquare

from palate.core.plan import Plan, Pool, Row, one_hot
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.simplex import sample_simplex
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import row_distributions
from palate.library.features import scored_text
from palate.soup.rejection import rejection_sampler, sample_implicit
from palate.soup.states import kl_divergence
from research.soup.explicit import pool_log_linear
from research.soup.fit import StudyBasis
from research.soup.study_users import N_EXPERTS, Seed

STRENGTHS = (0.5, 1.0, 2.0, 3.0, 5.0)
N_POINTS = 6  # of the simplex, and as many signed directions
N_ANSWERS = 16
SAFE_DISTANCE = 0.1  # mean total variation up to which parameters may be souped
N_DRAWS = 5000
N_DRAW_STATES = 4
LEAST_EXPECTED = 5.0  # draws of a cell of the chi-square


def measure_gap(seed: Seed, basis: StudyBasis) -> dict[str, Any]:
    """Distances by kind of mixture and strength, and the chi-square of implicit draws."""
    generator = generator_for(seed.number, "soup study", "gap")
    shares = sample_simplex(n_points=N_POINTS, n_objectives=N_EXPERTS, generator=generator)
    signed = generator.normal(size=(N_POINTS, N_EXPERTS))
    signed /= np.abs(signed).sum(axis=1, keepdims=True)
    points = np.concatenate([shares, signed])
    coefficients = np.concatenate([strength * points for strength in STRENGTHS])
    bank = AdapterBank.load(seed.judge.base, seed.experts(basis.soup.experts))
    tables: list[ndarray] = []
    first: list[tuple[ndarray, ndarray]] = []
    try:
        with progress_of("output against parameter soup, answers") as report:
            for place in range(N_ANSWERS):
                item = scored_text(
                    seed.judge.base, seed.pool.prompts[place], seed.pool.texts[place]
                )
                rows = row_distributions(seed.judge.base, bank, plan=_plan(coefficients), item=item)
                rows = torch.log_softmax(rows.double(), dim=-1).cpu().numpy()
                tables.append(_distances(rows, coefficients))
                first.append((rows[0, 0], rows[1 : 1 + N_EXPERTS, 0]))
                report(place + 1, N_ANSWERS)
    finally:
        bank.close()
    by_token = np.concatenate(tables, axis=1)  # [mixtures, tokens, 3]
    n_tokens = by_token.shape[1]
    means = by_token.mean(axis=1).reshape(len(STRENGTHS), 2, N_POINTS, 3)
    return {
        "seed": seed.number,
        "n_tokens": n_tokens,
        "rows": [
            {
                "strength": strength,
                "mixture": kind,
                "kl_to_base": float(means[s, k, :, 0].mean()),
                "kl": float(means[s, k, :, 1].mean()),
                "kl_worst": float(means[s, k, :, 1].max()),
                "distance": float(means[s, k, :, 2].mean()),
                "distance_worst": float(means[s, k, :, 2].max()),
            }
            for s, strength in enumerate(STRENGTHS)
            for k, kind in enumerate(("simplex", "signed"))
        ],
        "implicit": _chi_square(first[:N_DRAW_STATES], points[N_POINTS] * 2.0, generator),
    }


def _plan(coefficients: Float[ndarray, "mixtures experts"]) -> Plan:
    """The reference, every expert, and every parameter soup; read, never pooled."""
    rows = [Row((0.0,) * N_EXPERTS)]
    rows += [Row(one_hot(index=k, n_experts=N_EXPERTS)) for k in range(N_EXPERTS)]
    rows += [Row(tuple(row)) for row in coefficients.tolist()]
    return Plan(tuple(rows), Pool("log_linear", (1.0, *(0.0 for _ in rows[1:]))))


def _distances(
    rows: Float[ndarray, "rows tokens vocab"], coefficients: Float[ndarray, "mixtures experts"]
) -> Float[ndarray, "mixtures tokens three"]:
    """KL output soup to base, KL output soup to parameter soup, and their total variation."""
    found: list[ndarray] = []
    for place, mixture in enumerate(coefficients):
        explicit = pool_log_linear(rows[0], rows[1 : 1 + N_EXPERTS], mixture).log_probs
        parameter = rows[1 + N_EXPERTS + place]
        variation = 0.5 * np.abs(np.exp(explicit) - np.exp(parameter)).sum(axis=-1)
        found.append(
            np.stack(
                [
                    kl_divergence(explicit, rows[0]),
                    kl_divergence(explicit, parameter),
                    variation,
                ],
                axis=-1,
            )
        )
    return np.stack(found)


def _chi_square(
    states: list[tuple[ndarray, ndarray]],
    coefficients: Float[ndarray, " experts"],
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Implicit draws at real states against the explicit distribution; rare tokens are joined."""
    statistic = freedom = n_proposals = 0.0
    for reference, experts in states:
        explicit = np.exp(pool_log_linear(reference, experts, coefficients).log_probs)
        tilt = coefficients @ (experts - reference)
        sampler = rejection_sampler(reference, tilt)
        draws = sample_implicit(sampler, n_draws=N_DRAWS, generator=generator)
        n_proposals += float(draws.n_proposals.sum())
        counts = np.bincount(draws.tokens, minlength=len(explicit)).astype(float)
        expected = N_DRAWS * explicit
        is_common = expected >= LEAST_EXPECTED
        seen = np.append(counts[is_common], counts[~is_common].sum())
        wanted = np.append(expected[is_common], expected[~is_common].sum())
        kept = wanted > 0
        statistic += float(chisquare(seen[kept], wanted[kept]).statistic)
        freedom += float(kept.sum() - 1)
    n_draws = N_DRAWS * len(states)
    return {
        "n_draws": n_draws,
        "statistic": statistic,
        "freedom": freedom,
        "p_value": float(chi2.sf(statistic, freedom)),
        "acceptance": n_draws / n_proposals,
    }
