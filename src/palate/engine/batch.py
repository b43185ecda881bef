"""The running batch: requests, their rows, and the rows' next-token logits."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from palate.engine.control import ControlRun
from palate.engine.pool import RowMap, pool_coefficients
from palate.engine.request import RunningRequest
from palate.models.cache import BatchCache


class Batch:
    """Requests whose rows lie one after another, and their sequences in the cache likewise."""

    def __init__(
        self, requests: list[RunningRequest], cache: BatchCache, logits: Float[Tensor, "rows vocab"]
    ) -> None:
        """A batch of requests that have been prefilled."""
        self.requests = requests
        self.cache = cache
        self.logits = logits
        self.rows = RowMap.of([running.plan for running in requests], device=logits.device)
        self.sequences = _sequences(requests)

    @property
    def n_rows(self) -> int:
        """Rows of all requests."""
        return len(self.rows.owner)

    def coefficients(self) -> list[tuple[float, ...]]:
        """`[rows][experts]`."""
        return [row.coefficients for running in self.requests for row in running.plan.rows]

    def joined(self, other: "Batch") -> "Batch":
        """This batch with the other's requests below."""
        self.cache.join(other.cache)
        logits = torch.cat([self.logits, other.logits])
        return Batch(self.requests + other.requests, self.cache, logits)

    def without(self, ended: set[int]) -> "Batch | None":
        """The batch without the requests of these indices, or `None` if none is left."""
        if not ended:
            return self
        stays = [running.index not in ended for running in self.requests]
        left = [running for running, stay in zip(self.requests, stays, strict=True) if stay]
        if not left:
            return None
        rows, sequences = (
            torch.tensor(
                [place for place, owner in enumerate(owners) if stays[owner]],
                device=self.logits.device,
            )
            for owners in (
                [i for i, running in enumerate(self.requests) for _ in running.plan.rows],
                [i for i, running in enumerate(self.requests) for _ in range(running.n_sequences)],
            )
        )
        self.cache.select(sequences)
        return Batch(left, self.cache, self.logits[rows])

    def record_rows(self, rows: RowMap, tokens: Tensor) -> None:
        """Record the rows' log-probabilities of the sampled tokens, `[requests]`, where traced."""
        log_probs = torch.log_softmax(self.logits.float(), dim=-1)
        own = log_probs.gather(1, tokens[rows.owner].unsqueeze(1)).squeeze(1)
        sizes = [len(running.plan.rows) for running in self.requests]
        parts = zip(self.requests, own.split(sizes), rows.coefficient.split(sizes), strict=True)
        for running, values, shares in parts:
            if running.is_traced:
                running.row_log_probs.append(values.tolist())
                running.shares.append(shares.tolist())

    def record_top(self, log_probs: Float[Tensor, "requests vocab"]) -> None:
        """Record the most probable tokens in each request that has `n_top`."""
        n_top = min(max(running.n_top for running in self.requests), log_probs.shape[1])
        values, ids = log_probs.topk(n_top, dim=-1)
        for running, *top in zip(self.requests, ids.tolist(), values.tolist(), strict=True):
            if running.n_top:
                running.top.append(list(zip(*top, strict=True))[: running.n_top])

    @torch.inference_mode()
    def controlled_rows(self, runs: Mapping[str, ControlRun]) -> RowMap:
        """The row map with every controller's shares for the next token."""
        groups: dict[str, list[RunningRequest]] = {}
        for running in self.requests:
            if running.plan.pool.controller is not None:
                groups.setdefault(running.plan.pool.controller, []).append(running)
        if not groups:
            return self.rows
        shares_of: dict[int, Tensor] = {}
        for name, requests in groups.items():
            shares = runs[name].shares(requests)
            shares_of |= {running.index: row for running, row in zip(requests, shares, strict=True)}
        parts = [
            shares_of.get(running.index, torch.tensor(pool_coefficients(running.plan))).float()
            for running in self.requests
        ]
        coefficient = torch.cat([part.to(self.logits.device) for part in parts])
        return RowMap(self.rows.owner, coefficient, self.rows.is_linear)


def _sequences(requests: list[RunningRequest]) -> list[int] | None:
    """Each row's sequence among those of all requests."""
    places: list[int] = []
    first = 0
    for running in requests:
        places.extend(first + sequence for sequence in running.sequences)
        first += running.n_sequences
    return None if first == len(places) else places
