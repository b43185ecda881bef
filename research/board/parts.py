"""The parts of one library that methods need, opened or made when first used."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from palate import Library, UserStore, open_store
from palate.core.files import append_jsonl, read_jsonl
from research.board.comparisons import (
    Comparison,
    compare_all,
    learn_users,
    shown_answers,
    standardised_rewards,
)
from research.board.judges import Judges, judges_of
from research.board.library import BoardLibrary
from research.board.loras import (
    CONDITIONED,
    EVERYBODY,
    Adapters,
    build_adapters,
    conditioned_pairs,
    own_pairs,
)
from research.board.prompts import (
    Case,
    Prompt,
    cases_of,
    conversation,
    earlier_answers,
    earlier_prompts,
    load_prompts,
)
from research.board.settings import BoardSettings
from research.board.users import BoardUser, load_users
from research.soup.rivals import personalised_library


class Parts:
    """One library, its users, and what is made for them, in a folder."""

    def __init__(self, settings: BoardSettings, out: Path, number: int) -> None:
        """Nothing is opened yet; `number` is the place in the settings' libraries."""
        self.settings = settings
        self.number = number
        self.folder = out / f"library-{number}"
        self._opened: dict[str, Library] = {}

    @cached_property
    def library(self) -> BoardLibrary:
        """The library of experts."""
        settings = self.settings
        library = BoardLibrary.load(
            settings.libraries[self.number], dtype=settings.dtype, device=settings.device
        )
        return cast(BoardLibrary, library)

    @cached_property
    def users(self) -> tuple[BoardUser, ...]:
        """Who is answered."""
        path = None if self.settings.users is None else Path(self.settings.users)
        names = self.library.manifest.objective_names
        return load_users(path, objectives=names, n=self.settings.n_users)

    def user(self, name: str) -> BoardUser:
        """The user of this name."""
        return next(user for user in self.users if user.name == name)

    @cached_property
    def judges(self) -> Judges:
        """Who judges."""
        return judges_of(self.library)

    @cached_property
    def prompts(self) -> tuple[list[Prompt], list[Prompt]]:
        """The prompts that are judged, and the others."""
        return load_prompts(self.settings)

    def cases(self, method: str) -> list[Case]:
        """What a method is asked."""
        with_turns = method in self.settings.turn_methods
        return cases_of(self.settings, self.prompts[0], with_turns=with_turns)

    @cached_property
    def _earlier(self) -> dict[str, str]:
        wanted = [
            prompt
            for case in cases_of(self.settings, self.prompts[0], with_turns=True)
            for prompt in earlier_prompts(case, *self.prompts)
        ]
        path = self.folder / "earlier.jsonl"
        return earlier_answers(self.library, wanted, path=path, settings=self.settings)

    def messages(self, case: Case) -> list[dict[str, str]]:
        """The case as the base reads it, earlier turns included."""
        earlier = earlier_prompts(case, *self.prompts)
        return conversation(case, earlier, self._earlier if earlier else {})

    @cached_property
    def verdicts(self) -> dict[str, list[Comparison]]:
        """Every user's comparisons, in order."""
        shown = shown_answers(self.library, self.settings, path=self.folder / "shown.jsonl")
        return compare_all(
            self.users,
            shown,
            standardised_rewards(self.library, shown),
            objectives=self.library.manifest.objective_names,
            n=self.settings.most_comparisons,
        )

    @cached_property
    def store(self) -> UserStore:
        """The store of users who are known by comparisons alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return open_store(f"sqlite:///{self.folder / 'users.db'}", self.library)

    def learn(self, counts: Sequence[int], *, wording: str = "") -> None:
        """Record the users' comparisons in the store; features of answers are kept in a file.

        With a wording the store reads the user's words first.
        """
        path = self.folder / "features.jsonl"
        known = self.library.remembered
        for row in read_jsonl(path, what="features") if path.is_file() else []:
            known[tuple(row["tokens"])] = row["features"]
        before = set(known)
        words = {user.name: user.wordings[wording] for user in self.users} if wording else None
        learn_users(self.store, self.library, self.verdicts, counts=counts, words=words)
        fresh = [
            {"tokens": list(key), "features": value}
            for key, value in known.items()
            if key not in before
        ]
        append_jsonl(path, fresh)

    def own_adapters(self, n_comparisons: int) -> Adapters:
        """An adapter for each of the first users, on so many comparisons of theirs."""
        users = self.users[: self.settings.n_lora_users]
        pairs = {user.name: own_pairs(self.verdicts[user.name][:n_comparisons]) for user in users}
        return self._built(f"own-{n_comparisons}", pairs)

    def shared_adapter(self, name: str) -> Adapters:
        """The adapter on everybody's comparisons, plain or conditioned on the preference."""
        if name == CONDITIONED:
            rows = conditioned_pairs(self.users, self.verdicts, self.library)
        else:
            rows = [row for user in self.users for row in own_pairs(self.verdicts[user.name])]
        return self._built(name, {name: rows})

    def adapters(self, name: str) -> Adapters:
        """The build of this name: `own-N`, `everybody` or `conditioned`; made if missing."""
        if name in (EVERYBODY, CONDITIONED):
            return self.shared_adapter(name)
        return self.own_adapters(int(name.removeprefix("own-")))

    def adapter_library(self, name: str) -> Library:
        """The build of this name, opened once."""
        if name not in self._opened:
            self._opened.clear()  # one at a time: each has a base of its own in memory
            self._opened[name] = self.adapters(name).open(self.settings)
        return self._opened[name]

    def _built(self, name: str, pairs: Mapping[str, Sequence[Mapping[str, str]]]) -> Adapters:
        return build_adapters(
            self.folder / "adapters" / name,
            pairs,
            base=self.library.manifest.base.path,
            settings=self.settings,
            seed=self.number,
        )

    def personalised(self, user: BoardUser) -> Library:
        """The library of one adapter, the mean of the wanted experts' factors."""
        of_user: Any = user  # only its preference is read
        return personalised_library(self.library, [of_user])
