"""Static coefficients: the best shares that do not look at the prompt or the answer.

One score per expert and combination, learned by the same losses on the same samples as the
controller: the baseline that tells what the controller's reading is worth.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palate import Library
from palate.build.mixture_fit import MixtureRun, combinations_of, task_for
from palate.core.errors import InvalidInputError
from palate.engine.request import RunningRequest
from palate.mixture.decode import experts_of, row_strengths
from palate.mixture.mope import fit
from palate.mixture.pooling import shares_of

Strengths = tuple[float, ...]


class StaticController(nn.Module):
    """A table of scores `[combinations, experts]`, zero at the start.

    Attributes:
        combinations: Strengths over the experts, all different; the table's rows.
    """

    def __init__(self, combinations: Sequence[Strengths]) -> None:
        """A table for these combinations.

        Raises:
            InvalidInputError: there are none.
        """
        super().__init__()
        if not combinations:
            raise InvalidInputError("A static controller needs at least one combination.")
        self.combinations = tuple(combinations)
        self.head = nn.Parameter(torch.zeros(len(combinations), len(combinations[0])))
        self.register_buffer("known", torch.tensor(self.combinations))

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        mask: Int[Tensor, "batch seq"],  # noqa: ARG002 - the face of the controller
        strengths: Float[Tensor, "batch experts"],
    ) -> tuple[Float[Tensor, "batch seq experts"], Float[Tensor, "batch seq"]]:
        """The same scores at every place, and no values."""
        rows = self.head[self._rows(strengths)]
        scores = rows.unsqueeze(1).expand(-1, ids.shape[1], -1)
        return scores, torch.zeros(ids.shape)

    def shares(self, strengths: Strengths) -> Float[Tensor, " experts"]:
        """The shares of a combination over the whole bank."""
        wanted = torch.tensor([strengths])
        return shares_of(self.head.detach()[self._rows(wanted)], wanted > 0)[0]

    def _rows(self, strengths: Float[Tensor, "batch experts"]) -> Int[Tensor, " batch"]:
        distances = (strengths[:, None, :] - self.get_buffer("known")[None]).abs().sum(dim=-1)
        result = distances.min(dim=1)
        if bool((result.values > 1e-4).any()):
            raise InvalidInputError(
                "A static controller was asked for a combination that it has no shares for; fit it "
                "on every combination."
            )
        return result.indices


class StaticDecoding:
    """A static controller as the engine knows it."""

    def __init__(self, controller: StaticController) -> None:
        """Keep the table."""
        self.controller = controller

    def start(self) -> "StaticDecoding":
        """Nothing is kept between tokens, so every run is the same."""
        return self

    def shares(self, running_requests: Sequence[RunningRequest]) -> list[Float[Tensor, " rows"]]:
        """The combination's shares, for the rows of each request."""
        result: list[Tensor] = []
        for running in running_requests:
            experts = experts_of(running.plan)
            whole = [0.0] * self.controller.head.shape[1]
            for expert, strength in zip(experts, row_strengths(running.plan), strict=True):
                whole[expert] = strength
            result.append(self.controller.shares(tuple(whole))[experts])
        return result


def fit_static(opened: Library, run: MixtureRun, *, folder: Path) -> StaticController:
    """The best constant shares for every combination, learned by the same loss and updates."""
    trained, held_out = combinations_of(opened, run)
    everything = trained + held_out
    controller = StaticController(everything)
    settings = run.fit.model_copy(update={"head_rate": 0.1})
    task = task_for(opened, run, StaticDecoding(controller), everything)
    fit(controller, task, settings, folder=folder)
    return controller
