"""An engine over a running vLLM, with the interface of the one in this process.

    one row, one expert       the expert's LoRA module, by name
    one row, a soup           the exact sum of experts as one adapter, loaded at run time; by
                              default coefficients are rounded so that users share adapters, and
                              what that can cost is reported (`palate.engine.vllm.rounding`)
    several rows              the rows' lists of log-probabilities, pooled here token by token, with
                              a bound on what the lists left out; exact with whole lists; or mixed
                              inside the server by palate's plugin (`pools: server`)
    an implicit soup          as the explicit one, which has the same distribution

What it cannot do is refused: traces, whole-vocabulary pools with lists that are too short, and
repetition rules while the server draws (vLLM applies them to other numbers, so answers would
differ). While the server draws, tokens at a temperature above zero come from its generator: the
same distribution, other draws than in this process.

A session may be used by one thread; its answers are written by threads of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from palate.core.errors import FormatError, ProviderError
from palate.core.files import hash_files
from palate.core.protocols import Request, Token
from palate.core.types import Completion
from palate.engine.control import Controller
from palate.engine.vllm.adapters import AdapterCache, SoupMaker
from palate.engine.vllm.parts import Account, PoolLists, VllmParts
from palate.engine.vllm.place import share_of, take_place
from palate.engine.vllm.rounding import Rounding, gram_of
from palate.engine.vllm.session import VllmSession
from palate.engine.vllm.wire import VllmClient
from palate.models.adapter import load_adapter
from palate.models.load import Base


@dataclass(frozen=True)
class Served:
    """An answer, and how far its tokens can be from exact ones."""

    completion: Completion
    account: Account


class VllmEngine:
    """Executes plans on a running vLLM.

    Attributes:
        parts: What sessions run on.
        max_num_seqs: Answers in flight, for whoever estimates waiting times.
    """

    def __init__(self, parts: VllmParts) -> None:
        """Keep the parts; `open_engine` makes them."""
        self.parts = parts
        self.max_num_seqs = parts.client.settings.max_concurrent

    def open_session(self) -> VllmSession:
        """An open-ended run."""
        return VllmSession(self.parts)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            InvalidInputError: a plan is one that this engine cannot execute.
            ProviderError: the server failed.
            NotCertifiedError: lists were too short for the budget.
        """
        return [served.completion for served in self.serve(requests)]

    def serve(self, requests: Sequence[Request]) -> list[Served]:
        """As `generate`, with what every answer is off by at most."""
        session = self.open_session()
        running_requests = [session.add_request(request) for request in requests]
        ends = {token.request: token for token in session.run()}
        return [
            Served(
                Completion(
                    prompt=running.request.prompt,
                    text=running.text.text,
                    tokens=tuple(running.tokens),
                    log_probs=tuple(running.log_probs),
                    finish="stop" if ends[running.index].finish == "stop" else "length",
                ),
                cast(Account, session.account(running)),  # none was let go
            )
            for running in running_requests
        ]

    def stream(self, requests: Sequence[Request]) -> Iterator[Token]:
        """Tokens of all requests as they come; each request's last token says why it ended.

        Raises:
            InvalidInputError: as `generate`; so for the other errors.
        """
        session = self.open_session()
        for request in requests:
            session.add_request(request)
        yield from session.run()

    def next_log_probs(
        self, coefficients: Sequence[float], context: Sequence[int]
    ) -> dict[int, float]:
        """What the server lists for the next token of one row, exactly as answers are served."""
        model, writers = self.parts.model_of(coefficients)
        client = self.parts.client
        with self.parts.cache.held(writers):
            return client.next_log_probs(model, context, top_k=client.settings.top_k)

    def close(self) -> None:
        """Unload the soups, let threads and place go; a server that is gone has nothing of ours."""
        with suppress(ProviderError):
            self.parts.client.require_alive()
            self.parts.cache.close()
        self.parts.rows.shutdown(wait=False)
        self.parts.place.release()


def open_engine(
    base: Base,
    experts: Mapping[str, Path],
    client: VllmClient,
    *,
    pool: PoolLists | None = None,
    rates: Sequence[float] = (),
    controllers: Mapping[str, Controller] | None = None,
) -> VllmEngine:
    """The engine on a server that has the base and every expert as a LoRA module of its name.

    Args:
        base: For its tokenizer.
        experts: PEFT folders by name, in bank order; soups are merged from them.
        client: The connection.
        pool: Pools lists of several rows.
        rates: How fast distributions change with each coefficient, if that was measured.
        controllers: By name.

    Raises:
        FormatError: the server lacks the base or an expert.
        InvalidInputError: it is to mix rows, but has no plugin for that; or as many processes as
            were said use it already.
        ProviderError: the server fails.
    """
    settings = share_of(client.settings)
    client = replace(client, settings=settings)
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
        VllmParts(
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
            pool=pool,
            controllers=dict(controllers or {}),
            rows=ThreadPoolExecutor(settings.max_concurrent, thread_name_prefix="palate-row"),
            max_tokens=there[settings.base_name],
        )
    )
