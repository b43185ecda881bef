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

from openai import APIConnectionError, APIError, APIStatusError, OpenAI
from pydantic import Field

from palate.core.errors import ProviderError
from palate.core.protocols import Sampling
from palate.core.settings import Settings

_ID_MARK = "token_id:"  # asked for by `return_tokens_as_token_ids`
_NOT_FOUND = 404
_TOO_MANY = 429
_SERVER_FAULT = 500  # this and above: later may be better


class VllmSettings(Settings):
    """A running vLLM and how it is used.

    Attributes:
        url: Up to and including `/v1`.
        base_name: The base's name on the server (`--served-model-name`).
        base_as_adapter: Serve the base as an adapter that changes nothing. vLLM's CPU kernels (seen
            in 0.32.0) otherwise give base requests another person's adapter when both are in one
            batch and all adapter slots are taken; it costs one slot.
        adapters_folder: Where merged soups are written; the server must read it by the same path.
        max_adapters: Soups loaded at a time; beyond it the least recently used one goes. With the
            experts no more than the server's `--max-cpu-loras`, or it loads from disk again.
        max_lora_rank: The server's `--max-lora-rank`; larger soups are refused.
        coefficient_step: Soups' coefficients are rounded to multiples of it, so that people share
            adapters; 0 gives every person their own exact one.
        draws: Who draws the tokens of plans with one row: the server (one call an answer), or we
            (one call a token, and then the tokens of the in-process engine).
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
    max_adapters: int = Field(default=8, ge=1)
    max_lora_rank: int = Field(default=64, ge=1)
    coefficient_step: float = Field(default=0.05, ge=0)
    draws: Literal["server", "own"] = "server"
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
class Piece:
    """Some tokens of a stream.

    Attributes:
        tokens: Their ids.
        log_probs: Of each, before temperature and truncation.
        tops: Per token, the listed log-probabilities by id.
        finish: `stop` or `length` with the last one, otherwise `None`.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    tops: tuple[dict[int, float], ...]
    finish: str | None


@dataclass(frozen=True, eq=False)
class VllmClient:
    """A connection.

    Attributes:
        settings: Where, and how patiently.
        client: Made from the settings by `connect_client`.
    """

    settings: VllmSettings
    client: OpenAI = field(repr=False)

    def models(self) -> tuple[str, ...]:
        """Names of the base and of all adapters that the server has now.

        Raises:
            ProviderError: the server fails.
        """
        with self._told():
            return tuple(model.id for model in self.client.models.list())

    def stream(
        self,
        model: str,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        seed: int,
        stop_ids: Sequence[int],
        n_top: int,
    ) -> Iterator[Piece]:
        """Tokens as the server draws them; leaving the loop early ends the work there, too.

        Raises:
            ProviderError: the server fails.
            UnknownModel: it has no such model.
        """
        with self._told():
            answer = self.client.completions.create(
                model=model,
                prompt=list(prompt),
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop=list(sampling.stop) or None,
                seed=seed % 2**31,
                logprobs=max(1, n_top),
                stream=True,
                extra_body={
                    "top_k": sampling.top_k or -1,
                    "stop_token_ids": list(stop_ids),
                    "return_tokens_as_token_ids": True,
                    "add_special_tokens": False,
                },
            )
            try:
                for chunk in answer:
                    if chunk.choices:
                        yield _piece(chunk.choices[0])
            finally:
                answer.close()

    def next_log_probs(self, model: str, context: Sequence[int], *, top_k: int) -> dict[int, float]:
        """Log-probabilities of the `top_k` most probable next tokens, by id.

        Raises:
            ProviderError: the server fails.
            UnknownModel: it has no such model.
        """
        with self._told():
            answer = self.client.completions.create(
                model=model,
                prompt=list(context),
                max_tokens=1,
                temperature=1.0,
                logprobs=top_k,
                extra_body={"return_tokens_as_token_ids": True},
            )
            found = _piece(answer.choices[0])
        if not found.tops:
            raise ProviderError(
                f"The server {self.settings.url!r} gave no log-probabilities; start it with "
                f"--max-logprobs {top_k}."
            )
        return found.tops[0]

    def load(self, name: str, folder: Path) -> None:
        """Have the server load an adapter; one that it has already is no error.

        Raises:
            ProviderError: it cannot, or does not let adapters be loaded at run time.
        """
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        try:
            self._post("/load_lora_adapter", body)
        except ProviderError as error:
            if "already" not in str(error):
                raise

    def unload(self, name: str) -> None:
        """Have the server forget an adapter; one that it has not is no error."""
        try:
            self._post("/unload_lora_adapter", {"lora_name": name})
        except UnknownModel:
            return

    def _post(self, path: str, body: Mapping[str, str]) -> None:
        try:
            with self._told():
                self.client.post(path, body=dict(body), cast_to=str)
        except UnknownModel as error:
            if "lora" in str(error).lower():
                raise
            raise ProviderError(
                f"The server {self.settings.url!r} loads no adapters at run time; start it with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora."
            ) from error

    @contextmanager
    def _told(self) -> Generator[None]:
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


def _piece(choice: Any) -> Piece:
    listed: Any = choice.logprobs
    names = list(getattr(listed, "tokens", None) or [])
    if any(not str(name).startswith(_ID_MARK) for name in names):
        raise ProviderError(
            f"The server named the token {names[0]!r} by text, not by id; only vLLM and servers "
            "that know return_tokens_as_token_ids can be used."
        )
    return Piece(
        tokens=tuple(_id(name) for name in names),
        log_probs=tuple(float(value) for value in getattr(listed, "token_logprobs", None) or []),
        tops=tuple(
            {_id(name): float(value) for name, value in top.items()}
            for top in getattr(listed, "top_logprobs", None) or []
        ),
        finish=choice.finish_reason,
    )


def _id(name: str) -> int:
    return int(name.removeprefix(_ID_MARK))


def _unknown(error: Exception) -> UnknownModel:
    return UnknownModel(_reason(error))


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300] or type(error).__name__
