"""A library answered by a running vLLM: connect, compare the models, pool rows with bounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from palate.core.errors import FormatError, PalateError
from palate.core.plan import Pool, member_plan, reference_plan
from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.vllm.engine import VllmEngine, open_engine
from palate.engine.vllm.parts import Pooled, RowLists
from palate.engine.vllm.wire import VllmSettings, connect_client
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.mixture.bounds import Listed, pool_listed, pool_listed_log_linear
from palate.models.chat import encode_prompt
from palate.models.load import Base

PROBE = "Once upon a time, there was a little girl named Lily. She liked to"
SAME_MODEL = 0.02  # total variation between two implementations, also in half precision


@dataclass(frozen=True, eq=False)
class OpenedVllm:
    """A library and the server that answers from it.

    Attributes:
        opened: The library in this process, which the server was compared with.
        engine: Over HTTP.
    """

    opened: Library
    engine: VllmEngine


def open_vllm(
    folder: Path,
    settings: VllmSettings,
    *,
    adapters: Mapping[str, Path] | None = None,
    rates: Sequence[float] = (),
    controllers: Mapping[str, Controller] | None = None,
) -> OpenedVllm:
    """The library in `folder`, answered by the server, after both gave the same distributions.

    Args:
        folder: A library; its experts are the server's LoRA modules of the same names.
        settings: Where the server is.
        adapters: Other folders of the same experts for the server, where its base is a rewritten
            one (`palate.engine.vllm.widen`).
        rates: From `palate.serve.vllm_rates`, for bounds on rounding.
        controllers: By name.

    Raises:
        FormatError: the server has another base or other experts.
        ProviderError: the server fails.
    """
    opened = Library.load(folder)
    return OpenedVllm(
        opened,
        connect(opened, settings, adapters=adapters, rates=rates, controllers=controllers),
    )


def connect(
    opened: Library,
    settings: VllmSettings,
    *,
    adapters: Mapping[str, Path] | None = None,
    rates: Sequence[float] = (),
    controllers: Mapping[str, Controller] | None = None,
) -> VllmEngine:
    """The server of an opened library, after both gave the same distributions.

    Args:
        opened: The library in this process.
        settings: Where the server is.
        adapters: As in `open_vllm`.
        rates: For bounds on rounding.
        controllers: By name.

    Raises:
        FormatError: the server has another base or other experts.
        InvalidInputError: it is to mix rows, but has no plugin for that; or as many processes as
            were said use it already.
        ProviderError: the server fails.
    """
    engine = open_engine(
        opened.base,
        _in_bank_order(opened.files, adapters),
        connect_client(settings),
        pool=pool_lists,
        rates=rates,
        controllers=controllers,
    )
    try:
        require_same_models(engine, opened.base, opened.bank)
    except PalateError:
        engine.close()
        raise
    return engine


def _in_bank_order(library: LibraryFolder, adapters: Mapping[str, Path] | None) -> dict[str, Path]:
    folders = library.expert_folders()
    if adapters is None:
        return folders
    missing = [name for name in folders if name not in adapters]
    if missing:
        raise FormatError(
            f"The adapters for the server lack the expert {missing[0]!r} of the library; give a "
            "folder for every expert."
        )
    return {name: adapters[name] for name in folders}


def require_same_models(engine: VllmEngine, base: Base, bank: AdapterBank) -> None:
    """Return when the server's base and experts say what ours say of the next token of a text.

    Raises:
        FormatError: one says something else, in total variation of what the server lists.
    """
    settings = engine.parts.client.settings
    context = tuple(encode_prompt(base, PROBE))
    names = (settings.base_name, *engine.parts.names)
    for place, name in enumerate(names):
        plan = (
            member_plan(index=place - 1, n_experts=bank.n_experts)
            if place
            else reference_plan(n_experts=bank.n_experts)
        )
        listed = engine.next_log_probs(plan.rows[0].coefficients, context)
        own = row_distributions(base, bank, plan=plan, item=Scored(context, (0,)))[0, 0]
        probs = torch.softmax(own.double(), dim=-1)
        gap = 0.5 * sum(abs(math.exp(v) - float(probs[t])) for t, v in listed.items())
        if gap > SAME_MODEL:
            raise FormatError(
                f"The server's model {name!r} is another one than ours: over a probe's "
                f"{len(listed)} most probable next tokens they differ by {gap:.3f} in total "
                "variation; start it on this library's base and experts."
            )


def pool_lists(lists: RowLists, pool: Pool, n_vocab: int) -> Pooled:
    """The rows' lists as one distribution, with a bound on its total variation to the exact one.

    Whole lists are pooled exactly, with any coefficients.

    Args:
        lists: Log-probabilities by token id, one list per row.
        pool: `linear` or `log_linear`, with fixed coefficients.
        n_vocab: Token ids of the model.
    """
    if all(len(row) >= n_vocab for row in lists):
        return Pooled(_whole(lists, pool), 0.0)
    listed = [Listed({t: min(1.0, math.exp(v)) for t, v in row.items()}) for row in lists]
    combine = pool_listed if pool.kind == "linear" else pool_listed_log_linear
    found = combine(listed, pool.coefficients)
    return Pooled({t: math.log(p) for t, p in found.probs.items() if p > 0.0}, found.bound)


def _whole(lists: RowLists, pool: Pool) -> dict[int, float]:
    tokens = sorted(lists[0])
    rows = torch.tensor([[row[token] for token in tokens] for row in lists], dtype=torch.float64)
    coefficients = torch.tensor(pool.coefficients, dtype=torch.float64)[:, None]
    if pool.kind == "linear":
        kept = coefficients[:, 0] > 0
        pooled = torch.logsumexp(rows[kept] + coefficients[kept].log(), dim=0)
    else:
        pooled = torch.log_softmax((coefficients * rows).sum(dim=0), dim=0)
    return dict(zip(tokens, pooled.tolist(), strict=True))
