"""An expert behind an OpenAI-compatible server: its next-token lists, and its own completions.

For pools a server is called once a token, for the log-probabilities of its `top_k` most probable
tokens. The rest of the distribution stays unknown, and the pool accounts for it
(`palate.engine.listed`). Servers that give no log-probabilities can still be sampled from.

Tokens come back as ids where the server can name them (vLLM), otherwise as text that is mapped
back; text that belongs to no token, or to several, counts as not listed. A server with another
tokenizer is refused: its declared tokenizer is compared, and the server itself has to count the
tokens of some texts.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from palate.core.errors import FormatError, InvalidInputError, ProviderError
from palate.core.protocols import SamplingParams
from palate.core.settings import Settings
from palate.engine.openai.connection import ID_MARK, NAMES_IDS, Connection, chunk_of
from palate.models.chat import token_ids
from palate.models.load import Base, require_same_tokenizer, tokenizer_of

Step = tuple[int, float, dict[int, float]]  # token, its log-probability, the list of probable ones

_PROBES = (  # texts whose number of tokens differs between most tokenizers
    "Once upon a time, there was a little girl named Lily.",
    "It costs 1234567 EUR (or less) - isn't that unbelievable?!",
    "Grüße aus Köln: naïve façade, 12 °C.\n\n  x = f(y) # ok",
)


class EndpointSettings(Settings):
    """One expert on one server."""

    url: str  # up to and including `/v1`
    model: str  # name on the server
    tokenizer: str | None = None  # folder or hub id of the server's, to compare with the base's
    sends: Literal["ids", "text"] = "ids"  # prompts as token ids, exact, or as text


class OpenAISettings(Settings):
    """Black-box experts and how they are used."""

    # by expert; `base` is the base, which some plans need
    endpoints: dict[str, EndpointSettings] = Field(min_length=1)
    api_key_env: str | None = None  # environment variable of the key sent with every request
    # log-probabilities requested for each row and token; 0 for servers that give none, and then
    # those of mixed answers are unknown and reported as 0
    top_k: int = Field(default=20, ge=0)
    # longest list requested when the bound is above the budget; at least `top_k`
    max_top_k: int = Field(default=0, ge=0)
    # total variation per token above which a pooled answer fails; 1 only reports it
    budget: float = Field(default=1.0, ge=0, le=1)
    skip_below: float = Field(default=0.0, ge=0, le=1)  # experts with smaller shares are not called
    on_failure: Literal["drop", "fail"] = "fail"  # leave out a failed expert, or fail the answer
    max_concurrent: int = Field(default=32, ge=1)  # answers in flight
    timeout_seconds: float = Field(default=30.0, gt=0)  # time for one attempt
    n_retries: int = Field(default=2, ge=0)  # attempts after the first, with growing pauses

    @property
    def api_key(self) -> str:
        """The key to send; InvalidInputError where its environment variable is not set."""
        if self.api_key_env is None:
            return "none"
        if self.api_key_env not in os.environ:
            raise InvalidInputError(
                f"The environment variable {self.api_key_env!r} of api_key_env is not set; set it "
                "to the endpoints' key."
            )
        return os.environ[self.api_key_env]


class Endpoint:
    """An expert on a server, in the base's token ids; ProviderError where the server fails."""

    def __init__(self, settings: EndpointSettings, base: Base, use: OpenAISettings) -> None:
        """Nothing is sent yet; `use` gives key, timeout and retries."""
        self.settings = settings
        self.name = f"{settings.model} at {settings.url}"
        self._base = base
        self._connection = Connection(
            f"The server of {self.name!r}",
            url=settings.url,
            api_key=use.api_key,
            timeout_seconds=use.timeout_seconds,
            n_retries=use.n_retries,
        )

    def require_ready(self) -> None:
        """Return when the server answers, otherwise ProviderError."""
        with self._connection.errors():
            self._connection.client.models.list()

    def require_same_tokenizer(self) -> None:
        """Return when the server's tokenizer agrees with the base's.

        Raises:
            FormatError: it does not; the message names both.
            ProviderError: the server fails.
        """
        base = self._base
        if self.settings.tokenizer is not None:
            declared = tokenizer_of(self.settings.tokenizer)
            require_same_tokenizer(
                left=(base.path, base.tokenizer_fingerprint),
                right=(self.settings.tokenizer, declared),
            )
        for text in _PROBES:
            own = len(token_ids(self._base, text, has_specials=True))
            answer = self._complete(text, max_tokens=1)
            theirs = getattr(answer.usage, "prompt_tokens", None)
            if theirs != own:
                raise FormatError(
                    f"The tokenizers of {base.path!r} and {self.name!r} differ: the text "
                    f"{text[:24]!r} has {own} tokens for one and {theirs} for the other; rows that "
                    "are pooled must share token ids."
                )

    def next_log_probs(self, context: Sequence[int], *, top_k: int) -> dict[int, float]:
        """Log-probabilities of the `top_k` most probable next tokens, by token id."""
        answer = self._complete(self._prompt(context), max_tokens=1, logprobs=top_k)
        listed: Any = answer.choices[0].logprobs
        if not any(getattr(listed, "top_logprobs", None) or []):
            raise ProviderError(
                f"The server of {self.name!r} gave no log-probabilities; start it with them, or "
                "use it as one that is only sampled from (top_k: 0)."
            )
        listed.tokens = []  # the sampled token may have no name of its own
        return chunk_of(answer.choices[0], self._by_text).tops[0]

    def sample(self, context: Sequence[int], *, seed: int) -> int:
        """The next token, sampled by the server at temperature one."""
        answer = self._complete(self._prompt(context), max_tokens=1, logprobs=1, seed=seed % 2**31)
        tokens = [token for token, _, _ in self._steps(answer.choices[0])]
        if not tokens and answer.choices[0].finish_reason == "stop":
            tokens = self._end_tokens()
        if not tokens:
            raise ProviderError(
                f"The server of {self.name!r} sampled a token without text; only servers that name "
                "token ids can be sampled from here."
            )
        return tokens[0]

    def stream(
        self, context: Sequence[int], sampling: SamplingParams, *, seed: int, n_top: int
    ) -> Iterator[Step]:
        """Tokens of a completion that the server samples, an end token included.

        Stop strings are for the reader to watch; `n_top` is 0 for servers that list nothing.
        """
        choices = self._connection.stream(
            model=self.settings.model,
            prompt=self._prompt(context),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed % 2**31,
            extra_body=NAMES_IDS,
            **({"logprobs": n_top} if n_top else {}),
        )
        token = -1
        finish: str | None = None
        for choice in choices:
            finish = choice.finish_reason or finish
            for step in self._steps(choice):
                token = step[0]
                yield step
        if finish == "stop" and token not in self._base.stop_ids:
            for end in self._end_tokens():
                yield end, 0.0, {}

    def _steps(self, choice: Any) -> Iterator[Step]:
        """The tokens of a choice: by their names, or else its text tokenized."""
        listed: Any = choice.logprobs
        names = [str(name) for name in getattr(listed, "tokens", None) or []]
        if names and all(n.startswith(ID_MARK) or n in self._by_text for n in names):
            chunk = chunk_of(choice, self._by_text)
            tops = chunk.tops or ({},) * len(names)
            log_probs = chunk.log_probs or (0.0,) * len(names)
            yield from zip(chunk.tokens, log_probs, tops, strict=True)
            return
        for token in token_ids(self._base, choice.text) if choice.text else []:
            yield token, 0.0, {}

    def _end_tokens(self) -> list[int]:
        return sorted(self._base.stop_ids)[:1]

    def _complete(self, prompt: str | list[int], **arguments: Any) -> Any:
        return self._connection.complete(
            model=self.settings.model,
            prompt=prompt,
            temperature=1.0,
            extra_body=NAMES_IDS,
            **arguments,
        )

    def _prompt(self, context: Sequence[int]) -> str | list[int]:
        if self.settings.sends == "ids":
            return [int(token) for token in context]
        start = self._base.tokenizer.bos_token_id
        own = list(context)[1:] if context and context[0] == start else list(context)
        text = str(self._base.tokenizer.decode(own, clean_up_tokenization_spaces=False))
        if token_ids(self._base, text, has_specials=True) != list(context):
            raise ProviderError(
                f"The server of {self.name!r} takes text only, and the answer so far cannot be "
                "written as text with the same tokens; use one that takes token ids."
            )
        return text

    @cached_property
    def _by_text(self) -> dict[str, int]:
        """Token by its text, for texts that belong to one token only."""
        tokenizer, owners = self._base.tokenizer, dict[str, list[int]]()
        for token in range(len(tokenizer)):
            text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
            owners.setdefault(text, []).append(token)
        return {text: tokens[0] for text, tokens in owners.items() if len(tokens) == 1}
