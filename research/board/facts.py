"""What is measured of an entrant besides its answers: what it costs, and what it forgets."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from palate.core.files import read_jsonl
from research.board.comparisons import learned_name, output_of, record_all
from research.board.entrant import Entrant, Posed
from research.board.loras import CONDITIONED, EVERYBODY
from research.board.parts import Parts
from research.board.rows import Fact
from research.board.settings import FOLDER

NEUTRAL = FOLDER / "neutral.jsonl"
Has = Callable[[tuple[str | int, ...]], bool]


def cost_facts(parts: Parts, entrant: Entrant, users: Sequence[str], *, has: Has) -> list[Fact]:
    """Bytes kept per user, and seconds from a verdict to the next decision; mean over users.

    A method that learns nothing from a verdict has zero seconds.
    """
    name, number = entrant.name, parts.number
    if has(("bytes_per_user", name, number, "")):
        return []
    posed = [entrant.pose(parts, parts.user(user)) for user in users]
    stored = float(np.mean([one.n_bytes for one in posed])) if posed else 0.0
    facts = [Fact("bytes_per_user", name, number, "", stored, "B")]
    facts.append(Fact("verdict_seconds", name, number, "", _verdict(parts, entrant, users), "s"))
    return facts


def _verdict(parts: Parts, entrant: Entrant, users: Sequence[str]) -> float:
    """Wall clock from one more verdict to the decision that follows from it."""
    if entrant.adapters:
        is_shared = entrant.adapters in (EVERYBODY, CONDITIONED)
        return 0.0 if is_shared else parts.adapters(entrant.adapters).seconds_each
    if not entrant.is_learned:
        return 0.0
    user = users[0]
    last = parts.verdicts[user][-1]
    known_as = learned_name(f"timed-{entrant.name}-{user}", entrant.n_comparisons)
    if entrant.wording:
        parts.store.describe(known_as, parts.user(user).wordings[entrant.wording])
    chosen, rejected = (output_of(parts.library, one) for one in (last.chosen, last.rejected))
    before = parts.verdicts[user][: entrant.n_comparisons - 1]
    record_all(parts.store, parts.library, before, name=known_as)
    parts.library.forget(last.chosen.tokens, last.rejected.tokens)  # a server would not know them
    start = perf_counter()
    parts.store.record(known_as, chosen=chosen, rejected=rejected)
    known = parts.store.known(known_as)
    if known.belief is not None:
        parts.library.decide("Why?", known, method=entrant.method)
    seconds = perf_counter() - start
    parts.store.erase(known_as)
    return seconds


def capability_facts(
    parts: Parts, entrant: Entrant, users: Sequence[str], *, has: Has
) -> list[Fact]:
    """Nats per token of neutral texts under each user's policy, prompts of the method included.

    Best of n has no tractable probability, and candidates are drawn from a policy that has a line
    of its own; such entrants have no fact.
    """
    rows = read_jsonl(NEUTRAL, what="neutral texts")
    facts: list[Fact] = []
    for user in users:
        key = ("neutral_nats", entrant.name, parts.number, user)
        if has(key):
            continue
        posed = entrant.pose(parts, parts.user(user))
        if posed.n_candidates is None:
            value = _nats(posed, rows)
            facts.append(Fact("neutral_nats", entrant.name, parts.number, user, value, "nat/token"))
    return facts


def _nats(posed: Posed, rows: Sequence[dict[str, Any]]) -> float:
    total, n_tokens = 0.0, 0
    for row in rows:
        score = posed.library.score(row["prompt"], row["text"], method=posed.method, **posed.known)
        total -= score.log_prob
        n_tokens += len(score.tokens)
    return round(total / n_tokens, 6)
