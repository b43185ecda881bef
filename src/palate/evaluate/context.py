"""One seed's parts, opened once: the library, who asks what, the judge, and the entrants.

An entrant is a method with what is varied about it. Every answer of every entrant comes from
`Library.decide` and `palate.library.generate.generate_all`, with the same seed for the same user,
prompt and copy.

Entrants METHOD@N know a user by N comparisons only: a belief as the server would learn it. A user
compares pairs of the base's answers to training prompts, taken from the library's rollouts. What
decides is the true utility, which the learner does not see: what a judge that is a function says,
or else the library's rewards. One answer in ten is a coin flip, the others follow Bradley-Terry at
a temperature of a tenth. The learner is the server's: it sees `beta * (log p_k - log p_0)` of the
first answer less the second's, for every expert.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from palate.build.run_file import read_prompts
from palate.core.decision import Decision, Known, Method
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.plan import Plan, reference_plan
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import vector_from_mapping
from palate.core.types import Belief, Feedback
from palate.engine.logprobs import Scored, answer_log_probs
from palate.evaluate.catalogue import parse_name
from palate.evaluate.judges import Candidate, SuiteJudge, judge_for
from palate.evaluate.rivals import RIVALS
from palate.evaluate.suite import Suite, UserSettings
from palate.library.features import scored_text
from palate.library.library import Library
from palate.methods.table import METHODS
from palate.models.chat import encode_prompt
from palate.preferences.simulated import SimulatedUser
from palate.rewards.texts import messages_of
from palate.training.rollouts import Rollout, read_rollouts

GAIN = 10.0  # one over the temperature of the user's choices, per unit of utility
LAPSE = 0.1


@dataclass(eq=False)
class Comparisons:
    """Simulated users of one library, and what is learned of them."""

    library: Library  # with rollouts
    seed: int  # of the pairs and of the users' noise
    truth: SuiteJudge | None = None  # decides; None: the library's rewards
    _features: dict[tuple[int, ...], list[float]] = field(
        default_factory=dict[tuple[int, ...], list[float]]
    )
    _beliefs: dict[tuple[str, int], Belief] = field(default_factory=dict[tuple[str, int], Belief])

    def belief(self, user: UserSettings, *, n_comparisons: int) -> Belief:
        """What is believed of the user after so many comparisons.

        More comparisons hold the first ones again, so a curve over their number is one user's.

        Raises:
            FormatError: the library has no rollouts.
            InvalidInputError: they hold no two different answers to one prompt.
        """
        key = (user.name, n_comparisons)
        if key not in self._beliefs:
            history = self.feedback(user, n_comparisons=n_comparisons)
            self._beliefs[key] = self.library.soups.learner().rebuild(history)
        return self._beliefs[key]

    def feedback(self, user: UserSettings, *, n_comparisons: int) -> list[Feedback]:
        """The user's comparisons, in order."""
        names = self.library.manifest.objective_names
        shares = vector_from_mapping(user.preference, objectives=names)
        chooser = SimulatedUser(shares, gain=GAIN, lapse_share=LAPSE)
        generator = generator_for(self.seed, "comparisons", user.name)
        history: list[Feedback] = []
        while len(history) < n_comparisons:
            first, second = self._pair(generator)
            label = chooser.compare(self._rewards(first, second), generator=generator)
            features = np.array(self._features_of(first)) - np.array(self._features_of(second))
            item = Feedback(user.name, "comparison", tuple(features.tolist()), label)
            history.append(item)
        return history

    def _pair(self, generator: np.random.Generator) -> tuple[Rollout, Rollout]:
        """Two different answers to one prompt."""
        prompts = list(self._by_prompt)
        while True:
            rows = self._by_prompt[prompts[int(generator.integers(len(prompts)))]]
            first, second = (
                rows[int(k)] for k in generator.choice(len(rows), size=2, replace=False)
            )
            if first.completion != second.completion:
                return first, second

    @cached_property
    def _by_prompt(self) -> dict[str, list[Rollout]]:
        """Rollouts by prompt, where at least two differ."""
        names = self.library.manifest.objective_names
        by_prompt: dict[str, list[Rollout]] = {}
        for row in read_rollouts(self.library.files.rollouts_path, objectives=names):
            by_prompt.setdefault(row.prompt, []).append(row)
        several = [p for p, rows in by_prompt.items() if len({row.completion for row in rows}) > 1]
        if not several:
            raise InvalidInputError(
                f"The rollouts of the library {str(self.library.files.folder)!r} hold no two "
                "different answers to one prompt, so nothing can be compared; leave out the "
                "methods METHOD@N."
            )
        return {prompt: by_prompt[prompt] for prompt in several}

    def _rewards(self, first: Rollout, second: Rollout) -> Float[np.ndarray, " objectives"]:
        """`[objectives]`: by how much the first is truly better."""
        if self.truth is None:
            return np.array(first.rewards) - np.array(second.rewards)
        judged = self.truth.judge([Candidate(r.prompt, r.completion, "") for r in (first, second)])
        return judged.rewards[0] - judged.rewards[1]

    def _features_of(self, row: Rollout) -> list[float]:
        """The answer's features, computed once."""
        library = self.library
        item = scored_text(library.base, messages_of(row.prompt), "")
        key = (*item.context, -1, *row.tokens)
        if key not in self._features:
            self._features[key] = library.features(item.context, [row.tokens])[0]
        return self._features[key]


FLOAT_BYTES = 4  # of a number that is stored for a user, as float32


@dataclass(frozen=True, eq=False)
class Entrant:
    """One method in the comparison."""

    name: str
    library: Library  # decides and answers
    method: str | Method  # a name in the library's methods, or an object
    n_candidates: int | None  # of best of n; None leaves it to the method
    known: Callable[[UserSettings], Known]  # of a user
    fingerprint: str  # of everything on disk that its answers depend on
    n_adapter_bytes: int = 0  # of parameters of a user's own

    def decide(self, user: UserSettings, prompt: str) -> Decision:
        """The decision for a user's prompt; raises as `Library.decide`."""
        messages, known = messages_of(prompt), self.known(user)
        return self.library.decide(
            messages, known, method=self.method, n_candidates=self.n_candidates
        )

    def n_bytes(self, user: UserSettings) -> int:
        """Bytes stored for a user: preference, words or belief, and adapters of their own."""
        known = self.known(user)
        numbers = len(known.preference or {})
        if known.belief is not None:
            n = len(known.belief.mean)
            numbers += n + n * (n + 1) // 2
        words = len((known.instruction or "").encode())
        return FLOAT_BYTES * numbers + words + self.n_adapter_bytes


def stated(user: UserSettings) -> Known:
    """A user who states a preference, and perhaps their own words."""
    return Known(preference=user.preference, instruction=user.instruction or None)


def require_methods(names: Sequence[str], own: Collection[str] = ()) -> None:
    """Raise `InvalidInputError` where a method is neither palate's, a rival, nor one's own."""
    known = [*METHODS, *RIVALS, *own]
    for name in names:
        method = parse_name(name).method
        if method not in known:
            raise InvalidInputError(
                f"The method {method!r} is unknown; use {', '.join(known)}, METHOD@N or "
                "METHOD+best-of-N."
            )


def fingerprint_of(library: Library) -> str:
    """Of everything in the library that answers depend on, given their plans."""
    facts = library.manifest.to_json()
    facts.pop("versions", None)
    floor = None if library.floor is None else [library.floor.name, library.floor.coefficient]
    return hash_value([facts, floor])[:12]


MAX_NUM_SEQS = 128  # answers that are scored at a time


@dataclass(frozen=True)
class Task:
    """Who is answered what, with which seed; `judge` is how rows name the judge."""

    users: tuple[UserSettings, ...]
    prompts: tuple[str, ...]
    seed: int
    judge: str
    max_tokens: int = 80
    n_per_prompt: int = 1


@dataclass(eq=False)
class Context:
    """One seed's parts."""

    task: Task
    library: Library  # of experts
    judge: SuiteJudge
    own: Mapping[str, Method] = field(default_factory=dict[str, Method])  # the caller's, by name
    libraries: Mapping[str, Library] = field(default_factory=dict[str, Library])  # own methods'
    per_user: Collection[str] = ()  # own methods whose library has an expert for every user
    truth: SuiteJudge | None = None  # decides simulated comparisons; None: the library's rewards
    neutral: tuple[tuple[str, str], ...] = ()  # prompts with texts that nobody prefers
    _entrants: dict[str, Entrant] = field(default_factory=dict[str, Entrant])

    @cached_property
    def _comparisons(self) -> Comparisons:
        """Simulated users, by whom beliefs are learned."""
        return Comparisons(self.library, self.task.seed, self.truth)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the library's order."""
        return self.library.manifest.objective_names

    @property
    def sampling(self) -> SamplingParams:
        """Temperature one: methods are compared as they are."""
        return SamplingParams(max_tokens=self.task.max_tokens)

    def entrant(self, name: str) -> Entrant:
        """The entrant of this name, made once.

        Raises:
            InvalidInputError: the method is unknown, or what it is made of is not there.
        """
        if name not in self._entrants:
            parts = parse_name(name)
            library, method = self._served(parts.method)
            n, n_bytes = parts.n_comparisons, 0
            known = stated if n is None else lambda user: self._believed(user, n)
            if parts.method in self.per_user:
                n_bytes = library.bank.n_bytes // library.bank.n_experts
            self._entrants[name] = Entrant(
                name, library, method, parts.n_candidates, known, fingerprint_of(library), n_bytes
            )
        return self._entrants[name]

    def shares(self, user: UserSettings) -> Float[np.ndarray, " objectives"]:
        """The user's preference.

        Raises:
            InvalidPreferenceError: it is off the simplex or names an unknown objective.
        """
        return vector_from_mapping(user.preference, objectives=self.objectives)

    def answer_seed(self, user: str, prompt: str, copy: int) -> int:
        """The same for every entrant, and each user's own.

        Seeds that all users shared would be as few as the prompts, however many users there are.
        """
        return derive_seed(self.task.seed, "evaluate", user, prompt, copy)

    def base_log_probs(
        self, prompts: Sequence[str], tokens: Sequence[Sequence[int]]
    ) -> list[float]:
        """Natural logarithm of the probability of each answer under the base, unprompted."""
        library = self.library
        read = [library.format(messages_of(prompt)) for prompt in prompts]
        items = [
            Scored(tuple(encode_prompt(library.base, text)), tuple(answer))
            for text, answer in zip(read, tokens, strict=True)
        ]
        return total_log_probs(library, reference_plan(n_experts=library.bank.n_experts), items)

    def _served(self, method: str) -> tuple[Library, str | Method]:
        library = self.library
        if method in self.own:
            return self.libraries.get(method, library), self.own[method]
        if method in RIVALS:
            return library, RIVALS[method]
        library.method_named(method)
        return library, method

    def _believed(self, user: UserSettings, n_comparisons: int) -> Known:
        return Known(belief=self._comparisons.belief(user, n_comparisons=n_comparisons))


def total_log_probs(library: Library, plan: Plan, items: Sequence[Scored]) -> list[float]:
    """Natural logarithm of the probability of each answer under the plan."""
    base, bank, plans = library.base, library.bank, [plan] * len(items)
    log_probs = answer_log_probs(base, bank, plans=plans, items=items, max_num_seqs=MAX_NUM_SEQS)
    return [float(one.sum()) for one in log_probs]


def suite_context(suite: Suite, library: Library | Path, seed: int) -> Context:
    """The parts of one seed of a suite.

    Raises:
        InvalidInputError: there is no library, or the prompts or the judge cannot be read.
        FormatError: the library was changed.
    """
    opened = Library.load(library) if isinstance(library, Path) else library
    judge = judge_for(suite.judge, opened)
    return Context(
        suite_task(suite, seed),
        opened,
        judge,
        truth=judge if suite.judge.kind == "function" else None,
    )


def suite_task(suite: Suite, seed: int, *, judge: str | None = None) -> Task:
    """Who is answered what with this seed of a suite; `judge` is how rows name another judge."""
    return Task(
        users=suite.users,
        prompts=suite_prompts(suite),
        seed=seed,
        judge=judge or suite.judge.label,
        max_tokens=suite.max_tokens,
        n_per_prompt=suite.n_per_prompt,
    )


def suite_prompts(suite: Suite) -> tuple[str, ...]:
    """What a suite asks; InvalidInputError where the file is missing or holds no prompts."""
    return read_prompts(suite.prompts)[: suite.n_prompts or None]
