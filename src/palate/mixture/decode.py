"""Decoding under control: the controller reads along while the engine writes.

For every live request the controller keeps its own key-value cache, in the order in which requests
joined; each step costs one token of the small trunk for the whole batch. What it reads of a plan:
the pool's context (token ids with the preference in words) and strengths, and which expert each row
is. A request's shares depend on its own tokens only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.plan import Plan
from palate.engine.batch import RunningRequest
from palate.mixture.bounds import skip_small
from palate.mixture.controller import PreferenceController
from palate.mixture.pooling import Floor, shares_of
from palate.models.cache import RowCache
from palate.models.load import Base, require_same_tokenizer

MOST_REMEMBERED = 1024  # ended requests whose left-out shares can still be asked for


@dataclass(frozen=True)
class DecodeSettings:
    """How shares are made of scores when answering; training uses the defaults.

    Attributes:
        floor: A least share of one expert, also where it was not asked for (its row must be in the
            plan, with strength zero).
        skip_below: Experts with smaller shares are left out of a token; the largest and the
            floor's always stay.
    """

    floor: Floor | None = None
    skip_below: float = 0.0

    def __post_init__(self) -> None:
        """Refuse thresholds out of range."""
        if not 0.0 <= self.skip_below < 1.0:
            raise InvalidInputError(
                f"The threshold {self.skip_below} for skipping experts is out of range; use a "
                "share from 0 up to 1."
            )


class ControlledDecoding:
    """A controller as the engine knows it."""

    def __init__(
        self,
        controller: PreferenceController,
        base: Base,
        *,
        settings: DecodeSettings | None = None,
    ) -> None:
        """Join a controller to the base whose experts it mixes.

        Raises:
            FormatError: the controller reads another tokenizer's ids.
        """
        require_same_tokenizer(
            left=("controller", controller.tokenizer_fingerprint),
            right=(base.path, base.tokenizer_fingerprint),
        )
        self.controller = controller
        self.settings = settings or DecodeSettings()

    def start(self) -> "DecodeRun":
        """What serves one run of the engine."""
        return DecodeRun(self.controller, self.settings)


@dataclass(eq=False)
class DecodeRun:
    """What the controller has read of the live requests of one run.

    Attributes:
        skipped: Largest share left out so far by request, summed over its tokens: a bound on the
            total variation of whole answers. Of ended requests the last ones are remembered.
    """

    controller: PreferenceController
    settings: DecodeSettings
    skipped: dict[int, float] = field(default_factory=dict[int, float])
    _order: list[int] = field(default_factory=list[int])
    _experts: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    _strengths: Tensor = field(default_factory=lambda: torch.zeros(0))
    _cache: RowCache | None = None

    @torch.inference_mode()
    def shares(self, running_requests: Sequence[RunningRequest]) -> list[Float[Tensor, " rows"]]:
        """One share per row of each request; see `palate.engine.control.ControlRun`."""
        by_index = {running.index: running for running in running_requests}
        self._forget({index for index in self._order if index not in by_index})
        parts: list[Tensor] = []
        if self._cache is not None:
            tokens = torch.tensor([by_index[index].tokens[-1] for index in self._order])
            device = self._strengths.device
            parts.append(
                self.controller.trunk.advance(tokens.to(device), self._cache, self._strengths)
            )
        fresh = [running for running in running_requests if running.index not in self._experts]
        if fresh:
            parts.append(self._read(fresh))
        scores = self.controller.head(torch.cat(parts))
        shares = self._shares(scores)
        return [self._rows(running.index, shares) for running in running_requests]

    def _read(self, fresh: Sequence[RunningRequest]) -> Tensor:
        strengths = torch.zeros(len(fresh), len(self.controller.experts))
        for place, running in enumerate(fresh):
            experts = experts_of(running.plan)
            self._experts[running.index] = experts
            strengths[place, experts] = torch.tensor(row_strengths(running.plan))
        strengths = strengths.to(self.controller.head.weight.device)
        contexts = [running.plan.pool.context or running.prompt for running in fresh]
        hidden, cache = self.controller.trunk.read(contexts, strengths)
        if self._cache is None:
            self._cache, self._strengths = cache, strengths
        else:
            self._cache.join(cache)
            self._strengths = torch.cat([self._strengths, strengths])
        self._order += [running.index for running in fresh]
        return hidden

    def _forget(self, ended: set[int]) -> None:
        if not ended or self._cache is None:
            return
        kept = [place for place, index in enumerate(self._order) if index not in ended]
        self._order = [self._order[place] for place in kept]
        for index in ended:
            del self._experts[index]
        past = [index for index in self.skipped if index not in self._experts]
        for index in past[:-MOST_REMEMBERED]:  # a server's run does not end
            del self.skipped[index]
        if not kept:
            self._cache = None
            return
        places = torch.tensor(kept, device=self._strengths.device)
        self._cache.select(places)
        self._strengths = self._strengths[places]

    def _shares(self, scores: Tensor) -> Float[Tensor, "requests experts"]:
        shares = shares_of(scores, self._strengths > 0, floor=self.settings.floor).cpu()
        if self.settings.skip_below == 0.0:
            return shares
        floor = None if self.settings.floor is None else self.settings.floor.expert
        rows: list[np.ndarray] = []
        for index, row in zip(self._order, shares.double().numpy(), strict=True):
            kept, bound = skip_small(row, threshold=self.settings.skip_below, floor=floor)
            self.skipped[index] = self.skipped.get(index, 0.0) + bound
            rows.append(kept)
        return torch.tensor(np.stack(rows), dtype=torch.float32)

    def _rows(self, index: int, shares: Tensor) -> Tensor:
        experts = self._experts[index]
        floor = self.settings.floor
        if floor is not None and floor.expert not in experts:
            raise InvalidCoefficientsError(
                f"The floor is for expert {floor.expert}, of which the plan has no row; add it "
                "with strength zero."
            )
        return shares[self._order.index(index)][experts]


def experts_of(plan: Plan) -> list[int]:
    """The expert that each row of a controlled plan is, or is above all others.

    Raises:
        InvalidCoefficientsError: a row is led by no expert, or two rows by the same one.
    """
    found: list[int] = []
    for row in plan.rows:
        leading = [k for k, c in enumerate(row.coefficients) if c == 1.0]
        if len(leading) != 1 or not all(0.0 <= c <= 1.0 for c in row.coefficients):
            raise InvalidCoefficientsError(
                f"The row {list(row.coefficients)} of a controlled plan is not led by one expert; "
                "give it coefficient 1 for one expert and 0, or less than 1, for all others."
            )
        found.append(leading[0])
    if len(set(found)) != len(found):
        raise InvalidCoefficientsError(
            f"The controlled plan has two rows for one expert (experts {found}); give one each."
        )
    return found


def row_strengths(plan: Plan) -> tuple[float, ...]:
    """What is wanted of each row; uniform where the plan does not say."""
    return plan.pool.strengths or (1.0 / len(plan.rows),) * len(plan.rows)
