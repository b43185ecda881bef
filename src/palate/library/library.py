"""A library, opened: the one place where what is known of a user becomes a decision.

Every door (Python, command line, HTTP, evaluation) calls `Library.decide`; an engine executes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Unpack

from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import AUTO, Decision, Known, Messages, Method, require_messages
from palate.core.errors import InvalidInputError
from palate.core.protocols import SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.engine.local import LocalEngine
from palate.engine.protocol import Engine
from palate.library.controller import LibraryController, open_controller
from palate.library.features import features_of
from palate.library.folder import LibraryFolder
from palate.library.generate import Output, Score, conversations, execute_all, score_all
from palate.library.hub import push_library
from palate.library.knowledge import (
    KnownFields,
    coefficients_of,
    instruction_of,
    known_from,
    part_key,
    predicted,
    preference_of,
    ranked,
    require_candidates,
    require_known,
    settled,
)
from palate.library.manifest import Manifest
from palate.library.merge import Merged, merge_soup
from palate.library.method_table import MethodTable, load_method_table, table_key
from palate.library.opening import ServeOptions, base_record, open_parts
from palate.library.portfolio import LibraryPortfolio, open_portfolio
from palate.library.rewards import library_rewards
from palate.library.safety_floor import Floor, floored
from palate.library.shipped import library_folder
from palate.library.soup import SOUP, Soups, library_states, open_basis, plain_basis, states_again
from palate.library.words import Reading, read_words, with_words
from palate.mixture.rollout import CONTROLLER
from palate.models.chat import format_messages
from palate.models.load import Base
from palate.rewards.functions import RewardFunction
from palate.rewards.reward import RewardVector
from palate.soup.basis_file import SoupBasis
from palate.soup.states import States

DEFAULT_STRENGTH = 1.0  # as trained, where a library has not measured its own
ROWS = 128  # that one step of the own engine computes


class Library:
    """Experts on one base, with everything that methods decide from.

    To `methods`, by name, add an object of your own to serve and evaluate it under its name.
    """

    def __init__(
        self,
        files: LibraryFolder,
        base: Base,
        bank: AdapterBank,
        *,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        """Join the parts; `Library.load` is how to get them."""
        from palate.methods.table import METHODS

        self.files = files
        self.base = base
        self.bank = bank  # in the manifest's order
        self.methods: dict[str, Method] = dict(METHODS if methods is None else methods)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        base: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        reward_funcs: Mapping[str, RewardFunction] | None = None,
        revision: str | None = None,
    ) -> "Library":
        """The library in a folder, ready to answer; a bare base model is a library of no experts.

        Args:
            folder: Made by `palate build`, the name of a shipped library (`smollm2-135m`), the hub
                id of a library, or the folder, GGUF file or hub id of a base model.
            base: Where the base is now, if not where the library says.
            device: As torch names devices.
            dtype: Data type of the base's parameters.
            reward_funcs: By objective, Python functions that cannot be imported again.
            revision: On the hub: branch, tag or commit.

        Raises:
            InvalidInputError: there is no library, or its base cannot be found.
            FormatError: the base is not the library's, or a part was changed.
        """
        parts = open_parts(
            library_folder(folder),
            base=base,
            device=device,
            dtype=dtype,
            reward_funcs=reward_funcs,
            revision=revision,
        )
        return cls(*parts)

    def reloaded(self) -> "Library":
        """The library as its folder is now, on the same base and with the same methods.

        Raises:
            FormatError: it belongs to another base now, or a part is damaged.
        """
        files = replace(self.files, manifest=LibraryFolder.open(self.files.folder).manifest)
        files.require_base(base_record(self.base.path, self.base))
        bank = AdapterBank.load(self.base, files.expert_folders())
        library = Library(files, self.base, bank, methods=self.methods)
        if "states" in vars(self):  # measured already
            library.states = states_again(self.states, self.files, files, self.base)
        return library

    def describe(self, text: str) -> Reading:
        """What a text in a user's own words asks for; `UserStore.describe` keeps it.

        Raises:
            InvalidInputError: the text is empty or longer than 2,000 characters, no objective has
                an opposite, or the sentence embedder is not installed.
        """
        return read_words(self, text)

    def decide(
        self,
        messages: Messages,
        known: Known | None = None,
        *,
        method: str | Method = AUTO,
        n_candidates: int | None = None,
    ) -> Decision:
        """The decision for a prompt or a conversation: the method's, then the safety floor, always.

        Args:
            messages: A text, or messages `{"role", "content"}`.
            known: All that is known of the user; nothing by default.
            method: A name in `methods`, or an object of your own.
            n_candidates: Best of n: sample so many answers and return the one that the user's
                reward prefers; `None` leaves it to the method.

        Raises:
            InvalidInputError: the method is unknown, the library lacks a part that it needs, too
                little is known, or a number is out of range.
            InvalidPreferenceError: the preference is off the simplex or names an unknown objective.
            InvalidCoefficientsError: coefficients name an unknown expert or do not fit the method.
        """
        known = settled(known)
        require_known(self, known)
        require_candidates(n_candidates)
        require_messages(messages)
        if isinstance(method, str):
            method = self.method_named(method)
        known = with_words(self, known) if method.name == AUTO else known
        decision = method.decide(self, messages, known)
        n = decision.n_candidates if n_candidates is None else n_candidates
        decision = ranked(self, replace(decision, n_candidates=n, prompt=messages), known)
        if method.name != AUTO or n_candidates is not None:
            decision = predicted(self, decision, known)
        return floored(decision, self.floor)

    def method_named(self, name: str) -> Method:
        """The method of that name; InvalidInputError where there is none."""
        if name in self.methods:
            return self.methods[name]
        raise InvalidInputError(f"The method {name!r} is unknown; use {', '.join(self.methods)}.")

    def format(self, messages: Messages) -> str:
        """The conversation with the base's chat template applied.

        Raises:
            InvalidInputError: there are no messages, or one has an unknown role or no text.
        """
        return format_messages(self.base, messages)

    def generate(
        self,
        prompts: Messages | Sequence[Messages],
        *,
        method: str | Method = AUTO,
        n_candidates: int | None = None,
        sampling: SamplingParams | None = None,
        seed: int = 0,
        engine: Engine | None = None,
        **known: Unpack[KnownFields],
    ) -> Output | list[Output]:
        """An answer to a prompt or conversation, or a list of answers to several, in order.

        Args:
            prompts: A text; a conversation, a list of `{"role", "content"}`; or a list of these.
            method: A name in `methods`, or an object of your own.
            n_candidates: As in `decide`.
            sampling: How tokens are sampled; by default as `sampling` of the library.
            seed: The same seed gives the same answer, alone or in a batch.
            engine: Executes the plans, such as one of `palate.library.engines.open_engine`; this
                process by default.
            **known: The fields of `Known`; `user` and `store` for what a store knows of a user.

        Raises:
            InvalidInputError: see `decide`; or a prompt is longer than the base's context length.
        """
        listed, is_one = conversations(prompts)
        user = known_from(known)
        decisions = [
            self.decide(one, user, method=method, n_candidates=n_candidates) for one in listed
        ]
        seeds = [seed] * len(decisions)
        outputs = self.execute(decisions, seeds=seeds, sampling=sampling, engine=engine)
        return outputs[0] if is_one else outputs

    def score(
        self,
        prompt: Messages,
        completion: str,
        *,
        method: str | Method = AUTO,
        is_ended: bool = True,
        **known: Unpack[KnownFields],
    ) -> Score:
        """Log-probabilities of a given answer under the plan that a method decides on.

        The prompt is a text or a conversation, `known` as in `generate`, the method a name in
        `methods` or an object of your own. `is_ended` counts the end token as part of the answer.

        Raises:
            InvalidInputError: see `decide`.
        """
        decision = self.decide(prompt, known_from(known), method=method)
        return score_all(self, [decision], [completion], is_ended=is_ended)[0]

    def export_adapter(
        self, preference: Mapping[str, float], out: str | Path, *, rank: int | None = None
    ) -> Merged:
        """One PEFT adapter for a preference, shares by objective, for peft, vLLM and LoRAX.

        `out` is a new folder; `rank` the largest rank of the result, where `None` is exact.

        Raises:
            InvalidInputError: `out` exists, or the preference is off the simplex.
        """
        decision = self.decide("", Known(preference=preference), method="soup")
        return merge_soup(self.files.folder, decision.coefficients, out=Path(out), rank=rank)

    def push_to_hub(
        self, repository: str, *, licence: str, data: str = "", is_private: bool = True
    ) -> str:
        """Put the library on the hub with a model card; returns the address of the commit.

        `repository` is `owner/name`; `data` says whose the data are, and under which licences.

        Raises:
            InvalidInputError: the licence is empty.
            ProviderError: the hub refused it, or cannot be reached.
        """
        return push_library(
            self.files, repository, licence=licence, data=data, is_private=is_private
        )

    def serve(self, **options: Unpack[ServeOptions]) -> None:
        """Serve the library to OpenAI's clients until a signal ends it.

        The options are `store`, `host`, `port`, `engine` and `settings`; see `ServeOptions`.

        Raises:
            InvalidInputError: the address is public and there are no keys.
            MissingExtraError: the server's packages are not installed.
        """
        from palate.serve.assemble import serve_opened

        serve_opened(self, options)

    execute = execute_all
    preference = preference_of
    coefficients = coefficients_of
    instruction = instruction_of

    def require_experts(self) -> tuple[str, ...]:
        """Names of the experts; InvalidInputError where there are none."""
        if not self.manifest.experts:
            raise InvalidInputError(
                f"The library {self.files.folder.name!r} has no experts; build some, or use the "
                "method 'base' or 'prompt'."
            )
        return self.manifest.expert_names

    def features(
        self, context: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """`[answers][experts]`, `beta * (log p_k - log p_0)` of answers to a prompt's tokens."""
        beta = self.manifest.beta
        return features_of(self.base, self.bank, beta=beta, context=context, answers=answers)

    @property
    def manifest(self) -> Manifest:
        """The content of `library.json`."""
        return self.files.manifest

    @cached_property
    def anchors(self) -> Float[ndarray, "experts objectives"]:
        """`[experts, objectives]`: the preferences that the experts were trained for."""
        return self.manifest.anchors()

    @cached_property
    def engine(self) -> LocalEngine:
        """Executes plans in this process."""
        return LocalEngine(self.base, self.bank, max_num_seqs=ROWS, controllers=self.controllers)

    @cached_property
    def portfolio(self) -> LibraryPortfolio | None:
        """The certified members, if any; FormatError where of other experts or objectives."""
        return open_portfolio(self.files)

    @cached_property
    def controller(self) -> LibraryController | None:
        """The controller of the mixture; `None` where there is none of these experts."""
        return open_controller(self.files, self.base, floor=self.floor)

    @property
    def controllers(self) -> dict[str, Controller]:
        """The controller for engines, by its name in plans."""
        return {} if self.controller is None else {CONTROLLER: self.controller.decoding}

    @cached_property
    def _soup_file(self) -> SoupBasis | None:
        has_file = self.manifest.experts and (self.files.folder / SOUP).is_file()
        return open_basis(self.files) if has_file else None

    @cached_property
    def basis(self) -> SoupBasis:
        """`soup.json`, or a plain prior and the same trust region where there is none."""
        self.require_experts()
        return self._soup_file or plain_basis(self.manifest, self.states)

    @cached_property
    def states(self) -> States:
        """States along the base's own answers, on which the trust region is measured."""
        return library_states(self.files, self.base, self.bank)

    @cached_property
    def soups(self) -> Soups:
        """Turns beliefs into coefficients."""
        floor = None if self.floor is None else (self.floor.expert, self.floor.coefficient)
        return Soups(self.basis, lambda: self.states, floor)

    @cached_property
    def floor(self) -> Floor | None:
        """The safety floor of `soup.json`, if it has one."""
        basis = self._soup_file
        if basis is None or basis.floor is None or basis.floor_place is None or basis.floor[1] <= 0:
            return None
        return Floor(basis.floor[0], basis.floor_place[0], basis.floor[1])

    @cached_property
    def strength(self) -> float:
        """Multiplies coefficients from a stated preference; measured when the library was built."""
        return (self._soup_file and self._soup_file.strength) or DEFAULT_STRENGTH

    @cached_property
    def sampling(self) -> SamplingParams:
        """How users are answered by default: at the temperature at which methods were measured."""
        measured = dict(self.manifest.config.get("calibration") or {})
        return SamplingParams(temperature=float(measured.get("temperature", 1.0)))

    @cached_property
    def rewards(self) -> RewardVector:
        """The rewards of training, which rank candidates; FormatError where one is missing."""
        return library_rewards(self.files)

    @cached_property
    def method_table(self) -> MethodTable | None:
        """The measured `methods.json`, if any; FormatError where of other experts or objectives."""
        key = table_key(self.manifest, self.strength, self.floor)
        return load_method_table(self.files, key=key, part_key=partial(part_key, self))
