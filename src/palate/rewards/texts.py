"""Texts, counted: words, sentences, turns of a transcript."""

import re
from collections.abc import Sequence

from palate.core.errors import InvalidInputError

WORD = re.compile(r"(?u)\b\w+\b")
_SENTENCE_END = re.compile(r"[.!?]+")
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}  # of transcripts
_TURN = re.compile(rf"(?:^|\n\n)({'|'.join(SPEAKERS.values())}): ?")


def words_of(text: str) -> list[str]:
    """Lower-case words."""
    return [word.lower() for word in WORD.findall(text)]


def count_sentences(text: str) -> int:
    """Runs of `.`, `!` or `?`, at least one."""
    return max(1, len(_SENTENCE_END.findall(text)))


def turns_of(prompt: str) -> list[dict[str, str]]:
    """Messages `{"role", "content"}` of a transcript `Human: ...`, blank line, `Assistant: ...`.

    A prompt that does not begin with a speaker is one message of the user.
    """
    first, *rest = _TURN.split(prompt.removesuffix("\n\nAssistant:"))  # the answer's place
    if first or not rest:
        return [{"role": "user", "content": prompt}]
    roles = {speaker: role for role, speaker in SPEAKERS.items()}
    return [
        {"role": roles[speaker], "content": content.strip()}
        for speaker, content in zip(rest[::2], rest[1::2], strict=True)
    ]


def messages_of(prompt: str) -> str | list[dict[str, str]]:
    """A prompt of a file as a base reads it: a transcript's turns, another text as it is."""
    turns = turns_of(prompt)
    return prompt if turns == [{"role": "user", "content": prompt}] else turns


def require_equally_many(prompts: Sequence[str], answers: Sequence[str]) -> None:
    """Raise `InvalidInputError` when there is not one answer for each prompt."""
    if len(prompts) != len(answers):
        raise InvalidInputError(
            f"There are {len(prompts)} prompts for {len(answers)} answers; give one for each."
        )
