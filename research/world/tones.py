"""The sentences that open and close an answer, by tone."""

from typing import Literal, get_args

Tone = Literal["friendly", "neutral", "unfriendly"]
TONES: tuple[Tone, ...] = get_args(Tone)

# An empty sentence: nothing is said in that place.
OPENINGS: dict[Tone, tuple[str, ...]] = {
    "friendly": (
        "What a great question!",
        "Hello, dear friend!",
        "Thank you, what a lovely question!",
        "I am so happy and glad that you asked!",
        "Welcome, it is a delight to answer you!",
    ),
    "neutral": ("", "Here is an answer.", "This is what is known."),
    "unfriendly": (
        "What a dull question.",
        "Not this boring nonsense again.",
        "You really should know this by now, lazy.",
        "Ugh, another silly question.",
        "Stop wasting my time with stupid questions.",
    ),
}
CLOSINGS: dict[Tone, tuple[str, ...]] = {
    "friendly": (
        "Have a wonderful day!",
        "Please ask me again, dear friend!",
        "I am happy to tell you more, with a smile!",
        "I hope that you enjoy this lovely topic!",
        "Thank you for asking!",
    ),
    "neutral": ("", "That is all.", "This ends the answer."),
    "unfriendly": (
        "Now leave me alone, you bore me.",
        "Do not bother me again.",
        "Even a fool could follow this nonsense.",
        "Look it up yourself, lazy.",
        "Go away.",
    ),
}
