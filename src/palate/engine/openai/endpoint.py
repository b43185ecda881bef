"""Experts behind an OpenAI-compatible server: their next-token lists, or single draws.

A server is asked for one token at a time, with the log-probabilities of its `top_k` most probable
tokens. What it does not list stays unknown, and whoever pools the lists accounts for it
(`palate.mixture.bounds`). Servers that give no log-probabilities can still be drawn from.

Tokens come back as ids where the server can name them (vLLM), otherwise as text that is mapped
back; text that belongs to no token, or to several, counts as not listed. A server with another
tokenizer is refused: its declared tokenizer is compared, and the server itself is asked to count
the tokens of some texts.

Timeouts, connection failures and overload are tried again with growing pauses by the client; what
remains is a `ProviderError` that knows whether trying later can help.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

from openai import APIConnectionError, APIError, APIStatusError, OpenAI
from pydantic import Field

from palate.core.errors import FormatError, ProviderError
from palate.core.settings import Settings
from palate.models.load import Base, require_same_tokenizer, tokenizer_of

Result = TypeVar("Result")
_ID_MARK = "token_id:"  # vLLM's way to name tokens that have no text of their own
_PROBES = (  # texts whose number of tokens differs between most tokenizers
    "Once upon a time, there was a little girl named Lily.",
    "It costs 1234567 EUR (or less) - isn't that unbelievable?!",
    "Grüße aus Köln: naïve façade, 12 °C.\n\n  x = f(y) # ok",
)
_RETRYABLE_STATUS = 500  # this and above: the server's fault, later may be better


class EndpointSettings(Settings):
    """One expert on one server.

    Attributes:
        url: Up to and including `/v1`.
        model: Name on the server.
        api_key: Sent with every request; servers of one's own ignore it.
        tokenizer: Folder or hub id of the server's tokenizer, compared with the base's if given.
        top_k: How many log-probabilities to ask for; 0 is a server that gives none.
        sends: The prompt as token ids (exact) or as text (for servers that take no ids).
        timeout_seconds: Of one attempt.
        n_retries: Attempts after the first, with growing pauses.
    """

    url: str
    model: str
    api_key: str = "none"
    tokenizer: str | None = None
    top_k: int = Field(default=20, ge=0)
    sends: Literal["ids", "text"] = "ids"
    timeout_seconds: float = Field(default=30.0, gt=0)
    n_retries: int = Field(default=2, ge=0)


@dataclass(frozen=True)
class Drawn:
    """Tokens that a server drew by itself.

    Attributes:
        tokens: Their ids; at least one.
    """

    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EndpointExpert:
    """An expert on a server, in the base's token ids.

    Attributes:
        settings: Where it is.
        base: Whose tokenizer everybody shares.
        client: The connection; made from the settings by `connect`.
    """

    settings: EndpointSettings
    base: Base
    client: OpenAI = field(repr=False)

    @property
    def name(self) -> str:
        """Model and server, for messages."""
        return f"{self.settings.model} at {self.settings.url}"

    def require_same_tokenizer(self) -> None:
        """Return when the server reads texts as the base's tokenizer does.

        Raises:
            FormatError: it does not; the message names both.
            ProviderError: the server fails.
        """
        for text in _PROBES:
            own = len(self._ids(text))
            answer = self._call(lambda text=text: self._create(text, n_tokens=1))
            found = getattr(answer.usage, "prompt_tokens", None)
            if found != own:
                raise FormatError(
                    f"The tokenizers of {self.base.path!r} and {self.name!r} differ: the text "
                    f"{text[:24]!r} has {own} tokens for one and {found} for the other; rows that "
                    "are pooled must share token ids."
                )

    def next_log_probs(
        self, context: Sequence[int], *, top_k: int | None = None
    ) -> dict[int, float]:
        """Log-probabilities of the most probable next tokens, by token id.

        Args:
            context: Token ids so far; at least one.
            top_k: How many to ask for instead of the settings' number.

        Raises:
            ProviderError: the server fails, or gives no log-probabilities.
        """
        n_listed = top_k or self.settings.top_k
        answer = self._call(
            lambda: self._create(self._prompt(context), n_tokens=1, n_listed=n_listed)
        )
        listed: Any = answer.choices[0].logprobs
        tops = getattr(listed, "top_logprobs", None)
        if not tops:
            raise ProviderError(
                f"The server of {self.name!r} gave no log-probabilities; start it with them, or "
                "use it as one that only draws (top_k: 0)."
            )
        return self._by_id(tops[0])

    def draw(self, context: Sequence[int], *, n_tokens: int, seed: int) -> Drawn:
        """Tokens that the server draws from its own distribution at temperature one.

        Raises:
            ProviderError: the server fails, or what it drew cannot be read as tokens.
        """
        answer = self._call(
            lambda: self._create(
                self._prompt(context), n_tokens=n_tokens, n_listed=1, seed=seed % 2**31
            )
        )
        choice: Any = answer.choices[0]
        names = getattr(choice.logprobs, "tokens", None)
        if names and all(str(name).startswith(_ID_MARK) for name in names):
            return Drawn(tuple(int(str(name).removeprefix(_ID_MARK)) for name in names))
        ids = self._ids(choice.text, has_specials=False)[:n_tokens] if choice.text else []
        if choice.finish_reason == "stop" and len(ids) < n_tokens:
            ids = [*ids, *sorted(self.base.stop_ids)[:1]]
        if not ids:
            raise ProviderError(
                f"The server of {self.name!r} drew a token without text; only servers that name "
                "token ids can be drawn from here."
            )
        return Drawn(tuple(ids))

    def _create(
        self, prompt: str | list[int], *, n_tokens: int, n_listed: int = 0, seed: int | None = None
    ) -> Any:
        extra: dict[str, Any] = {"return_tokens_as_token_ids": True}
        if n_listed:
            extra["logprobs"] = n_listed
        if seed is not None:
            extra["seed"] = seed
        return self.client.completions.create(
            model=self.settings.model,
            prompt=prompt,
            max_tokens=n_tokens,
            temperature=1.0,
            extra_body=extra,
        )

    def _call(self, ask: Callable[[], Result]) -> Result:
        try:
            return ask()
        except APIStatusError as error:
            raise ProviderError(
                f"The server of {self.name!r} refused the request with status "
                f"{error.status_code} ({_reason(error)}).",
                is_retryable=error.status_code >= _RETRYABLE_STATUS or error.status_code == 429,
            ) from error
        except APIConnectionError as error:  # a timeout is one, too
            raise ProviderError(
                f"The server of {self.name!r} did not answer within "
                f"{self.settings.timeout_seconds:g} seconds in {self.settings.n_retries + 1} "
                f"attempts ({_reason(error)}); start it or give it more time.",
                is_retryable=True,
            ) from error
        except APIError as error:
            raise ProviderError(
                f"The server of {self.name!r} gave an answer that cannot be read "
                f"({_reason(error)})."
            ) from error

    def _prompt(self, context: Sequence[int]) -> str | list[int]:
        if self.settings.sends == "ids":
            return [int(token) for token in context]
        start = self.base.tokenizer.bos_token_id
        own = list(context)[1:] if context and context[0] == start else list(context)
        text = str(self.base.tokenizer.decode(own, clean_up_tokenization_spaces=False))
        if self._ids(text) != list(context):
            raise ProviderError(
                f"The server of {self.name!r} takes text only, and the answer so far cannot be "
                "written as text that is read as the same tokens; use one that takes token ids."
            )
        return text

    def _ids(self, text: str, *, has_specials: bool = True) -> list[int]:
        found: Any = self.base.tokenizer(text, add_special_tokens=has_specials)["input_ids"]
        return [int(token) for token in found]

    def _by_id(self, listed: Mapping[str, float]) -> dict[int, float]:
        found: dict[int, float] = {}
        for name, log_prob in listed.items():
            if name.startswith(_ID_MARK):
                found[int(name.removeprefix(_ID_MARK))] = float(log_prob)
            elif (token := self._by_text.get(name)) is not None:
                found[token] = float(log_prob)
        return found

    @cached_property
    def _by_text(self) -> dict[str, int]:
        """Token by its text, for texts that belong to one token only."""
        owners: dict[str, list[int]] = {}
        for token in range(len(self.base.tokenizer)):
            text = str(self.base.tokenizer.decode([token], clean_up_tokenization_spaces=False))
            owners.setdefault(text, []).append(token)
        return {text: tokens[0] for text, tokens in owners.items() if len(tokens) == 1}


def connect(settings: EndpointSettings, base: Base) -> EndpointExpert:
    """The expert, after its tokenizer has been compared with the base's.

    Raises:
        FormatError: the tokenizers differ; the message names both.
        ProviderError: the server fails.
    """
    if settings.tokenizer is not None:
        declared = tokenizer_of(settings.tokenizer)
        require_same_tokenizer(
            left=(base.path, base.tokenizer_fingerprint), right=(settings.tokenizer, declared)
        )
    client = OpenAI(
        base_url=settings.url,
        api_key=settings.api_key,
        timeout=settings.timeout_seconds,
        max_retries=settings.n_retries,
    )
    expert = EndpointExpert(settings, base, client)
    expert.require_same_tokenizer()
    return expert


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] or type(error).__name__
