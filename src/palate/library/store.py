"""Users of a library in a database: preferences, instructions, feedback and beliefs.

`palate serve` uses the same database and learner: feedback given here counts there, and vice versa.
"""

from collections.abc import Mapping
from typing import Any, Self

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.simplex import vector_from_mapping
from palate.core.types import Feedback
from palate.library.generate import Output
from palate.library.library import Library
from palate.library.manifest import Manifest
from palate.library.words import Reading, read_words, require_words, words_learner
from palate.models.chat import encode_prompt
from palate.store.database import Database, open_database
from palate.store.erase import Receipt, erase_user
from palate.store.export import export_user
from palate.store.places import places_of
from palate.store.store import SqlProfileStore
from palate.store.users import add_user, change_user

TENANT = "default"  # the server's, where no keys are needed
APPLY_AFTER = 3  # items of feedback from which on a belief is used


class UserStore:
    """A library's users.

    Give it to `Library.generate(..., user=NAME, store=store)` and `Library.serve(store=store)`.
    """

    def __init__(self, url: str, library: Library, database: Database) -> None:
        """Join the parts; `open_store` is how to get them."""
        self.url = url  # of the database
        self._library = library
        self._database = database
        places = library_places(database, library.manifest)
        learner = library.soups.learner()
        self._store = SqlProfileStore(
            database, learner, TENANT, places, words_learner(library, learner)
        )

    def known(self, user: str) -> Known:
        """All that is known of a user; nothing of an unknown one.

        A belief goes before a stated preference once it rests on three items of feedback.
        """
        return self._store.known(user, apply_after=APPLY_AFTER)[0]

    def users(self) -> list[str]:
        """Names of all users, in the order of their arrival."""
        return self._store.users()

    def export(self, user: str) -> dict[str, Any]:
        """All that the database holds of a user, as plain data; InvalidInputError where unknown."""
        return export_user(self._database, tenant=TENANT, user=user)

    def describe(self, user: str, text: str) -> Reading | None:
        """Store how a user wants answers in the user's own words; an empty text removes them.

        What they ask for is the belief that feedback starts from, and is returned; it is `None`
        where no objective of the library has an opposite to read them by. Methods with system
        prompts (`prompt`, `prompted-soup`, `best-of-n`) use the text as it is.

        Raises:
            InvalidInputError: the user's name is empty, the text is longer than 2,000 characters,
                or the sentence embedder is not installed. Nothing is stored then.
        """
        words, reading = text.strip() or None, None
        if words:
            require_words(words)
            can_read = any(one.opposite for one in self._library.manifest.objectives)
            reading = read_words(self._library, words) if can_read else None
        add_user(self._database, tenant=TENANT, name=user)
        change_user(self._database, tenant=TENANT, name=user, instruction=words)
        return reading

    def set_preference(self, user: str, preference: Mapping[str, float] | None) -> None:
        """Store a user's preference, shares by objective; `None` removes it.

        Raises:
            InvalidInputError: the user's name is empty.
            InvalidPreferenceError: the preference is off the simplex or names an unknown objective.
        """
        if preference is not None:
            vector_from_mapping(preference, objectives=self._library.manifest.objective_names)
        add_user(self._database, tenant=TENANT, name=user)
        change_user(self._database, tenant=TENANT, name=user, preference=preference)

    def record(self, user: str, *, chosen: Output, rejected: Output, key: str = "") -> bool:
        """Store that a user prefers one answer to another, and learn from it.

        A new user is added. Returns False when the key, if any, was stored already: the same key
        twice is the same feedback.

        Raises:
            InvalidInputError: the answers are equal or to two prompts, or the key was used already.
        """
        if self._prompt(chosen) != self._prompt(rejected):
            raise InvalidInputError(
                "The two answers are to different prompts, so preferring one says nothing of the "
                "user; compare two answers to one prompt."
            )
        if chosen.text == rejected.text:
            raise InvalidInputError(
                f"The two answers are equal ({chosen.text[:40]!r}); compare two different ones."
            )
        first, second = self._features(chosen, rejected)
        difference = tuple(a - b for a, b in zip(first, second, strict=True))
        return self._store.append(Feedback(user, "comparison", difference, 1.0, key=key))

    def rate(self, user: str, output: Output, rating: float, *, key: str = "") -> bool:
        """Store a user's rating of an answer, and learn from it.

        Only differences between ratings of answers to one prompt count, so the first teaches
        nothing by itself. Higher is better; new user, key and result as in `record`.

        Raises:
            InvalidInputError: the rating is not finite, or the key was used for other feedback.
        """
        (features,) = self._features(output)
        group = self._prompt(output)
        rated = Feedback(user, "rating", tuple(features), float(rating), group=group, key=key)
        return self._store.append(rated)

    def withdraw(self, user: str, key: str) -> bool:
        """Learn as if one item of feedback had never been; False where it was withdrawn before.

        Raises:
            InvalidInputError: the user has no feedback with this key.
        """
        return self._store.withdraw(user, key)

    def erase(self, user: str) -> Receipt:
        """Erase everything about a user; the receipt does not name the user.

        Raises:
            InvalidInputError: the user's name is empty.
        """
        return erase_user(self._database, tenant=TENANT, user=user)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _prompt(self, output: Output) -> str:
        """The user's own conversation, formatted."""
        return self._library.format(output.prompt)

    def _features(self, *outputs: Output) -> list[list[float]]:
        """`[outputs][experts]`, reward units, of answers to one prompt."""
        library = self._library
        context = encode_prompt(library.base, self._prompt(outputs[0]))
        return library.features(context, [output.completion.tokens for output in outputs])


def open_store(url: str, library: Library) -> UserStore:
    """The users in a database; a new one belongs to the library from then on.

    The URL is `sqlite:///FILE`, a path, or `postgresql://...`.

    Raises:
        InvalidInputError: the URL is of another kind, its folder does not exist, or the library has
            no experts.
        ProviderError: the database cannot be reached.
        FormatError: the database belongs to another library, or has another schema.
    """
    library.require_experts()
    database = open_database(url)
    try:
        return UserStore(url, library, database)
    except BaseException:
        database.close()
        raise


def library_identity(manifest: Manifest) -> str:
    """Hash of the base and the experts: what a database of users belongs to."""
    return hash_value([manifest.base.fingerprint, _experts(manifest)])


def library_places(
    database: Database, manifest: Manifest, *, is_renewed: bool = False
) -> tuple[int, ...]:
    """Where the experts' features are in the database's vectors; see `palate.store.places`.

    Raises:
        FormatError: the database belongs to another library.
    """
    return places_of(
        database,
        library=library_identity(manifest),
        base=manifest.base.fingerprint,
        experts=_experts(manifest),
        is_renewed=is_renewed,
    )


def _experts(manifest: Manifest) -> list[list[str]]:
    return [[record.anchor.name, record.key] for record in manifest.experts]
