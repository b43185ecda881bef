"""Distributions along given answers under any plan, one that leaves its shares to a controller too.

`palate.engine.logprobs` scores fixed plans in large batches; a controller goes through an answer
token by token, so it is given the tokens as if they had been sampled.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.pool import RowMap, pool_coefficients, pool_log_probs
from palate.engine.request import RunningRequest
from palate.engine.stream import TextStream
from palate.models.load import Base


@torch.inference_mode()
def plan_distributions(
    base: Base,
    bank: AdapterBank,
    *,
    plan: Plan,
    item: Scored,
    controllers: Mapping[str, Controller] | None = None,
) -> Float[Tensor, "tokens vocab"]:
    """`[tokens, vocab]`: the plan's next-token log-probabilities along an answer, nats.

    Raises:
        InvalidInputError: the plan names a controller that is not given.
    """
    normal = plan.normal_form()
    rows = row_distributions(base, bank, plan=normal, item=item)  # [rows, tokens, vocab]
    shares = _shares(normal, item, base=base, controllers=controllers or {})
    n_rows, n_tokens = rows.shape[:2]
    device = rows.device
    tokens_first = rows.transpose(0, 1).reshape(n_tokens * n_rows, -1)
    row_map = RowMap(
        torch.arange(n_tokens, device=device).repeat_interleave(n_rows),
        shares.reshape(-1).to(device),
        torch.full((n_tokens,), normal.pool.kind == "linear", device=device),
    )
    return pool_log_probs(tokens_first, row_map)


def plan_log_probs(
    base: Base,
    bank: AdapterBank,
    *,
    plan: Plan,
    item: Scored,
    controllers: Mapping[str, Controller] | None = None,
) -> Float[Tensor, " tokens"]:
    """`[tokens]`: log-probability of each token of the answer under the plan, nats."""
    log_probs = plan_distributions(base, bank, plan=plan, item=item, controllers=controllers)
    answer = torch.tensor(item.answer, dtype=torch.long, device=log_probs.device)
    return log_probs.gather(1, answer.unsqueeze(1)).squeeze(1)


def _shares(
    plan: Plan, item: Scored, *, base: Base, controllers: Mapping[str, Controller]
) -> Float[Tensor, "tokens rows"]:
    """The pool's coefficients at every token of the answer."""
    n_tokens, name = len(item.answer), plan.pool.controller
    if name is None:
        return torch.tensor(pool_coefficients(plan), dtype=torch.float32).expand(n_tokens, -1)
    if name not in controllers:
        raise InvalidInputError(f"The plan names the controller {name!r}, which is not loaded.")
    running = RunningRequest(
        index=0,
        request=Request("", plan, SamplingParams(max_tokens=max(n_tokens, 1))),
        plan=plan,
        prompt=item.context,
        contexts=[item.context if row.context is None else row.context for row in plan.rows],
        text=TextStream(base.tokenizer),
    )
    run = controllers[name].start()
    shares: list[Tensor] = []
    for token in item.answer:
        shares.append(run.shares([running])[0].float())
        running.tokens.append(token)
    return torch.stack(shares) if shares else torch.zeros(0, len(plan.rows))
