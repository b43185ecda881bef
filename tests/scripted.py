"""Experts that write by a script: each draws every token from one fixed distribution.

The base is a real Llama whose blocks add nothing and whose hidden states have one constant entry,
so that an adapter of the head can set any logits. A good answer is `digits : letters end`, which no
constant mixture of the two experts writes often.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from fakes import byte_tokenizer, save_tiny_llama
from palate.engine.bank import AdapterBank
from palate.engine.control import Controller
from palate.engine.local import LocalEngine
from palate.mixture.rollout import CONTROLLER, Judge, References, Task
from palate.mixture.wording import Wording
from palate.models.adapter import Factor, save_adapter
from palate.models.load import Base

TOKENS = {"digit": "7", "turn": ":", "letter": "a", "end": "</s>"}
EXPERTS = {  # what each expert writes: probabilities of digit, turn, letter, end
    "numbers": (0.7, 0.28, 0.01, 0.01),
    "words": (0.01, 0.01, 0.58, 0.4),
}
LOWEST = -25.0  # logit of all other tokens


def save_scripted(folder: Path) -> tuple[Path, dict[str, Path]]:
    """The base's folder, and the experts' adapter folders."""
    base = save_tiny_llama(folder / "base", is_tied=False)
    model = LlamaForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")) or name == "lm_head.weight":
                parameter.zero_()
        embedding = model.model.embed_tokens.weight
        embedding.mul_(0.01)
        embedding[:, 0] = 1.0
    model.save_pretrained(base)
    height = float(np.sqrt(model.config.hidden_size))  # of the constant entry after the norm
    adapters = {}
    for name, probs in EXPERTS.items():
        ids = [byte_tokenizer().convert_tokens_to_ids(token) for token in TOKENS.values()]
        logits = torch.full((len(byte_tokenizer()), 1), LOWEST)
        logits[ids, 0] = torch.tensor(probs).log()
        down = torch.zeros(1, model.config.hidden_size)
        down[0, 0] = 1.0 / height
        adapters[name] = folder / name
        save_adapter({"lm_head": Factor(down, logits, 1.0)}, folder / name, base_path=str(base))
    return base, adapters


def worth(text: str) -> float:
    """Reward of an answer: the share of its tokens on the right side of the first turn.

    Digits belong before it and letters after it; without a turn an answer is worth nothing.
    """
    before, turn, after = text.partition(":")
    right = before.count("7") + after.count("a")
    return right / (len(before) + len(after)) if turn and before and after else 0.0


def value_of_static(share: float, *, max_tokens: int, n_answers: int, seed: int) -> float:
    """Mean worth of answers under a constant share of `numbers`, by simulation without a model."""
    probs = share * np.array(EXPERTS["numbers"]) + (1 - share) * np.array(EXPERTS["words"])
    drawn = np.random.default_rng(seed).choice(4, size=(n_answers, max_tokens), p=probs)
    letters = np.array(["7", ":", "a", "."])
    values = []
    for row in drawn:
        text = "".join(letters[row])
        values.append(worth(text[: text.index(".")]) if "." in text else 0.0)
    return float(np.mean(values))


REFERENCE = "reference"


class Worth:
    """Log-odds so that the win probability against the reference answer is the answer's worth."""

    def log_odds(self, prompts, answers):
        worths = np.clip(
            [0.5 if answer == REFERENCE else worth(answer) for answer in answers], 0.01, 0.99
        )
        return np.stack([np.log(worths / (1 - worths))] * len(EXPERTS), axis=1)


class NoReferences(References):
    """The same reference answer to everything, which `Worth` gives even odds."""

    def __init__(self) -> None:
        pass

    def answers(self, requests):
        return [REFERENCE] * len(requests)


def scripted_task(base: Base, bank: AdapterBank, decoding: Controller) -> Task:
    """Both experts in equal shares, worth as reward."""
    return Task(
        engine=LocalEngine(base, bank, controllers={CONTROLLER: decoding}),
        wording=Wording(base, ("", ""), prompts="none"),
        judge=Judge(Worth(), NoReferences()),
        prompts=("Go", "On"),
        combinations=((0.5, 0.5),),
    )
