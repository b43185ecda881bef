"""Groups of rows inside a vLLM: which requests are rows of one answer, and the token all take.

This file also runs in vLLM's own environment, so it needs torch and nothing else.

A row is one request to vLLM, with its own adapter and context; `vllm_xargs` name its group
(`GroupTag`). At every step in which all rows of a group are present, each with the same number of
tokens, their next-token distributions are pooled, one token is sampled from the pool, and every row
takes that token. At any other step the group is broken, for good: its rows take the group's abort
token, which is one of their stop tokens, so that all of them end at once and the client knows. A
row is never left to its own distribution: every row has a bias of `GUARD` on its abort token, which
this code takes back, so that on a server without it a row takes nothing else.

Pooling is that of `palate.engine.pool`, sampling that of `palate.engine.sample` without truncation
and repetition rules; the tests compare.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from palate.core.errors import InvalidInputError

PROTOCOL = "palate-groups-1"  # a probe is refused with this word; it proves the plugin is there
PROBE = {"palate_probe": PROTOCOL}
PREFIX = "palate_"
GUARD = 100.0  # the largest bias that the protocol allows
MAX_BROKEN = 10_000  # broken groups that are remembered

Kind = Literal["linear", "log_linear"]


@dataclass(frozen=True)
class GroupTag:
    """A row and its group."""

    group: str  # name, new for every answer
    row: int  # place of the row in the group
    shares: tuple[float, ...]  # `[rows]`, pool coefficients of all rows
    pool: Kind
    abort: int  # token id that ends the rows of a broken group
    temperature: float = 0.0  # 0 is greedy
    uniforms: tuple[float, ...] = ()  # in [0, 1), one for each token; greedy groups need none

    def __post_init__(self) -> None:
        """Refuse tags that make no group."""
        rules = {
            "palate_group must be a name": bool(self.group),
            "palate_row must be a place among palate_shares": 0 <= self.row < len(self.shares),
            "palate_pool must be linear or log_linear": self.pool in get_args(Kind),
            "palate_shares of a linear pool must not be negative": self.pool == "log_linear"
            or min(self.shares, default=0.0) >= 0,
            "palate_temperature must not be negative": self.temperature >= 0,
            "palate_uniforms must be given where tokens are sampled": bool(self.uniforms)
            or self.temperature == 0,
        }
        for sentence, holds in rules.items():
            if not holds:
                raise InvalidInputError(f"{sentence}.")

    def to_xargs(self) -> dict[str, Any]:
        """The tag as it is sent."""
        return {PREFIX + name: value for name, value in asdict(self).items() if value != ()}

    @classmethod
    def from_xargs(cls, xargs: Mapping[str, Any] | None) -> "GroupTag | None":
        """The tag that was sent; `None` for requests that are no rows of ours.

        Raises:
            InvalidInputError: something is missing or wrong, or it is a probe.
        """
        given = {name: value for name, value in (xargs or {}).items() if name.startswith(PREFIX)}
        if not given:
            return None
        if given == PROBE:
            raise InvalidInputError(f"{PROTOCOL} is here.")
        try:
            return cls(
                group=str(given["palate_group"]),
                row=int(given["palate_row"]),
                shares=tuple(float(share) for share in given["palate_shares"]),
                pool=given["palate_pool"],
                abort=int(given["palate_abort"]),
                temperature=float(given["palate_temperature"]),
                uniforms=tuple(float(u) for u in given.get("palate_uniforms", ())),
            )
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"A row of a group lacks or garbles {error}.") from error

    @property
    def common(self) -> tuple[Any, ...]:
        """The values that all rows of the group must share."""
        return (self.shares, self.pool, self.abort, self.temperature, self.uniforms)


@dataclass(frozen=True, eq=False)
class GroupRow:
    """A row of the running batch."""

    tag: GroupTag
    tokens: Sequence[int]  # tokens so far; the engine's own list, which grows


class GroupMixer:
    """Mixes whole groups and breaks split ones."""

    def __init__(self, *, refusal: str = "", warn: Callable[[str], None] = lambda _: None) -> None:
        """Start without rows; with a refusal no group can be mixed here, and all are broken."""
        self.rows: dict[int, GroupRow] = {}
        self.broken: OrderedDict[str, None] = OrderedDict()
        self._refusal = refusal
        self._warn = warn

    def apply(self, logits: Tensor) -> Tensor:
        """The batch's logits `[rows, vocab]`, changed in place, so that groups take one token."""
        groups: dict[str, list[int]] = {}
        for place, row in self.rows.items():
            groups.setdefault(row.tag.group, []).append(place)
        for name, places in groups.items():
            for place in places:
                logits[place, self.rows[place].tag.abort] -= GUARD
            token = self._token(name, places, logits)
            logits[places] = -torch.inf
            logits[places, token] = 0.0
        return logits

    def _token(self, name: str, places: list[int], logits: Tensor) -> int:
        """The token that the rows at these places take."""
        ordered = sorted(places, key=lambda place: self.rows[place].tag.row)
        rows = [self.rows[place] for place in ordered]
        reason = self._refusal or _split(rows)
        pooled = None
        if not reason and name not in self.broken:
            pooled = pool_rows(logits[ordered], rows[0].tag)
            if bool(torch.isnan(pooled).any() | torch.isposinf(pooled).any()):
                reason = "its pooled distribution is not finite"
        if reason and name not in self.broken:
            self.broken[name] = None
            self._warn(f"The group {name!r} is aborted: {reason}.")
            while len(self.broken) > MAX_BROKEN:
                self.broken.popitem(last=False)
        if pooled is None or name in self.broken:
            return rows[0].tag.abort
        return sample_token(pooled, rows[0].tag, place=len(rows[0].tokens))


def _split(rows: Sequence[GroupRow]) -> str:
    """Why these rows are not one whole group at one place; empty if they are."""
    tag, n_rows = rows[0].tag, len(rows[0].tag.shares)
    places = [row.tag.row for row in rows]
    if places != list(range(n_rows)):
        return f"of its {n_rows} rows only {places} are in this step"
    if len({row.tag.common for row in rows}) > 1:
        return "its rows disagree on how they are pooled"
    counts = [len(row.tokens) for row in rows]
    if len(set(counts)) > 1:
        return f"its rows have {counts} tokens"
    if tag.temperature > 0 and counts[0] >= len(tag.uniforms):
        return f"it has numbers for {len(tag.uniforms)} tokens only"
    return ""


def pool_rows(logits: Tensor, tag: GroupTag) -> Tensor:
    """`[vocab]`, pooled log-probabilities of the rows' logits `[rows, vocab]`."""
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    if len(tag.shares) == 1:
        return log_probs[0]
    shares = torch.tensor(tag.shares, device=logits.device).unsqueeze(1)
    if tag.pool == "linear":
        top = log_probs.amax(dim=0)
        return torch.log((torch.exp(log_probs - top) * shares).sum(dim=0)) + top
    return torch.log_softmax((log_probs * shares).sum(dim=0), dim=-1)


def sample_token(pooled: Tensor, tag: GroupTag, *, place: int) -> int:
    """The most probable token of `[vocab]`, or the one of the place's number by inversion."""
    scores = pooled.double()
    if tag.temperature == 0:
        return int(scores.argmax())
    cumulative = torch.softmax(scores / max(tag.temperature, 1e-6), dim=-1).cumsum(dim=-1)
    target = (tag.uniforms[place] * cumulative[-1]).reshape(1)
    return min(int(torch.searchsorted(cumulative, target, right=True)), len(scores) - 1)
