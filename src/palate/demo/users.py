"""Eight users of the demo: preferences over whatever objectives a library has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

N_USERS = 8


@dataclass(frozen=True)
class DemoUser:
    """A user and what they want."""

    name: str
    preference: Mapping[str, float]  # shares by objective, sum one

    @property
    def wants(self) -> str:
        """The preference in a few words."""
        return ", ".join(f"{name} {share:.0%}" for name, share in self.preference.items())


NAMED = (
    DemoUser("a child", {"elementary": 0.7, "friendly": 0.3}),
    DemoUser("a specialist", {"expert": 0.7, "informative": 0.3}),
    DemoUser("someone in a hurry", {"concise": 1.0}),
    DemoUser("a student who wants everything", {"informative": 0.6, "elementary": 0.4}),
    DemoUser("a colleague in a meeting", {"expert": 0.5, "concise": 0.5}),
    DemoUser("a nervous beginner", {"friendly": 0.5, "elementary": 0.3, "concise": 0.2}),
    DemoUser("a fan of good manners", {"friendly": 0.6, "informative": 0.4}),
    DemoUser("someone tired of flattery", {"unfriendly": 0.6, "concise": 0.4}),
)


def demo_users(objectives: Sequence[str]) -> tuple[DemoUser, ...]:
    """At most eight users who want one to three of these objectives.

    Those of `NAMED` come first, as far as the library has what they want; then users who want one
    objective, two and three in equal shares.
    """
    users = {
        frozenset(user.preference): user for user in NAMED if set(user.preference) <= {*objectives}
    }
    for wanted in chain.from_iterable(combinations(objectives, n) for n in (1, 2, 3)):
        shares = dict.fromkeys(wanted, 1.0 / len(wanted))
        users.setdefault(frozenset(wanted), DemoUser(" and ".join(wanted), shares))
    return tuple(users.values())[:N_USERS]
