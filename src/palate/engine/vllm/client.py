"""The requests to a running vLLM: completions with token ids, and adapters loaded at run time.

vLLM speaks the OpenAI protocol and a little more: prompts as token ids, tokens named by id, and two
endpoints that load and unload LoRA adapters (`VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`). Nothing of vLLM
is imported: its pins differ from ours, so it runs in an environment of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from palate.core.errors import InvalidInputError, ProviderError, UnknownModelError
from palate.core.protocols import SamplingParams
from palate.core.settings import Settings
from palate.engine.openai.connection import NAMES_IDS, ChoiceStream, Connection, chunk_of
from palate.engine.vllm.groups import PROBE, PROTOCOL

_ALIVE_SECONDS = 5.0  # time in which a healthy server says so


class VllmSettings(Settings):
    """A running vLLM and how it is used."""

    url: str  # up to and including `/v1`
    base_name: str = "base"  # its name on the server (`--served-model-name`)
    # serve the base as an adapter of zeros, at the cost of a slot; vLLM 0.32.0 on CPUs may else
    # give it another user's adapter (docs/engines.md)
    base_as_adapter: bool = True
    # folder of the experts as a server with a rewritten base has them; `None`: the library's own
    server_experts: Path | None = None
    # measure at the start how distributions change with coefficients, for a bound on rounding
    is_rated: bool = True
    adapters_folder: Path = Path("adapters")  # of merged soups; the server reads the same path
    # processes that use the server with this folder, the same in each. Every one has a place there
    # (`palate.engine.vllm.adapters`) and its share of max_adapters and max_concurrent
    n_processes: int = Field(default=1, ge=1)
    # soups loaded at a time; then the least recently used one is evicted. With the experts no more
    # than the server's `--max-cpu-loras`, or it loads from disk again
    max_adapters: int = Field(default=8, ge=1)
    max_lora_rank: int = Field(default=64, ge=1)  # as the server's; larger soups are refused
    # soups' coefficients are multiples of it, so that users share adapters; 0 is exact
    coefficient_step: float = Field(default=0.05, ge=0)
    # who samples the tokens of plans with one row: the server (one call an answer), or this process
    # (one call a token, and then the tokens of the local engine)
    draws: Literal["server", "own"] = "server"
    # where several rows are pooled: here from lists, one call a row and token, or inside the server
    # by palate's plugin, one call a row. What the plugin cannot do (controllers, truncated
    # sampling, log-linear pools without whole lists) is pooled here all the same
    pools: Literal["lists", "server"] = "lists"
    # log-probabilities requested where rows are pooled or tokens sampled here
    top_k: int = Field(default=20, ge=1)
    # longest list when the bound is above the budget; the server's `--max-logprobs` must allow it
    max_top_k: int = Field(default=20, ge=1)
    # total variation per token above which a pooled answer fails
    budget: float = Field(default=0.05, ge=0, le=1)
    max_concurrent: int = Field(default=32, ge=1)  # answers in flight
    api_key: str = "none"  # sent with every request
    timeout_seconds: float = Field(default=60.0, gt=0)  # time for one attempt
    n_retries: int = Field(default=2, ge=0)  # attempts after the first, with growing pauses


@dataclass(frozen=True)
class RowRequest:
    """One row of an answer, to be written by the server."""

    model: str  # the server's name of the base or an adapter
    prompt: Sequence[int]  # token ids
    sampling: SamplingParams
    seed: int  # of the server's generator
    stop_ids: Sequence[int]  # tokens that end it
    n_top: int  # log-probabilities to list for each token
    bias: Mapping[int, float] = field(default_factory=dict[int, float])  # added to logits, by token
    xargs: Mapping[str, Any] = field(default_factory=dict[str, Any])  # for the server's plugins
    scope: str = ""  # whose prefix cache may be used (`cache_salt`); empty is everybody's


class VllmClient:
    """A connection to a vLLM; ProviderError where it fails, also for a model that it lacks."""

    def __init__(self, settings: VllmSettings) -> None:
        """Nothing is sent yet."""
        self.settings = settings
        self.connection = Connection(
            f"The server {settings.url!r}",
            url=settings.url,
            api_key=settings.api_key,
            timeout_seconds=settings.timeout_seconds,
            n_retries=settings.n_retries,
        )

    def models(self) -> dict[str, int | None]:
        """The context length of the base and of every adapter on the server, by name.

        `None` where the server does not say.
        """
        with self.connection.errors():
            listed: Any = self.connection.client.models.list()
            return {model.id: getattr(model, "max_model_len", None) for model in listed}

    def require_alive(self) -> None:
        """Return when the server says within seconds that it works, otherwise ProviderError."""
        root = self.settings.url.rstrip("/").removesuffix("/v1")
        client = self.connection.client.with_options(timeout=_ALIVE_SECONDS, max_retries=0)
        with self.connection.errors():
            client.get(f"{root}/health", cast_to=str)

    def require_groups(self) -> None:
        """Return when the server has palate's plugin, which pools groups of rows.

        vLLM without it ignores a request's group, so a probe that only the plugin refuses is sent.

        Raises:
            InvalidInputError: there is no plugin, or another version of it.
            ProviderError: the server fails.
        """
        try:
            self.connection.complete(
                model=self.settings.base_name,
                prompt=[0],
                max_tokens=1,
                extra_body={"vllm_xargs": PROBE},
            )
        except ProviderError as error:
            if PROTOCOL in str(error):
                return
            raise
        raise InvalidInputError(
            f"The server {self.settings.url!r} has no plugin that mixes groups of rows "
            f"({PROTOCOL}); install palate in its environment with pip install --no-deps, or set "
            "pools: lists."
        )

    def stream(self, row: RowRequest) -> ChoiceStream:
        """Choices for `chunk_of` as the server samples them; closing ends the work there, too."""
        sampling = row.sampling
        extra: dict[str, Any] = {
            "top_k": sampling.top_k or -1,
            "stop_token_ids": list(row.stop_ids),
            "add_special_tokens": False,
            **NAMES_IDS,
            **_salt(row.scope),
            **({"vllm_xargs": dict(row.xargs)} if row.xargs else {}),
        }
        return self.connection.stream(
            model=row.model,
            prompt=list(row.prompt),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=list(sampling.stop) or None,
            seed=row.seed % 2**31,
            logprobs=max(1, row.n_top),
            logit_bias={str(token): int(by) for token, by in row.bias.items()},
            extra_body=extra,
        )

    def next_log_probs(
        self, model: str, context: Sequence[int], *, top_k: int, scope: str = ""
    ) -> dict[int, float]:
        """Log-probabilities of the `top_k` most probable next tokens, by id."""
        answer = self.connection.complete(
            model=model,
            prompt=list(context),
            max_tokens=1,
            temperature=1.0,
            logprobs=top_k,
            extra_body={**NAMES_IDS, **_salt(scope)},
        )
        tops = chunk_of(answer.choices[0]).tops
        if not tops:
            raise ProviderError(
                f"The server {self.settings.url!r} gave no log-probabilities; start it with "
                f"--max-logprobs {top_k}."
            )
        return tops[0]

    def load(self, name: str, folder: Path) -> None:
        """Have the server load an adapter from this folder, even if it has one of this name.

        Another process may have loaded that from a folder that no longer exists, and vLLM, which
        reads adapters again when it has to, dies of a missing folder.

        Raises:
            ProviderError: it cannot, or does not let adapters be loaded at run time.
        """
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        try:
            self._post("/load_lora_adapter", body)
        except ProviderError as error:
            if "already" not in str(error):
                raise
            self.unload(name)
            self._post("/load_lora_adapter", body)

    def unload(self, name: str) -> None:
        """Have the server forget an adapter; an unknown one is no error."""
        try:
            self._post("/unload_lora_adapter", {"lora_name": name})
        except UnknownModelError:
            return

    def _post(self, path: str, body: Mapping[str, str]) -> None:
        try:
            with self.connection.errors():
                self.connection.client.post(path, body=dict(body), cast_to=str)
        except UnknownModelError as error:
            if "lora" in str(error).lower():
                raise
            raise ProviderError(
                f"The server {self.settings.url!r} loads no adapters at run time; start it with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora."
            ) from error


def _salt(scope: str) -> dict[str, str]:
    return {"cache_salt": scope} if scope else {}
