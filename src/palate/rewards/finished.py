"""A finished reward model of Hugging Face as a reward function, by folder or hub id.

It is a sequence classifier with one output, and its output is the score. Prompt and answer are put
together by its chat template or, without one, with a blank line between them; a model that was
trained on text pairs or on another layout ranks worse than its card says.

A library stores the name and a hash of what it stands for, not the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.rewards.classifier import TransformerModel, load_transformer


@dataclass(frozen=True, eq=False)
class FinishedModel:
    """Prompts and answers to the model's own scores."""

    name: str  # folder or hub id
    model: TransformerModel  # the model with its tokenizer

    @classmethod
    def load(cls, name: str) -> "FinishedModel":
        """The reward model of that name.

        Raises:
            InvalidInputError: the model is not there.
            FormatError: what is there is no sequence classifier with one output.
        """
        return cls(name, replace(load_transformer(name), adds_end=False))

    @property
    def source(self) -> dict[str, object]:
        """As a run file names it."""
        return {"model": self.name}

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on."""
        return self.model.fingerprint

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: object
    ) -> list[float]:
        """The scores, one for each completion; higher is better."""
        del columns
        return self.model.raw(prompts, completions).tolist()
