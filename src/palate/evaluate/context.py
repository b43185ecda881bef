"""One seed's parts, opened once: the library, its users and prompts, and the entrants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from palate.build.run_file import read_prompts
from palate.core.decision import Known, Method
from palate.core.plan import reference_plan
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Preference
from palate.engine.logprobs import Scored, answer_log_probs
from palate.evaluate.entrants import Entrant, Sources, make_entrant
from palate.evaluate.learned_users import Comparisons
from palate.evaluate.suite import WORLD, Suite, UserSettings
from research.world.board import Libraries, world_users
from palate.library.library import Library
from palate.models.chat import encode_prompt
from research.world.prompts import held_out_prompts

MAX_ROWS = 128  # that are read at a time


@dataclass(frozen=True)
class Task:
    """What is answered.

    Attributes:
        users: Who is answered.
        prompts: What is asked.
        seed: Of draws.
        judge: What rows call the judge.
        max_tokens: Longest answer.
        n_per_prompt: Answers to each prompt.
        is_world: Whether gold rules are the users' true utility.
    """

    users: tuple[UserSettings, ...]
    prompts: tuple[str, ...]
    seed: int
    judge: str
    max_tokens: int = 80
    n_per_prompt: int = 1
    is_world: bool = False


@dataclass(eq=False)
class Context:
    """One seed's parts.

    Attributes:
        task: What is answered.
        library: The library of experts.
        folders: Of what rivals need.
        own: Method objects of the caller, by name.
    """

    task: Task
    library: Library
    folders: Libraries
    own: Mapping[str, Method] = field(default_factory=dict[str, Method])
    _entrants: dict[str, Entrant] = field(default_factory=dict[str, Entrant])
    _comparisons: Comparisons | None = None

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
            sources = Sources(
                library=self.library,
                users=self.task.users,
                belief=self._believed,
                own=self.own,
                bespoke=self.folders.bespoke,
                conditioned=self.folders.conditioned,
            )
            self._entrants[name] = make_entrant(name, sources)
        return self._entrants[name]

    def shares(self, user: UserSettings) -> Float[ndarray, " objectives"]:
        """The user's preference.

        Raises:
            InvalidPreferenceError: it is off the simplex or names an unknown objective.
        """
        return Preference.from_mapping(user.preference, objectives=self.objectives).vector()

    def draw_seed(self, user: str, prompt: str, copy: int) -> int:
        """Of one answer's draw; the same for every entrant, and of each user's own.

        Draws that all users shared would be as few as the prompts, however many users there are.
        """
        return derive_seed(self.task.seed, "evaluate", user, prompt, copy)

    def base_log_probs(
        self, prompts: Sequence[str], tokens: Sequence[Sequence[int]]
    ) -> list[float]:
        """Natural logarithm of the probability of each answer under the base, unprompted."""
        base, bank = self.library.base, self.library.bank
        plan = reference_plan(n_experts=bank.n_experts)
        items = [
            Scored(tuple(encode_prompt(base, self.library.format(prompt))), tuple(answer))
            for prompt, answer in zip(prompts, tokens, strict=True)
        ]
        found = answer_log_probs(
            base, bank, plans=[plan] * len(items), items=items, max_num_seqs=MAX_ROWS
        )
        return [float(one.sum()) for one in found]

    def _believed(self, user: UserSettings, n_comparisons: int) -> Known:
        if self._comparisons is None:
            self._comparisons = Comparisons(self.library, self.task.seed, self.task.is_world)
        return Known(belief=self._comparisons.belief(user, n_comparisons=n_comparisons))


def open_context(suite: Suite, folders: Libraries, *, seed: int) -> Context:
    """The parts of one seed of a suite.

    Raises:
        InvalidInputError: there is no library, or the prompts cannot be read.
        FormatError: the library was changed.
    """
    task = Task(
        users=suite_users(suite),
        prompts=suite_prompts(suite),
        seed=seed,
        judge=suite.judge.label,
        max_tokens=suite.max_tokens,
        n_per_prompt=suite.n_per_prompt,
        is_world=suite.library == WORLD,
    )
    return Context(task, Library.load(folders.library), folders)


def suite_users(suite: Suite) -> tuple[UserSettings, ...]:
    """Who a suite answers."""
    return suite.users or world_users()


def suite_prompts(suite: Suite) -> tuple[str, ...]:
    """What a suite asks.

    Raises:
        InvalidInputError: the file is missing or holds no prompts.
    """
    is_world = suite.prompts == WORLD
    found = held_out_prompts() if is_world else read_prompts(Path(suite.prompts))
    return tuple(found)[: suite.n_prompts or None]
