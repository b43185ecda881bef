"""Everything that ways need of one seed, opened once: banks, engines, rewards, a payoff table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.files import hash_files, hash_value
from palate.core.plan import Plan, member_plan, reference_plan
from palate.core.protocols import Request, Sampling
from palate.core.seeds import derive_seed
from palate.core.types import Preference
from palate.evaluate.suite import WORLD, PersonSettings, Suite
from palate.experts.library import Library
from palate.experts.save import PARAMETERS
from palate.mixture.wording import Wording
from palate.models.adapter import Factor, load_adapter
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt, format_messages
from palate.models.engine import LocalEngine
from palate.models.logprobs import Scored, answer_log_probs
from palate.portfolio.payoffs import Measurements, Payoffs, payoffs_from_measurements
from palate.portfolio.selection import Cost, chosen_members
from palate.recipes.evaluate_world import Libraries, world_people
from palate.recipes.mixture_open import OpenedMixture, open_mixture, own_experts, wording_of
from palate.recipes.opened import Opened, open_library
from palate.recipes.reward_sources import library_rewards
from palate.recipes.run_file import read_prompts
from palate.recipes.soup_implicit import ImplicitEngine
from palate.recipes.soup_merge import as_factor, as_factors
from palate.rewards.reward import RewardVector
from palate.soup.merge import factor_mean
from palate.world.prompts import held_out_prompts, train_prompts

MAX_ROWS = 512


@dataclass(frozen=True, eq=False)
class Candidates:
    """Policies that a portfolio is chosen from, measured on development prompts.

    Attributes:
        plans: By name, for the bank of all candidates.
        payoffs: Mean rewards as the library's own reward models say; KL is not priced, because
            people are compared by reward alone.
    """

    plans: dict[str, Plan]
    payoffs: Payoffs


class Kit:
    """One seed's parts.

    Attributes:
        suite: What is compared.
        seed: Of draws.
        opened: The library of experts.
        people: Who is answered.
    """

    def __init__(self, suite: Suite, *, seed: int, libraries: Libraries) -> None:
        """Open the library; the rest is opened when a way asks for it."""
        self.suite = suite
        self.seed = seed
        self.opened: Opened = open_library(libraries.library)
        self.people: tuple[PersonSettings, ...] = suite.people or world_people()
        self._folders = libraries
        base, bank = self.opened.base, self.opened.bank
        self.engine = LocalEngine(base, bank, max_rows=MAX_ROWS)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the library's order."""
        return self.opened.library.manifest.objective_names

    @property
    def experts(self) -> tuple[str, ...]:
        """Names, in bank order."""
        return self.opened.bank.names

    def shares(self, person: PersonSettings) -> Float[ndarray, " objectives"]:
        """The person's preference.

        Raises:
            InvalidPreferenceError: it is off the simplex or names an unknown objective.
        """
        return Preference.from_mapping(person.preference, objectives=self.objectives).vector()

    def wish(self, person: PersonSettings) -> str:
        """The preference in words: the person's own, or those of the wanted objectives."""
        if person.instruction:
            return person.instruction
        named = {one.name: one.instruction for one in self.opened.library.manifest.objectives}
        return " ".join(named[n] for n, share in person.preference.items() if share > 0)

    def text(self, prompt: str, *, wish: str = "") -> str:
        """A prompt as the base reads it, with a wish in front if there is one."""
        if not wish:
            return format_messages(self.opened.base, prompt)
        return format_messages(
            self.opened.base,
            [{"role": "system", "content": wish}, {"role": "user", "content": prompt}],
        )

    @property
    def sampling(self) -> Sampling:
        """Temperature one: policies are compared as they are."""
        return Sampling(max_tokens=self.suite.max_tokens)

    def request(self, prompt: str, plan: Plan, *, copy: int, wish: str = "") -> Request:
        """The request for a prompt; the same seed in every way."""
        return Request(
            self.text(prompt, wish=wish), plan, self.sampling, self.draw_seed(prompt, copy)
        )

    def draw_seed(self, prompt: str, copy: int) -> int:
        """Of one answer's draw."""
        return derive_seed(self.seed, "evaluate", prompt, copy)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """What is asked."""
        return suite_prompts(self.suite)

    @cached_property
    def development(self) -> tuple[str, ...]:
        """What portfolios are chosen on.

        Raises:
            InvalidInputError: one of them is asked in the comparison too.
        """
        found = _prompts(self.suite.development, train_prompts(), n=self.suite.n_development)
        both = set(found) & set(self.prompts)
        if both:
            raise InvalidInputError(
                f"The prompt {sorted(both)[0][:60]!r} is among the development prompts and among "
                "those compared on; a portfolio must not be chosen on what it is judged by."
            )
        return found

    @cached_property
    def rewards(self) -> RewardVector:
        """The library's own reward models: they choose and propose, they never judge."""
        return library_rewards(self.opened.library)

    @cached_property
    def implicit(self) -> ImplicitEngine:
        """Draws soups by rejection."""
        return ImplicitEngine(self.opened.base, self.opened.bank)

    @cached_property
    def wording(self) -> Wording:
        """How a preference is told in words."""
        return wording_of(self.opened, prompts="full")

    @cached_property
    def mixture(self) -> OpenedMixture:
        """The library's controller."""
        return open_mixture(self.opened)

    @cached_property
    def candidates_engine(self) -> LocalEngine:
        """The library's experts and, where they are, the bespoke ones, in one bank."""
        folders = dict(self.opened.library.expert_folders())
        if self._folders.bespoke is not None:
            folders |= Library.open(self._folders.bespoke).expert_folders()
        bank = AdapterBank.load(self.opened.base, folders)
        return LocalEngine(self.opened.base, bank, max_rows=MAX_ROWS)

    def bespoke_name(self, person: PersonSettings) -> str | None:
        """The person's own expert in the bank of candidates."""
        name = person.name.lower()
        return name if name in self.candidates_engine.bank.names else None

    @cached_property
    def conditioned_engine(self) -> LocalEngine:
        """One adapter trained with the preference in the prompt.

        Raises:
            InvalidInputError: there is none.
        """
        bank = AdapterBank.load(self.opened.base, {"conditioned": self._conditioned_folder})
        return LocalEngine(self.opened.base, bank, max_rows=MAX_ROWS)

    @cached_property
    def conditioned_hash(self) -> str:
        """Of the parameters of the conditioned policy.

        Raises:
            InvalidInputError: there is none.
        """
        return hash_files([self._conditioned_folder / PARAMETERS])[:12]

    @property
    def _conditioned_folder(self) -> Path:
        if self._folders.conditioned is None:
            raise InvalidInputError(
                "There is no policy trained with the preference in the prompt; leave out the way "
                "'conditioned'."
            )
        return self._folders.conditioned

    @cached_property
    def factor_mean_engine(self) -> LocalEngine:
        """Per person one adapter, the mean of A factors and of B factors: Personalized Soups."""
        adapters = [
            {name: as_factors(factor) for name, factor in load_adapter(folder).items()}
            for folder in self.opened.library.expert_folders().values()
        ]
        merged: dict[str, dict[str, Factor]] = {}
        for person in self.people:
            shares = self.own_shares(person)
            merged[person.name] = {
                layer: as_factor(factor_mean([one[layer] for one in adapters], shares.tolist()))
                for layer in adapters[0]
            }
        return LocalEngine(
            self.opened.base, AdapterBank(self.opened.base, merged), max_rows=MAX_ROWS
        )

    def own_shares(self, person: PersonSettings) -> Float[ndarray, " experts"]:
        """The preference as shares over the experts trained for one objective each."""
        owners = own_experts(self.opened.library.manifest)
        shares = np.zeros(len(self.experts))
        for name, share in person.preference.items():
            if share > 0 and name not in owners:
                raise InvalidInputError(
                    f"The objective {name!r} has no expert of its own, so {person.name} cannot be "
                    "given a soup of single-objective experts; leave this way out."
                )
            if share > 0:
                shares[owners[name]] = share
        return shares

    @cached_property
    def candidates(self) -> Candidates:
        """All policies a portfolio may hold, with what they are worth on development prompts."""
        engine = self.candidates_engine
        n_experts = engine.bank.n_experts
        plans = {"base": reference_plan(n_experts=n_experts)}
        for index, name in enumerate(engine.bank.names):
            plans[name] = member_plan(index=index, n_experts=n_experts)
        prompts = self.development
        requests = [
            self.request(prompt, plan, copy=0) for plan in plans.values() for prompt in prompts
        ]
        texts = [answer.text for answer in engine.generate(requests)]
        scores = self.rewards.score([*prompts] * len(plans), texts)
        shape = (len(plans), len(prompts))
        payoffs = payoffs_from_measurements(
            Measurements(
                objectives=self.objectives,
                policies=tuple(plans),
                rewards=np.clip(scores, 0, 1).reshape(*shape, len(self.objectives)),
                kl=np.zeros(shape),
                beta=0.0,
                preferences=np.full((len(plans), len(self.objectives)), np.nan),
            )
        )
        return Candidates(plans, payoffs)

    def members(self, size: int) -> list[int]:
        """The portfolio of this size that serves the suite's people best on average.

        Raises:
            InvalidInputError: there are fewer policies.
        """
        members, _ = chosen_members(self.losses(), size=size, cost=Cost(aim="mean"))
        return members

    def losses(self) -> Float[ndarray, "people policies"]:
        """What each person loses with each candidate, as development prompts say."""
        values = self.candidates.payoffs.table.values
        worth = np.stack([self.shares(person) for person in self.people]) @ values.T
        return worth.max(axis=1, keepdims=True) - worth

    @cached_property
    def fingerprint(self) -> str:
        """Of everything on disk that answers depend on."""
        folders = [self._folders.library, self._folders.bespoke]
        parts = [Library.open(f).manifest.to_json() for f in folders if f is not None]
        for part in parts:
            part.pop("versions", None)
        return hash_value(parts)[:12]

    def base_log_probs(
        self, prompts: Sequence[str], tokens: Sequence[Sequence[int]]
    ) -> list[float]:
        """Natural logarithm of the probability of each answer under the base, without a wish."""
        base, bank = self.opened.base, self.opened.bank
        plan = reference_plan(n_experts=bank.n_experts)
        items = [
            Scored(tuple(encode_prompt(base, self.text(prompt))), tuple(answer))
            for prompt, answer in zip(prompts, tokens, strict=True)
        ]
        found = answer_log_probs(base, bank, plans=[plan] * len(items), items=items, max_rows=128)
        return [float(one.sum()) for one in found]


def suite_prompts(suite: Suite) -> tuple[str, ...]:
    """What a suite asks.

    Raises:
        InvalidInputError: the file is missing or holds no prompts.
    """
    return _prompts(suite.prompts, held_out_prompts(), n=suite.n_prompts)


def _prompts(source: str, world: Sequence[str], *, n: int) -> tuple[str, ...]:
    found = tuple(world) if source == WORLD else read_prompts(Path(source))
    return found[: n or None]
