"""The library's strength: how far soups of stated preferences go, measured on calibration prompts.

The strength multiplies coefficients that follow from a preference. The largest candidate is taken
at which soups stay within the trust region on average and the answers of blends, and of every
objective alone, are as whole as the base's:

- blends end by themselves about as often (an objective alone may be about length);
- about as few hold a token that the base itself would hardly ever write there (below the first
  percentile of the least probable token of the base's own answers);
- about as few repeat themselves (share of 4-grams that occurred before);
- about as many of their words are in whole sentences (of English; others count for nobody).

None of the four asks what anybody prefers: the strength is chosen without a reward. A blend hides
what one of its objectives does alone (`docs/log.md`, 2026-11-29), so each is looked at.

What it does not say: fluency is judged by the base's own probabilities and by the form of
sentences, not by a reader; whether an answer is still about the question is not asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from jaxtyping import Float

from palate.core.decision import Decision, Known
from palate.core.files import hash_value
from palate.core.plan import reference_plan
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import lattice
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.generate import Output, generate_all
from palate.library.library import Library
from palate.library.soup import SOUP
from palate.metrics.diversity import distinct_n
from palate.models.chat import encode_prompt
from palate.rewards.sentences import unbroken_share
from palate.rewards.texts import messages_of
from palate.soup.basis_file import save_basis
from palate.soup.plans import reward_space_coefficients
from palate.soup.trust import trust_region

CANDIDATES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
TOLERANCE = 0.05  # by which a share may be worse than the base's
QUANTILE = 0.01  # of the base's answers, by their least probable token
N_GRAM = 4
MAX_PREFERENCES = 24
MIN_ANSWERS = 128  # of blends, for every candidate
N_ALONE = 48  # answers for one objective alone, for every candidate
ALONE_TOLERANCE = 0.1  # there: two standard errors of a share of 0.1
BLENDS = "blends"


@dataclass(frozen=True)
class Wholeness:
    """How whole answers are; shares in [0, 1]."""

    finished: float  # answers that ended by themselves
    odd: float  # answers with a token that the base would hardly ever write there
    repeated: float  # 4-grams that occurred before in their answer, mean over answers
    unbroken: float  # words in whole sentences, mean over answers
    kl: float = 0.0  # mean KL to the base along the base's own answers, nats per token

    def is_as_whole_as(self, base: "Wholeness", *, is_alone: bool = False) -> bool:
        """Whether no share is worse than the base's by more than the tolerance."""
        tolerance = ALONE_TOLERANCE if is_alone else TOLERANCE
        return (
            (is_alone or self.finished >= base.finished - tolerance)
            and self.odd <= base.odd + tolerance
            and self.repeated <= base.repeated + tolerance
            and self.unbroken >= base.unbroken - tolerance
        )


def measure_strength(
    library: Library, prompts: Sequence[str], *, sampling: SamplingParams, seed: int = 0
) -> dict[float, dict[str, Wholeness]]:
    """Write the largest candidate that passes into `soup.json`; the smallest where none does.

    Returns wholeness by candidate, up to the first that failed: of blends, and of each objective
    alone by its name.
    """
    work = _Work(library, tuple(prompts), sampling, seed)
    names = library.manifest.objective_names
    blends = _preferences(len(names), seed=seed)
    alone = dict(zip(names, np.eye(len(names)), strict=True))
    own = work.answers([library.decide(p, method="base") for p in map(messages_of, work.places(1))])
    threshold = float(np.quantile(work.least_log_probs(own), QUANTILE))
    base = work.wholeness(own, threshold=threshold)
    rows: dict[float, dict[str, Wholeness]] = {}
    strength = CANDIDATES[0]
    with progress_of("measure the strength, candidates") as report:
        for place, candidate in enumerate(CANDIDATES, start=1):
            kl = work.kl(blends, strength=candidate)
            decisions = work.soups(blends, strength=candidate)
            groups = {BLENDS: decisions}
            groups |= {
                name: work.soups(unit[None], strength=candidate, n=N_ALONE)
                for name, unit in alone.items()
            }
            outputs = iter(work.answers([one for group in groups.values() for one in group]))
            own_answers = {name: list(islice(outputs, len(g))) for name, g in groups.items()}
            results = {
                name: replace(work.wholeness(answers, threshold=threshold), kl=kl)
                for name, answers in own_answers.items()
            }
            rows[candidate] = results
            report(place, len(CANDIDATES))
            is_whole = all(
                one.is_as_whole_as(base, is_alone=name != BLENDS) for name, one in results.items()
            )
            if kl > library.basis.settings.budget + 1e-12 or not is_whole:
                break
            strength = candidate
        report(len(CANDIDATES), len(CANDIDATES))
    set_strength(library, strength, source=strength_key(library, prompts, sampling, seed=seed))
    return rows


def strength_key(
    library: Library, prompts: Sequence[str], sampling: SamplingParams, *, seed: int
) -> str:
    """Hash of what a measured strength depends on beside the experts."""
    own = [library.basis.settings.budget, library.basis.floor]
    return hash_value([list(prompts), sampling.max_tokens, sampling.temperature, seed, own])


def set_strength(library: Library, strength: float | None, *, source: str) -> None:
    """Write the strength and where it is from into `soup.json`; the library reads it anew."""
    basis = replace(library.basis, strength=strength, strength_from=source)
    save_basis(library.files.folder / SOUP, basis)
    for name in ("_soup_file", "basis", "soups", "strength", "method_table"):
        library.__dict__.pop(name, None)


@dataclass(frozen=True, eq=False)
class _Work:
    library: Library
    prompts: tuple[str, ...]
    sampling: SamplingParams
    seed: int

    def places(self, n_preferences: int, n: int = MIN_ANSWERS) -> list[str]:
        """Prompts, repeated so that there are enough answers."""
        n_prompts = len(self.prompts)
        n = max(n, n_preferences, n_prompts)
        # shifted by one each time round, so that a prompt meets several preferences
        return [self.prompts[(place + place // n_prompts) % n_prompts] for place in range(n)]

    def answers(self, decisions: Sequence[Decision]) -> list[Output]:
        seeds = [derive_seed(self.seed, "strength", place) for place in range(len(decisions))]
        return generate_all(self.library, decisions, sampling=self.sampling, seeds=seeds)

    def soups(
        self,
        preferences: Float[np.ndarray, "preferences objectives"],
        *,
        strength: float,
        n: int = MIN_ANSWERS,
    ) -> list[Decision]:
        """Decisions of soups for at least `n` answers, every preference in turn."""
        names = self.library.manifest.objective_names
        decisions: list[Decision] = []
        for place, prompt in enumerate(self.places(len(preferences), n)):
            shares = preferences[place % len(preferences)]
            named = dict(zip(names, shares.tolist(), strict=True))
            known = Known(preference=named, strength=strength)
            decisions.append(self.library.decide(messages_of(prompt), known, method="soup"))
        return decisions

    def wholeness(self, outputs: Sequence[Output], *, threshold: float) -> Wholeness:
        """How whole answers are; an odd token is one below the threshold, in nats."""
        new = [distinct_n([output.completion.tokens], n=N_GRAM) for output in outputs]
        return Wholeness(
            finished=float(np.mean([output.completion.finish == "stop" for output in outputs])),
            odd=float(np.mean(self.least_log_probs(outputs) < threshold)),
            repeated=float(np.nan_to_num(1 - np.array(new)).mean()),  # short ones repeat nothing
            unbroken=float(np.mean([unbroken_share(output.text) for output in outputs])),
        )

    def least_log_probs(self, outputs: Sequence[Output]) -> Float[np.ndarray, " answers"]:
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
        self, preferences: Float[np.ndarray, "preferences objectives"], *, strength: float
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


def _preferences(n_objectives: int, *, seed: int) -> Float[np.ndarray, "preferences objectives"]:
    """Preferences of one to three objectives in equal parts."""
    thirds = lattice(n_objectives=n_objectives, denominator=3)
    halves = lattice(n_objectives=n_objectives, denominator=2)
    points = np.unique(np.concatenate([thirds, halves]).round(9), axis=0)
    is_even = [len(set(row[row > 0].tolist())) == 1 for row in points]
    even = points[np.array(is_even)]
    order = generator_for(seed, "strength preferences").permutation(len(even))
    return even[order[:MAX_PREFERENCES]]
