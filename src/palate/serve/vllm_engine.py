"""A running vLLM as the engine of a server, for `Library.serve(engine=...)`."""

from pathlib import Path
from typing import Any

from palate.engine.vllm.wire import VllmSettings
from palate.library.library import Library
from palate.serve.vllm_answers import VllmAnswers, answers_from


class VLLMEngine:
    """A running vLLM that writes the answers; see docs/engines.md for how to start one.

    Attributes:
        settings: Where it is, and how it is used.
    """

    def __init__(
        self,
        url: str,
        adapters: str | Path | None = None,
        *,
        is_rated: bool = True,
        **settings: Any,
    ) -> None:
        """Check everything that can be checked without the server.

        Args:
            url: Of the server, up to and including `/v1`.
            adapters: Folder of other folders of the same experts, where the server's base is a
                rewritten one.
            is_rated: Measure at the start what rounding of coefficients costs, so that answers can
                say it.
            **settings: Of `palate.engine.vllm.wire.VllmSettings`.

        Raises:
            InvalidInputError: a setting is unknown or out of range, or the folder holds no
                adapters.
        """
        self.settings = VllmSettings.checked({"url": url, **settings}, source="VLLMEngine")
        folder = None if adapters is None else Path(adapters)
        self._make = answers_from(self.settings, adapters=folder, is_rated=is_rated)

    def answers(self, library: Library) -> VllmAnswers:
        """What answers from the library.

        Raises:
            ProviderError: the server does not answer, or serves another base.
        """
        return self._make(library)
