"""States of the base's answers with every expert's tilts there, below the face of the package.

One pass of the base's blocks for each expert that changes hidden states; experts of the unembedding
need none of their own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from palate import Library, Output, SamplingParams
from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from palate.core.plan import one_hot
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.engine.logprobs import Scored
from palate.library.features import scored_text
from palate.models.adapter import load_adapter
from palate.models.reach import reach_of
from palate.rewards.texts import messages_of
from palate.training.placement import unembedding
from palate.training.rollouts import own_answers, read_rollouts
from research.soup.linearity import TokenStates

N_LIKELY = 64  # tokens of a state
MAX_TOKENS = 48  # of an answer; the rest is cut
LONGEST = 400  # characters of a prompt
STEP = 1.0 / 16  # of the adapter, for its first-order change

Factors = tuple[Float[Tensor, "rank hidden"], Float[Tensor, "vocab rank"]]
"""What an adapter adds to the unembedding: `up @ down`, scaled."""


def items_of(
    library: Library, prompts: Path | None, *, sizes: tuple[int, int], seed: int
) -> tuple[list[Scored], list[Scored]]:
    """The base's answers to fit to, from the library's rollouts, and those to count on.

    Raises:
        InvalidInputError: there are fewer prompts than wanted, or the library has no rollouts.
    """
    names = library.manifest.objective_names
    rows = own_answers(read_rollouts(library.files.rollouts_path, objectives=names))
    of_prompt = {row.prompt: row for row in reversed(rows)}
    order = generator_for(seed, "representation").permutation(len(of_prompt))
    known = [list(of_prompt.values())[k] for k in order]
    wanted = sizes[0] + (sizes[1] if prompts is None else 0)
    if len(known) < wanted:
        raise InvalidInputError(
            f"The library's rollouts have {len(known)} prompts, but {wanted} are wanted; lower "
            "--n-prompts."
        )
    items = [
        Scored(scored_text(library.base, messages_of(row.prompt), "").context, row.tokens)
        for row in known[:wanted]
    ]
    if prompts is not None:
        items += _answered(library, prompts, n=sizes[1], seed=seed)
    cut = [Scored(item.context, item.answer[:MAX_TOKENS]) for item in items]
    return cut[: sizes[0]], cut[sizes[0] :]


def _answered(library: Library, path: Path, *, n: int, seed: int) -> list[Scored]:
    rows = read_jsonl(path, what="prompts file")
    texts = sorted({str(row.get("prompt", "")).strip() for row in rows} - {""})
    texts = [text for text in texts if len(text) <= LONGEST]
    if len(texts) < n:
        raise InvalidInputError(
            f"The prompts file {str(path)!r} has {len(texts)} prompts of at most {LONGEST} "
            f"characters, but {n} are wanted; lower --n-prompts."
        )
    order = generator_for(seed, "held-out prompts").permutation(len(texts))[:n]
    sampling = SamplingParams(temperature=0.7, max_tokens=MAX_TOKENS)  # as rollouts
    chosen = [texts[k] for k in order]
    outputs = library.generate(chosen, method="base", sampling=sampling, seed=seed)
    return [
        Scored(scored_text(library.base, text, "").context, output.completion.tokens)
        for text, output in zip(chosen, cast("list[Output]", outputs), strict=True)
    ]


def states_of(
    library: Library, items: Sequence[Scored], *, seed: int, has_tangent: bool
) -> tuple[TokenStates, Float[ndarray, "states tokens experts"] | None]:
    """All states of the answers, one prompt each, and the experts' first-order tilts there.

    The second is `None` without `has_tangent`, or where all experts are changes of the unembedding.
    """
    folders = list(library.files.expert_folders().values())
    heads = [_head_factor(library, folder) for folder in folders]
    parts: list[tuple[ndarray, ...]] = []
    with progress_of("states, answers") as report:
        for place, item in enumerate(items, start=1):
            parts.append(_read(library, item, heads, has_tangent=has_tangent))
            report(place, len(items))
    psi, middle, tokens, shares, tilts, slopes = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    prompts = np.repeat(np.arange(len(items)), [len(part[0]) for part in parts])
    previous = np.concatenate(
        [(*item.context, *item.answer)[len(item.context) - 1 : -1] for item in items]
    )
    table = generator_for(seed, "random states").normal(
        size=(int(previous.max()) + 1, psi.shape[1])
    )
    features = {
        "psi": psi,
        "middle": middle,
        "random": table[previous],
        "none": np.ones((len(psi), 1)),
    }
    states = TokenStates(features, tokens, shares, tilts, prompts, prompts)
    return states, slopes if slopes.size else None


@torch.inference_mode()
def _read(
    library: Library, item: Scored, heads: Sequence[Factors | None], *, has_tangent: bool
) -> tuple[ndarray, ...]:
    """psi, middle, tokens, shares, tilts and first-order tilts of one answer's states."""
    bank, matrix = library.bank, unembedding(library.base.model).get_parameter("weight").float()
    n, zero = bank.n_experts, (0.0,) * bank.n_experts
    steps = [1.0] * n
    if has_tangent and bank.before_head((1.0,) * n):
        steps += [STEP] * n
    rows = [zero, *(_scaled(one_hot(index=k % n, n_experts=n), t) for k, t in enumerate(steps))]
    hidden, middle = _hidden(library, item, rows)
    logits = hidden[0] @ matrix.T
    likely = logits.topk(min(N_LIKELY, logits.shape[1]), dim=1).indices
    shares = logits.gather(1, likely).softmax(dim=1)
    taken = torch.tensor(item.answer, device=likely.device)[:, None]
    tokens = torch.cat([likely, taken], dim=1)
    own = matrix[tokens]  # [states, tokens, hidden]
    tilts: list[Tensor] = []
    for place, step in enumerate(steps):
        bent = hidden[place + 1]
        raw = torch.einsum("stw,sw->st", own, bent - hidden[0])
        head = heads[place % n]
        if head is not None:
            down, up = head
            raw = raw + step * torch.einsum("str,sr->st", up[tokens], bent @ down.T)
        tilts.append((raw - (shares * raw[:, :-1]).sum(dim=1, keepdim=True)) / step)
    stacked = torch.stack(tilts, dim=-1)
    arrays = (hidden[0], middle, tokens, shares, stacked[..., :n], stacked[..., n:])
    found = [part.numpy(force=True) for part in arrays]
    return tuple(x if x.dtype == np.int64 else x.astype(np.float64) for x in found)


def _hidden(
    library: Library, item: Scored, rows: Sequence[tuple[float, ...]]
) -> tuple[Float[Tensor, "rows tokens hidden"], Float[Tensor, "tokens hidden"]]:
    """Before each token of the answer: every row's last hidden state, and the base's middle one.

    Rows that agree below the unembedding share a pass.
    """
    bank, base = library.bank, library.base
    keys = [bank.before_head(row) for row in rows]
    different = list(dict.fromkeys(keys))
    ids = torch.tensor([[*item.context, *item.answer[:-1]]], device=base.device)
    with bank.applied([rows[keys.index(key)] for key in different]):
        output = base.model.base_model(
            input_ids=ids.expand(len(different), -1), use_cache=False, output_hidden_states=True
        )
    first = len(item.context) - 1
    middle = output.hidden_states[len(output.hidden_states) // 2][0, first:]
    places = [different.index(key) for key in keys]
    return output.last_hidden_state[places, first:].float(), middle.float()


def _scaled(row: tuple[float, ...], step: float) -> tuple[float, ...]:
    return tuple(step * value for value in row)


def _head_factor(library: Library, folder: Path) -> Factors | None:
    """The adapter's change of the unembedding, if it has one."""
    adapter, device = load_adapter(folder), library.base.device
    for layer, reach in reach_of(library.base.model, adapter).items():
        if reach == "head":
            factor = adapter[layer]
            return factor.down.to(device), (factor.scale * factor.up).to(device)
    return None
