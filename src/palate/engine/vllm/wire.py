"""What is said to a running vLLM: completions with token ids, and adapters loaded at run time.

vLLM speaks the OpenAI protocol and a little more: prompts as token ids, tokens named by id, and two
endpoints that load and unload LoRA adapters (`VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`). Nothing of vLLM
is imported: its pins differ from ours, so it lives in an environment of its own.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openai import APIConnectionError, APIError, APIStatusError, OpenAI, Stream
from openai.types import Completion as Chunk
from pydantic import Field

from palate.core.errors import InvalidInputError, PalateError, ProviderError
from palate.core.protocols import SamplingParams
from palate.core.settings import Settings
from palate.engine.vllm.groups import PROBE, PROTOCOL
from palate.engine.vllm.pieces import Piece, piece_of

_NOT_FOUND = 404
_TOO_MANY = 429
_ALIVE_SECONDS = 5.0  # in which a server says that it is there
_SERVER_FAULT = 500  # this and above: later may be better


class VllmSettings(Settings):
    """A running vLLM and how it is used.

    Attributes:
        url: Up to and including `/v1`.
        base_name: The base's name on the server (`--served-model-name`).
        base_as_adapter: Serve the base as an adapter of zeros, at the cost of a slot; vLLM 0.32.0
            on CPUs may else give it another user's adapter (docs/engines.md).
        adapters_folder: Where merged soups are written; the server must read it by the same path.
        n_processes: That use the server with this folder, the same in each. Every one has a place
            there (`palate.engine.vllm.place`) and its share of max_adapters and max_concurrent.
        max_adapters: Soups loaded at a time; then the least recently used one goes. With the
            experts no more than the server's `--max-cpu-loras`, or it loads from disk again.
        max_lora_rank: The server's `--max-lora-rank`; larger soups are refused.
        coefficient_step: Soups' coefficients are rounded to multiples of it, so that users share
            adapters; 0 gives every user their own exact one.
        draws: Who draws the tokens of plans with one row: the server (one call an answer), or we
            (one call a token, and then the tokens of the in-process engine).
        pools: Where several rows are pooled: here from lists, one call a row and token, or inside
            the server by palate's plugin, one call a row. What the plugin cannot do (controllers,
            truncated draws, log-linear pools without whole lists) is pooled here all the same.
        top_k: Log-probabilities asked for where rows are pooled or tokens drawn here.
        max_top_k: Longest list asked for when the bound is above the budget; the server's
            `--max-logprobs` must allow it.
        budget: Total variation per token above which a pooled answer fails.
        max_concurrent: Answers in flight.
        api_key: Sent with every request.
        timeout_seconds: Of one attempt.
        n_retries: Attempts after the first, with growing pauses.
    """

    url: str
    base_name: str = "base"
    base_as_adapter: bool = True
    adapters_folder: Path = Path("adapters")
    n_processes: int = Field(default=1, ge=1)
    max_adapters: int = Field(default=8, ge=1)
    max_lora_rank: int = Field(default=64, ge=1)
    coefficient_step: float = Field(default=0.05, ge=0)
    draws: Literal["server", "own"] = "server"
    pools: Literal["lists", "server"] = "lists"
    top_k: int = Field(default=20, ge=1)
    max_top_k: int = Field(default=20, ge=1)
    budget: float = Field(default=0.05, ge=0, le=1)
    max_concurrent: int = Field(default=32, ge=1)
    api_key: str = "none"
    timeout_seconds: float = Field(default=60.0, gt=0)
    n_retries: int = Field(default=2, ge=0)


class UnknownModel(Exception):  # noqa: N818 - never leaves the models/vllm_* files
    """The server knows no model of this name; it may have been restarted."""


@dataclass(frozen=True)
class RowAsked:
    """One row of an answer, to be written by the server.

    Attributes:
        model: The server's name of the base or an adapter.
        prompt: Token ids.
        sampling: How tokens are drawn.
        seed: Of the server's generator.
        stop_ids: Tokens that end it.
        n_top: Log-probabilities to list for each token.
        bias: Added to logits, by token.
        xargs: For plugins of the server.
        scope: Whose prompts' cached states may be used (`cache_salt`); empty is everybody's.
    """

    model: str
    prompt: Sequence[int]
    sampling: SamplingParams
    seed: int
    stop_ids: Sequence[int]
    n_top: int
    bias: Mapping[int, float] = field(default_factory=dict[int, float])
    xargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scope: str = ""


@dataclass(frozen=True, eq=False)
class VllmClient:
    """A connection.

    Attributes:
        settings: Where, and how patiently.
        client: Made from the settings by `connect_client`.
    """

    settings: VllmSettings
    client: OpenAI = field(repr=False)

    def models(self) -> dict[str, int | None]:
        """The base and all adapters that the server has now, by name.

        Values are the most tokens of prompt and answer together, where the server says.

        Raises:
            ProviderError: the server fails.
        """
        with self.told():
            return {model.id: _max_tokens(model) for model in self.client.models.list()}

    def require_alive(self) -> None:
        """Return when the server says that it works.

        Raises:
            ProviderError: it does not within a few seconds, or says that its engine is dead.
        """
        root = self.settings.url.rstrip("/").removesuffix("/v1")
        patient = self.client.with_options(timeout=_ALIVE_SECONDS, max_retries=0)
        with self.told():
            patient.get(f"{root}/health", cast_to=str)

    def require_groups(self) -> None:
        """Return when the server has palate's plugin, which mixes groups of rows.

        Without it vLLM ignores what a request says of its group, so a probe that only the plugin
        refuses is sent first.

        Raises:
            InvalidInputError: there is no plugin, or another version of it.
            ProviderError: the server fails.
        """
        try:
            with self.told():
                self.client.completions.create(
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

    def stream(self, asked: "RowAsked") -> "Pieces":
        """Tokens as the server draws them, asked for at once; closing ends the work there, too.

        Raises:
            ProviderError: the server fails.
            UnknownModel: it has no such model.
        """
        sampling = asked.sampling
        extra: dict[str, Any] = {
            "top_k": sampling.top_k or -1,
            "stop_token_ids": list(asked.stop_ids),
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
            **_salt(asked.scope),
            **({"vllm_xargs": dict(asked.xargs)} if asked.xargs else {}),
        }
        with self.told():
            return Pieces(
                self,
                self.client.completions.create(
                    model=asked.model,
                    prompt=list(asked.prompt),
                    max_tokens=sampling.max_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    stop=list(sampling.stop) or None,
                    seed=asked.seed % 2**31,
                    logprobs=max(1, asked.n_top),
                    logit_bias={str(token): int(by) for token, by in asked.bias.items()},
                    stream=True,
                    extra_body=extra,
                ),
            )

    def next_log_probs(
        self, model: str, context: Sequence[int], *, top_k: int, scope: str = ""
    ) -> dict[int, float]:
        """Log-probabilities of the `top_k` most probable next tokens, by id.

        Raises:
            ProviderError: the server fails.
            UnknownModel: it has no such model.
        """
        with self.told():
            answer = self.client.completions.create(
                model=model,
                prompt=list(context),
                max_tokens=1,
                temperature=1.0,
                logprobs=top_k,
                extra_body={"return_tokens_as_token_ids": True, **_salt(scope)},
            )
            found = piece_of(answer.choices[0])
        if not found.tops:
            raise ProviderError(
                f"The server {self.settings.url!r} gave no log-probabilities; start it with "
                f"--max-logprobs {top_k}."
            )
        return found.tops[0]

    def load(self, name: str, folder: Path) -> None:
        """Have the server load an adapter from this folder, also where it has one of this name.

        Another process may have loaded that from a folder that is gone by now, and vLLM, which
        reads adapters again when it has to, dies of a folder that is missing.

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
        """Have the server forget an adapter; one that it has not is no error."""
        try:
            self._post("/unload_lora_adapter", {"lora_name": name})
        except UnknownModel:
            return

    def _post(self, path: str, body: Mapping[str, str]) -> None:
        try:
            with self.told():
                self.client.post(path, body=dict(body), cast_to=str)
        except UnknownModel as error:
            if "lora" in str(error).lower():
                raise
            raise ProviderError(
                f"The server {self.settings.url!r} loads no adapters at run time; start it with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora."
            ) from error

    @contextmanager
    def told(self) -> Generator[None]:
        """Failures of the connection as errors of ours."""
        url = self.settings.url
        try:
            yield
        except APIStatusError as error:
            if error.status_code == _NOT_FOUND:
                raise _unknown(error) from error
            raise ProviderError(
                f"The server {url!r} refused a request with status {error.status_code} "
                f"({_reason(error)}).",
                is_retryable=error.status_code >= _SERVER_FAULT or error.status_code == _TOO_MANY,
            ) from error
        except APIConnectionError as error:  # a timeout is one, too
            raise ProviderError(
                f"The server {url!r} did not answer within {self.settings.timeout_seconds:g} "
                f"seconds in {self.settings.n_retries + 1} attempts ({_reason(error)}); start it "
                "or give it more time.",
                is_retryable=True,
            ) from error
        except APIError as error:
            raise ProviderError(
                f"The server {url!r} gave an answer that cannot be read ({_reason(error)}).",
                is_retryable=True,
            ) from error


@dataclass(frozen=True, eq=False)
class Pieces:
    """An answer that the server is writing.

    Attributes:
        client: Whose.
        answer: The open connection.
    """

    client: VllmClient
    answer: "Stream[Chunk]"

    def __iter__(self) -> Iterator[Piece]:
        """Its pieces as they come; leaving the loop closes it.

        Raises:
            ProviderError: the server fails.
        """
        try:
            with self.client.told():
                yield from self._read()
        finally:
            self.close()

    def _read(self) -> Iterator[Piece]:
        try:
            for chunk in self.answer:
                if chunk.choices:
                    yield piece_of(chunk.choices[0])
        except PalateError:
            raise
        except Exception as error:  # some versions of openai hand on what their transport raises
            if isinstance(error, APIError) and not isinstance(error, APIConnectionError):
                raise
            raise ProviderError(
                f"The server {self.client.settings.url!r} went away or fell silent in the middle "
                f"of an answer ({_reason(error)}); ask again when it is back.",
                is_retryable=True,
            ) from error

    def close(self) -> None:
        """Read no further; the server stops writing."""
        self.answer.close()


def connect_client(settings: VllmSettings) -> VllmClient:
    """A connection with the settings' address and patience; nothing is sent yet."""
    return VllmClient(
        settings,
        OpenAI(
            base_url=settings.url,
            api_key=settings.api_key,
            timeout=settings.timeout_seconds,
            max_retries=settings.n_retries,
        ),
    )


def _salt(scope: str) -> dict[str, str]:
    return {"cache_salt": scope} if scope else {}


def _max_tokens(model: Any) -> int | None:
    found = getattr(model, "max_model_len", None)  # vLLM's own
    return None if found is None else int(found)


def _unknown(error: Exception) -> UnknownModel:
    return UnknownModel(_reason(error))


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300] or type(error).__name__
