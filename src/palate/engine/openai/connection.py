"""A connection to an OpenAI-compatible server, whose failures are errors of ours.

Timeouts, connection failures and overload are tried again with growing pauses by OpenAI's client;
the rest is a `ProviderError` that knows whether trying later can help.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openai import APIConnectionError, APIError, APIStatusError, OpenAI, Stream

from palate.core.errors import PalateError, ProviderError, UnknownModelError

ID_MARK = "token_id:"  # before a token's id, asked for by `return_tokens_as_token_ids`
NAMES_IDS = {"return_tokens_as_token_ids": True}
_NOT_FOUND = 404
_TOO_MANY = 429
_SERVER_FAULT = 500  # this and above: later may be better


class Connection:
    """A connection; nothing is sent before the first call. ProviderError where the server fails."""

    def __init__(
        self, who: str, *, url: str, api_key: str, timeout_seconds: float, n_retries: int
    ) -> None:
        """Make the client; `who` is the server as messages name it."""
        self.who = who
        self.client = OpenAI(
            base_url=url, api_key=api_key, timeout=timeout_seconds, max_retries=n_retries
        )
        self._patience = f"{timeout_seconds:g} seconds in {n_retries + 1} attempts"

    def complete(self, **arguments: Any) -> Any:
        """The completion of one request."""
        with self.errors():
            return _as_lists(self.client.completions.create(**arguments))

    def stream(self, **arguments: Any) -> "ChoiceStream":
        """A completion that the server streams, requested at once."""
        with self.errors():
            return ChoiceStream(self, self.client.completions.create(**arguments, stream=True))

    @contextmanager
    def errors(self) -> Generator[None]:
        """Translate failures of the connection to `ProviderError`."""
        try:
            yield
        except APIStatusError as error:
            status = error.status_code
            kind = UnknownModelError if status == _NOT_FOUND else ProviderError
            raise kind(
                f"{self.who} refused a request with status {status} ({_reason(error)}).",
                is_retryable=status >= _SERVER_FAULT or status == _TOO_MANY,
            ) from error
        except APIConnectionError as error:  # a timeout is one, too
            raise ProviderError(
                f"{self.who} cannot be reached or did not answer within {self._patience} "
                f"({_reason(error)}); start it or give it more time.",
                is_retryable=True,
            ) from error
        except APIError as error:
            raise ProviderError(
                f"{self.who} gave an answer that cannot be read ({_reason(error)}).",
                is_retryable=True,
            ) from error


@dataclass(frozen=True, eq=False)
class ChoiceStream:
    """The choices of a completion that a server is streaming."""

    connection: Connection
    stream: "Stream[Any]"

    def __iter__(self) -> Iterator[Any]:
        """Choices as they come; leaving the loop closes the stream."""
        try:
            with self.connection.errors():
                yield from self._read()
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading; the server stops writing."""
        self.stream.close()

    def _read(self) -> Iterator[Any]:
        try:
            for chunk in self.stream:
                if chunk.choices:
                    yield _as_lists(chunk).choices[0]
        except PalateError:
            raise
        except Exception as error:  # some versions of openai hand on what their transport raises
            if isinstance(error, APIError) and not isinstance(error, APIConnectionError):
                raise
            raise ProviderError(
                f"{self.connection.who} went away or fell silent in the middle of an answer "
                f"({_reason(error)}); ask again when it is back.",
                is_retryable=True,
            ) from error


@dataclass(frozen=True)
class CompletionChunk:
    """Some tokens of a completion."""

    tokens: tuple[int, ...]  # their ids
    log_probs: tuple[float, ...]  # of each, before temperature and truncation
    tops: tuple[dict[int, float], ...]  # per token, the listed log-probabilities by id
    finish: str | None  # `stop` or `length` with the last one, otherwise `None`


def chunk_of(choice: Any, by_text: Mapping[str, int] | None = None) -> CompletionChunk:
    """The tokens of a choice of a completion, or of a chunk of one.

    `by_text` is for servers that do not name ids; texts that are missing there count as not listed.

    Raises:
        ProviderError: the id of a token is unknown.
    """
    listed: Any = choice.logprobs
    names = [str(name) for name in getattr(listed, "tokens", None) or []]
    ids = [_token_id(name, by_text) for name in names]
    tokens = tuple(token for token in ids if token is not None)
    if len(tokens) < len(names):
        raise ProviderError(
            f"The server named the token {names[ids.index(None)]!r} by text, not by id; use vLLM "
            "or another server that knows return_tokens_as_token_ids."
        )
    return CompletionChunk(
        tokens,
        tuple(float(value) for value in getattr(listed, "token_logprobs", None) or []),
        tuple(
            {
                token: float(value)
                for name, value in top.items()
                if (token := _token_id(name, by_text)) is not None
            }
            for top in getattr(listed, "top_logprobs", None) or []
        ),
        choice.finish_reason,
    )


def _as_lists(answer: Any) -> Any:
    """Log-probabilities in the form of chats with ids (llama.cpp), in that of completions."""
    for choice in answer.choices:
        listed: Any = choice.logprobs
        rows: Any = getattr(listed, "content", None) or []
        if rows and "id" in rows[0]:
            tops = [row.get("top_logprobs") or [] for row in rows]
            listed.tokens = [f"{ID_MARK}{row['id']}" for row in rows]
            listed.token_logprobs = [row["logprob"] for row in rows]
            listed.top_logprobs = [
                {f"{ID_MARK}{o['id']}": o["logprob"] for o in top} for top in tops
            ]
    return answer


def _token_id(name: str, by_text: Mapping[str, int] | None) -> int | None:
    if name.startswith(ID_MARK):
        return int(name.removeprefix(ID_MARK))
    return None if by_text is None else by_text.get(name)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300] or type(error).__name__
