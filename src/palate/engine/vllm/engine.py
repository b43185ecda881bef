"""An engine over a running vLLM, with the interface of the local one.

    one row, one expert       the expert's LoRA module, by name
    one row, a soup           the exact sum of experts as one adapter, loaded at run time; by
                              default coefficients are rounded so that users share adapters, and
                              the bound of that is reported (`palate.engine.vllm.rounding`)
    several rows              the rows' lists of log-probabilities, pooled here token by token, with
                              a bound on the missing part; exact with whole lists; or pooled
                              inside the server by palate's plugin (`pools: server`)
    an implicit soup          as the explicit one, which has the same distribution

Traces and signed pools with lists that are too short are refused, and repetition rules while the
server samples (vLLM applies them to other numbers, so answers would differ). While the server
samples, tokens at a temperature above zero come from its generator: the same distribution, other
tokens than in this process.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

from palate.core.errors import FormatError, InvalidInputError, PalateError, ProviderError
from palate.core.files import hash_files
from palate.core.plan import member_plan, reference_plan
from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.parts import EngineParts
from palate.engine.remote import AnswerLog, Emit, RemoteEngine
from palate.engine.request import RunningRequest
from palate.engine.vllm.adapters import AdapterCache, SoupMaker, VllmContext, share_of, take_place
from palate.engine.vllm.answer import VllmAnswer, require_possible, source_of
from palate.engine.vllm.client import VllmClient, VllmSettings
from palate.engine.vllm.rounding import Rounding, gram_of, rates_of
from palate.models.adapter import load_adapter
from palate.models.chat import encode_prompt
from palate.models.load import Base

PROBE = "Once upon a time, there was a little girl named Lily. She liked to"
SAME_MODEL = 0.02  # total variation between two implementations, also in half precision


class VllmEngine(RemoteEngine):
    """Executes plans on a running vLLM; see `palate.engine.protocol.Engine`."""

    name = "vllm"

    def __init__(self, context: VllmContext) -> None:
        """Keep the parts; `open_engine` makes them."""
        self.context = context
        self.base = context.base
        self.max_num_seqs = context.settings.max_concurrent

    def begin(self, running: RunningRequest, emit: Emit) -> VllmAnswer:
        """The answer to a request; see `palate.engine.remote.RemoteEngine`."""
        source = source_of(
            running.plan, running.request.sampling, self.context, n_top=running.n_top
        )
        require_possible(self.context, running, source=source)
        return VllmAnswer(self.context, AnswerLog(running, self.base, emit), source)

    def require_ready(self) -> None:
        """Return when the server says that it works, otherwise ProviderError."""
        self.context.client.require_alive()

    def next_log_probs(
        self, coefficients: Sequence[float], context: Sequence[int]
    ) -> dict[int, float]:
        """The server's list for the next token of one row, exactly as answers are served."""
        model, writers = self.context.model_of(coefficients)
        with self.context.cache.held(writers):
            return self.context.client.next_log_probs(
                model, context, top_k=self.context.settings.top_k
            )

    def close(self) -> None:
        """Unload the soups, end threads and leave the place, also after the server has ended."""
        with suppress(ProviderError):
            self.context.client.require_alive()
            self.context.cache.close()
        self.context.row_threads.shutdown(wait=False)
        self.context.place.release()


def check_settings(settings: VllmSettings) -> VllmSettings:
    """The settings with absolute folders, after everything that needs no server was checked.

    Raises:
        InvalidInputError: there are no adapters in `server_experts`, or less of the vLLM than a
            share for every process.
    """
    share_of(settings)
    folder = settings.server_experts and settings.server_experts.resolve()
    if folder is not None:
        expert_folders_in(folder)
    changes = {"adapters_folder": settings.adapters_folder.resolve(), "server_experts": folder}
    return settings.model_copy(update=changes)  # another process may use it in another folder


def expert_folders_in(folder: Path) -> dict[str, Path]:
    """The experts' folders in a folder, by name; InvalidInputError where it holds none."""
    folders = {path.name: path for path in sorted(folder.glob("*/")) if path.is_dir()}
    if not folders:
        raise InvalidInputError(
            f"The folder {str(folder)!r} holds no adapters; give the one that the server's "
            "--lora-modules come from."
        )
    return folders


def open_engine(settings: VllmSettings, parts: EngineParts) -> VllmEngine:
    """The engine for a library's parts, after the server gave the same distributions.

    Raises:
        FormatError: the server has another base or other experts.
        InvalidInputError: the plugin is missing, or `n_processes` others use the server already.
        ProviderError: the server fails.
    """
    folders = dict(parts.expert_folders)
    if settings.server_experts is not None:
        served = expert_folders_in(settings.server_experts)
        missing = [name for name in folders if name not in served]
        if missing:
            raise FormatError(
                f"The adapters for the server lack the expert {missing[0]!r} of the library; give "
                "a folder for every expert."
            )
        folders = {name: served[name] for name in folders}
    is_rated = settings.is_rated and settings.coefficient_step > 0
    rates = rates_of(parts.base, parts.bank, items=parts.texts()) if is_rated else ()
    engine = connect(settings, parts.base, folders, rates=rates, controllers=parts.controllers)
    try:
        require_same_models(engine, parts.bank)
    except PalateError:
        engine.close()
        raise
    return engine


def connect(
    settings: VllmSettings,
    base: Base,
    experts: Mapping[str, Path],
    *,
    rates: Sequence[float] = (),
    controllers: Mapping[str, Controller] | None = None,
) -> VllmEngine:
    """The engine on a server that has the base and every expert as a LoRA module of its name.

    Soups are merged from the PEFT folders, which are in bank order; `rates` say how fast
    distributions change with each coefficient, and are unknown where empty.

    Raises:
        FormatError: the server lacks the base or an expert.
        InvalidInputError: the plugin is missing, or `n_processes` others use the server already.
        ProviderError: the server fails.
    """
    settings = share_of(settings)
    client = VllmClient(settings)
    there = client.models()
    if settings.pools == "server":
        client.require_groups()
    missing = [name for name in (settings.base_name, *experts) if name not in there]
    if missing:
        raise FormatError(
            f"The server {settings.url!r} has no model {missing[0]!r}, only {', '.join(there)}; "
            f"start it with --served-model-name {settings.base_name} and --lora-modules "
            "NAME=FOLDER for every expert."
        )
    adapters = [load_adapter(folder) for folder in experts.values()]
    files = [folder / "adapter_model.safetensors" for folder in experts.values()]
    key = hash_files(files) if files else ""
    place = take_place(settings.adapters_folder, n_places=settings.n_processes)
    try:
        for left in [name for name in client.models() if name.startswith(place.prefix)]:
            client.unload(left)
    except ProviderError:
        place.release()
        raise
    return VllmEngine(
        VllmContext(
            base=base,
            names=tuple(experts),
            client=client,
            place=place,
            cache=AdapterCache(
                folder=place.folder,
                capacity=settings.max_adapters,
                load=client.load,
                unload=client.unload,
            ),
            maker=SoupMaker(adapters, base.path, key, place.prefix),
            rounding=Rounding(settings.coefficient_step, gram_of(adapters), tuple(rates)),
            controllers=dict(controllers or {}),
            row_threads=ThreadPoolExecutor(
                settings.max_concurrent, thread_name_prefix="palate-row"
            ),
            context_length=there[settings.base_name],
        )
    )


def require_same_models(engine: VllmEngine, bank: AdapterBank) -> None:
    """Return when the server's base and experts give our distributions of the next token.

    Raises:
        FormatError: one differs, in total variation over the server's list.
    """
    base, n_experts = engine.base, bank.n_experts
    context = tuple(encode_prompt(base, PROBE))
    plans = [reference_plan(n_experts=n_experts)]
    plans += [member_plan(index=index, n_experts=n_experts) for index in range(n_experts)]
    names = (engine.context.settings.base_name, *engine.context.names)
    for name, plan in zip(names, plans, strict=True):
        listed = engine.next_log_probs(plan.rows[0].coefficients, context)
        own = row_distributions(base, bank, plan=plan, item=Scored(context, (0,)))[0, 0]
        values = torch.tensor(list(listed.values()), dtype=torch.float64)
        gap = 0.5 * float((values.exp() - own.double().exp().cpu()[list(listed)]).abs().sum())
        if gap > SAME_MODEL:
            raise FormatError(
                f"The server's model {name!r} is another one than ours: over a probe's "
                f"{len(listed)} most probable next tokens they differ by {gap:.3f} in total "
                "variation; start it on this library's base and experts."
            )
