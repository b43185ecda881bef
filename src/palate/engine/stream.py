"""Text from tokens as they come: whole characters only, and nothing past a stop string.

A text can only be shown once no later token changes it. A token may end in the middle of a
character, and tokenizers with a token per byte (`<0xE2>`: Llama 2, Mistral, Gemma) make a run of
such tokens one text: all of it characters, or a replacement sign for each byte. So such a run is
shown when it ends. Together the pieces are what the tokenizer makes of all tokens at once.
"""

import re
from collections.abc import Sequence
from typing import Any

N_BEFORE = 5  # tokens of a prompt that decide how an answer's first token is written
MOST_BYTES = 64  # at its end that are looked through for them
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_UNFINISHED = "\ufffd"  # at the end of a text: a character may still be completed


class TextStream:
    """The text of one answer, grown token by token."""

    def __init__(
        self, tokenizer: Any, *, stop: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        """Start an empty answer, with a fast tokenizer of transformers or tokenizers.

        `before` are the tokens that it follows: where a text begins, some tokenizers leave out the
        space before the first word.
        """
        self.text = ""
        self.is_stopped = False
        self._backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._stop = [word for word in stop if word]
        self._held = ""
        # ids that are decoded together, and how many of them and of their text have been shown
        added = self._backend.get_added_tokens_decoder()
        self._specials = {token for token, one in added.items() if one.special}
        self._ids = [token for token in before[-MOST_BYTES:] if self._is_shown(token)]
        while self._ids and self._is_byte(self._ids[-1]):
            self._ids.pop()
        self._ids = self._ids[-N_BEFORE:]
        shown = self._decoded()
        if shown.endswith(_UNFINISHED):
            self._ids, shown = [], ""
        self._n_ids, self._n_shown = len(self._ids), len(shown)

    def push(self, token: int) -> str:
        """The text that may be shown now that `token` has come."""
        if not self._is_shown(token):
            return ""
        self._ids.append(token)
        if not self._is_byte(token):
            text = self._decoded()
            if len(text) > self._n_shown and not text.endswith(_UNFINISHED):
                self._held += text[self._n_shown :]
                self._ids = self._ids[self._n_ids :]
                self._n_ids, self._n_shown = len(self._ids), len(self._decoded())
        return self._released()

    def flush(self) -> str:
        """The text held back in case more of a character or of a stop string was coming."""
        if self.is_stopped:
            return ""
        text = self._decoded()
        self._held += text[self._n_shown :]
        self._n_shown = len(text)
        return self._released() + self._release(len(self._held))

    def _is_shown(self, token: int) -> bool:
        return token not in self._specials and self._backend.id_to_token(token) is not None

    def _is_byte(self, token: int) -> bool:
        return bool(_BYTE.fullmatch(self._backend.id_to_token(token) or ""))

    def _decoded(self) -> str:
        return str(self._backend.decode(self._ids, skip_special_tokens=True))

    def _released(self) -> str:
        for word in self._stop:
            place = self._held.find(word)
            if place >= 0:
                self._held = self._held[:place]
                self.is_stopped = True
        if self.is_stopped:
            return self._release(len(self._held))
        return self._release(len(self._held) - self._overlap())

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
