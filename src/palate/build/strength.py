"""The library's strength: how far soups of stated preferences go, measured on calibration prompts.

The strength multiplies coefficients that follow from a preference. The largest candidate is taken
at which soups stay within the trust region on average and their answers are as whole as the base's:

- they end by themselves about as often;
- about as few hold a token that the base itself would hardly ever write there (below the first
  percentile of the least probable token of the base's own answers);
- about as few repeat themselves (share of 4-grams that occurred before).

None of the three asks what anybody prefers: the strength is chosen without a reward.

What it does not say: fluency is judged by the base's own probabilities, not by a reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import Decision, Known
from palate.core.plan import reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import lattice
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.generate import Output, generate_all
from palate.library.library import Library
from palate.library.soup import SOUP
from palate.models.chat import encode_prompt
from palate.soup.basis_file import save_basis
from palate.soup.coefficients import reward_space_coefficients
from palate.soup.trust import trust_region

CANDIDATES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
TOLERANCE = 0.05  # by which a share may be worse than the base's
QUANTILE = 0.01  # of the base's answers, by their least probable token
N_GRAM = 4
MAX_PREFERENCES = 24
MIN_ANSWERS = 128  # for every candidate


@dataclass(frozen=True)
class Wholeness:
    """How whole answers are; shares in [0, 1]."""

    finished: float  # answers that ended by themselves
    odd: float  # answers with a token that the base would hardly ever write there
    repeated: float  # 4-grams that occurred before in their answer, mean over answers
    kl: float = 0.0  # mean KL to the base along the base's own answers, nats per token

    def is_as_whole_as(self, base: "Wholeness") -> bool:
        """Whether no share is worse than the base's by more than the tolerance."""
        return (
            self.finished >= base.finished - TOLERANCE
            and self.odd <= base.odd + TOLERANCE
            and self.repeated <= base.repeated + TOLERANCE
        )


def measure_strength(
    library: Library,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[float, Wholeness]:
    """Write the largest candidate that passes into `soup.json`; the smallest where none does.

    Returns wholeness by candidate, up to the first that failed.
    """
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    work = _Work(library, tuple(prompts), sampling, seed)
    preferences = _preferences(len(library.manifest.objectives), seed=seed)
    own = work.answers([library.decide(prompt, method="base") for prompt in work.places(1)])
    least = work.least_log_probs(own)
    threshold = float(np.quantile(least, QUANTILE))
    base = _wholeness(own, least, threshold=threshold)
    rows: dict[float, Wholeness] = {}
    strength = CANDIDATES[0]
    with progress_of("measure the strength, candidates") as report:
        for place, candidate in enumerate(CANDIDATES, start=1):
            outputs = work.soups(preferences, strength=candidate)
            whole = _wholeness(outputs, work.least_log_probs(outputs), threshold=threshold)
            rows[candidate] = replace(whole, kl=work.kl(preferences, strength=candidate))
            report(place, len(CANDIDATES))
            is_within = rows[candidate].kl <= library.basis.settings.budget + 1e-12
            if not (is_within and rows[candidate].is_as_whole_as(base)):
                break
            strength = candidate
        report(len(CANDIDATES), len(CANDIDATES))
    set_strength(library, strength)
    return rows


def set_strength(library: Library, strength: float) -> None:
    """Write the strength into `soup.json`; the library reads it anew."""
    save_basis(library.files.folder / SOUP, replace(library.basis, strength=strength))
    for name in ("_soup_file", "basis", "soups", "strength", "method_table"):
        library.__dict__.pop(name, None)


@dataclass(frozen=True, eq=False)
class _Work:
    library: Library
    prompts: tuple[str, ...]
    sampling: SamplingParams
    seed: int

    def places(self, n_preferences: int) -> list[str]:
        """Prompts, repeated so that there are enough answers."""
        n_prompts = len(self.prompts)
        n = max(MIN_ANSWERS, n_preferences, n_prompts)
        # shifted by one each time round, so that a prompt meets several preferences
        return [self.prompts[(place + place // n_prompts) % n_prompts] for place in range(n)]

    def answers(self, decisions: Sequence[Decision]) -> list[Output]:
        seeds = [derive_seed(self.seed, "strength", place) for place in range(len(decisions))]
        return generate_all(self.library, decisions, sampling=self.sampling, seeds=seeds)

    def soups(
        self, preferences: Float[ndarray, "preferences objectives"], *, strength: float
    ) -> list[Output]:
        """Answers of soups, every preference in turn."""
        names = self.library.manifest.objective_names
        decisions: list[Decision] = []
        for place, prompt in enumerate(self.places(len(preferences))):
            shares = preferences[place % len(preferences)]
            named = dict(zip(names, shares.tolist(), strict=True))
            known = Known(preference=named, strength=strength)
            decisions.append(self.library.decide(prompt, known, method="soup"))
        return self.answers(decisions)

    def least_log_probs(self, outputs: Sequence[Output]) -> Float[ndarray, " answers"]:
        """`[answers]`: log-probability under the base of each answer's least probable token."""
        base, bank = self.library.base, self.library.bank
        items = [
            Scored(tuple(encode_prompt(base, output.completion.prompt)), output.completion.tokens)
            for output in outputs
        ]
        plans = [reference_plan(n_experts=bank.n_experts)] * len(items)
        rows = answer_log_probs(base, bank, plans=plans, items=items)
        return np.array([float(row.min()) if len(row) else 0.0 for row in rows])

    def kl(
        self, preferences: Float[ndarray, "preferences objectives"], *, strength: float
    ) -> float:
        """Mean KL per token of soups, along the base's own answers, nats."""
        library = self.library
        kls = [
            trust_region(
                strength * reward_space_coefficients(shares, anchors=library.anchors),
                library.states,
                budget=np.inf,
            ).kl_before
            for shares in preferences
        ]
        return float(np.mean(kls))


def _preferences(n_objectives: int, *, seed: int) -> Float[ndarray, "preferences objectives"]:
    """Preferences of one to three objectives in equal parts."""
    thirds = lattice(n_objectives=n_objectives, denominator=3)
    halves = lattice(n_objectives=n_objectives, denominator=2)
    points = np.unique(np.concatenate([thirds, halves]).round(9), axis=0)
    is_even = [len(set(row[row > 0].tolist())) == 1 for row in points]
    even = points[np.array(is_even)]
    order = generator_for(seed, "strength preferences").permutation(len(even))
    return even[order[:MAX_PREFERENCES]]


def _wholeness(
    outputs: Sequence[Output], least: Float[ndarray, " answers"], *, threshold: float
) -> Wholeness:
    return Wholeness(
        finished=float(np.mean([output.completion.finish == "stop" for output in outputs])),
        odd=float(np.mean(least < threshold)),
        repeated=float(np.mean([_repeated(output.completion.tokens) for output in outputs])),
    )


def _repeated(tokens: Sequence[int]) -> float:
    """Share of n-grams that occurred before in the same answer."""
    grams = [tuple(tokens[k : k + N_GRAM]) for k in range(len(tokens) - N_GRAM + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
