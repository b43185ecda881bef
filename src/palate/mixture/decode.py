"""Decoding under control: the controller scores the experts while the engine generates.

For every running request the controller keeps its own key-value cache, in the order in which
requests joined; each step costs one token of the small trunk for the whole batch. It uses a plan's
pool context (token ids with the preference in words) and strengths, and which expert each row is.
A request's shares depend on its own tokens only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidCoefficientsError
from palate.core.plan import Plan
from palate.engine.request import RunningRequest
from palate.mixture.controller import PreferenceController
from palate.mixture.pooling import Floor, shares_of
from palate.models.cache import RowCache
from palate.models.load import Base, require_same_tokenizer


@dataclass(frozen=True)
class DecodeSettings:
    """How scores become shares when answering; training uses the defaults."""

    floor: Floor | None = None  # its expert needs a row, with strength zero where it is not wanted


class ControlledDecoding:
    """A controller in the form that the engine takes."""

    def __init__(
        self,
        controller: PreferenceController,
        base: Base,
        *,
        settings: DecodeSettings | None = None,
    ) -> None:
        """Join a controller to the base whose experts it mixes.

        Raises:
            FormatError: the controller was made for another tokenizer.
        """
        require_same_tokenizer(
            left=("controller", controller.tokenizer_fingerprint),
            right=(base.path, base.tokenizer_fingerprint),
        )
        self.controller = controller
        self.settings = settings or DecodeSettings()

    def start(self) -> "DecodeRun":
        """The state of one run of the engine."""
        return DecodeRun(self.controller, self.settings)


@dataclass(eq=False)
class DecodeRun:
    """The controller's cache of the running requests."""

    controller: PreferenceController
    settings: DecodeSettings
    _order: list[int] = field(default_factory=list[int])
    _experts: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    _strengths: Tensor = field(default_factory=lambda: torch.zeros(0))
    _cache: RowCache | None = None

    @torch.inference_mode()
    def shares(self, running_requests: Sequence[RunningRequest]) -> list[Float[Tensor, " rows"]]:
        """One share per row of each request; see `palate.engine.control.ControlRun`."""
        by_index = {request.index: request for request in running_requests}
        self._forget({index for index in self._order if index not in by_index})
        parts: list[Tensor] = []
        if self._cache is not None:
            tokens = torch.tensor([by_index[index].tokens[-1] for index in self._order])
            device = self._strengths.device
            parts.append(
                self.controller.trunk.advance(tokens.to(device), self._cache, self._strengths)
            )
        fresh = [request for request in running_requests if request.index not in self._experts]
        if fresh:
            parts.append(self._prefill(fresh))
        shares = self._shares(self.controller.head(torch.cat(parts)))
        return [
            shares[self._order.index(request.index)][self._experts[request.index]]
            for request in running_requests
        ]

    def _prefill(self, fresh: Sequence[RunningRequest]) -> Tensor:
        strengths = torch.zeros(len(fresh), len(self.controller.experts))
        for place, request in enumerate(fresh):
            experts = experts_of(request.plan)
            _require_floor(self.settings.floor, experts)
            self._experts[request.index] = experts
            strengths[place, experts] = torch.tensor(row_strengths(request.plan))
        strengths = strengths.to(self.controller.head.weight.device)
        contexts = [
            (request.plan.pool.context or request.prompt) + tuple(request.tokens)
            for request in fresh
        ]
        hidden, cache = self.controller.trunk.read(contexts, strengths)
        if self._cache is None:
            self._cache, self._strengths = cache, strengths
        else:
            self._cache.join(cache)
            self._strengths = torch.cat([self._strengths, strengths])
        self._order += [request.index for request in fresh]
        return hidden

    def _forget(self, ended: set[int]) -> None:
        if not ended or self._cache is None:
            return
        running = [place for place, index in enumerate(self._order) if index not in ended]
        self._order = [self._order[place] for place in running]
        for index in ended:
            del self._experts[index]
        if not running:
            self._cache = None
            return
        places = torch.tensor(running, device=self._strengths.device)
        self._cache.select(places)
        self._strengths = self._strengths[places]

    def _shares(self, scores: Tensor) -> Float[Tensor, "requests experts"]:
        return shares_of(scores, self._strengths > 0, floor=self.settings.floor).cpu()


def experts_of(plan: Plan) -> list[int]:
    """The expert of each row of a controlled plan: the one of coefficient 1.

    Raises:
        InvalidCoefficientsError: a row is led by no expert, or two rows by the same one.
    """
    experts: list[int] = []
    for row in plan.rows:
        leading = [k for k, c in enumerate(row.coefficients) if c == 1.0]
        if len(leading) != 1 or not all(0.0 <= c <= 1.0 for c in row.coefficients):
            raise InvalidCoefficientsError(
                f"The row {list(row.coefficients)} of a controlled plan is not led by one expert; "
                "give it coefficient 1 for one expert and 0, or less than 1, for all others."
            )
        experts.append(leading[0])
    if len(set(experts)) != len(experts):
        raise InvalidCoefficientsError(
            f"The controlled plan has two rows for one expert (experts {experts}); give one each."
        )
    return experts


def _require_floor(floor: Floor | None, experts: Sequence[int]) -> None:
    if floor is not None and floor.expert not in experts:
        raise InvalidCoefficientsError(
            f"The floor is for expert {floor.expert}, of which the plan has no row; add it "
            "with strength zero."
        )


def row_strengths(plan: Plan) -> tuple[float, ...]:
    """How much is wanted of each row; uniform where the plan does not say."""
    return plan.pool.strengths or (1.0 / len(plan.rows),) * len(plan.rows)
