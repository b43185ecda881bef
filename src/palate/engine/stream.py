"""Text from tokens as they come: whole characters only, and nothing past a stop string."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one answer, grown token by token."""

    def __init__(self, tokenizer: Any, *, stop: Sequence[str] = ()) -> None:
        """Start an empty answer, with a fast tokenizer of transformers or tokenizers."""
        self.text = ""
        self.is_stopped = False
        self._backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = [word for word in stop if word]
        self._held = ""

    def push(self, token: int) -> str:
        """The text that may be shown now that `token` has come."""
        self._held += self._decoder.step(self._backend, token) or ""
        for word in self._stop:
            place = self._held.find(word)
            if place >= 0:
                self._held = self._held[:place]
                self.is_stopped = True
        if self.is_stopped:
            return self.flush()
        return self._release(len(self._held) - self._overlap())

    def flush(self) -> str:
        """The text held back in case a stop string was coming."""
        return self._release(len(self._held))

    def _release(self, n_characters: int) -> str:
        piece, self._held = self._held[:n_characters], self._held[n_characters:]
        self.text += piece
        return piece

    def _overlap(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = 0
        for word in self._stop:
            for size in range(min(len(word) - 1, len(self._held)), longest, -1):
                if self._held.endswith(word[:size]):
                    longest = size
                    break
        return longest
