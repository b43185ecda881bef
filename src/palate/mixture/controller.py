"""The preference control model (PCM): a small decoder that scores the experts at every token.

Its input is the prompt with the preference in words, the answer so far, and the strengths of the
preference as a vector; a linear head gives one score per expert. The head starts at zero, so
training starts at the uniform mixture, exactly.

Source: MoPE, arXiv 2407.04181: a decoder of about 2 % of the base with a linear layer of n outputs.

Deviations from the paper:
    1. The input layout is unknown; ours is the chat template with all wanted sentences, then the
       answer, in the base's own token ids.
    2. Three slots or n outputs is unknown; ours has one output per expert and a mask.
    3. The vector of strengths is ours; it is added to every embedding.
    4. A value head for PPO sits beside the shares' head; it is not used in decoding.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn

from palate.core.errors import FormatError
from palate.core.files import (
    hash_bytes,
    read_versioned,
    reading,
    require_file,
    write_bytes_atomic,
    write_versioned,
)
from palate.mixture.settings import FitSettings
from palate.models.trunk import Trunk, TrunkSettings, new_trunk, trunk_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KIND = "palate.controller"
SCHEMA_VERSION = 1
CONFIG, PARAMETERS = "config.json", "model.safetensors"


class PreferenceController(nn.Module):
    """Scores over the experts after every token, and a value for PPO."""

    def __init__(
        self,
        trunk: Trunk,
        trunk_config: dict[str, Any],
        *,
        experts: tuple[str, ...],
        tokenizer_fingerprint: str,
    ) -> None:
        """Put a head of zeros on a trunk; see `new_controller`."""
        super().__init__()
        self.trunk = trunk
        self.experts = experts
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self._trunk_config = trunk_config
        self.head = nn.Linear(trunk.hidden_size, len(experts))
        self.value_head = nn.Linear(trunk.hidden_size, 1)
        for layer in (self.head, self.value_head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters; the embedding is the larger part of a small trunk."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        ids: Int[Tensor, "batch seq"],
        mask: Int[Tensor, "batch seq"],
        strengths: Float[Tensor, "batch experts"],
    ) -> tuple[Float[Tensor, "batch seq experts"], Float[Tensor, "batch seq"]]:
        """Scores and values after every token of whole texts."""
        hidden = self.trunk(ids, mask, strengths)
        return self.head(hidden), self.value_head(hidden).squeeze(-1)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` into the folder."""
        tensors = save({name: t.detach().contiguous() for name, t in self.state_dict().items()})
        content = {
            "experts": list(self.experts),
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "trunk": self._trunk_config,
            "parameters": hash_bytes(tensors),
        }
        write_bytes_atomic(folder / PARAMETERS, tensors)
        write_versioned(folder / CONFIG, kind=KIND, version=SCHEMA_VERSION, content=content)


def new_controller(
    settings: TrunkSettings,
    *,
    experts: tuple[str, ...],
    n_vocab: int,
    tokenizer_fingerprint: str,
    seed: int,
    base: "PreTrainedModel | None" = None,
) -> PreferenceController:
    """A controller that mixes uniformly, to be trained; `base` is what a trunk's path `base` means.

    Raises:
        InvalidInputError: the shape is not possible, or there is nothing at the trunk's path.
        FormatError: the trunk at the path has another vocabulary.
    """
    trunk, config = new_trunk(
        settings, n_vocab=n_vocab, n_strengths=len(experts), seed=seed, base=base
    )
    return PreferenceController(
        trunk, config, experts=experts, tokenizer_fingerprint=tokenizer_fingerprint
    )


def new_optimizer(controller: nn.Module, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW with one rate for the decoder's body and one for everything else.

    At a body rate of zero the whole trunk is frozen, and only the heads are trained.
    """
    frozen = "trunk." if settings.body_rate == 0.0 else None
    body: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in controller.named_parameters():
        parameter.requires_grad_(frozen is None or not name.startswith(frozen))
        if parameter.requires_grad:
            (body if name.startswith("trunk.decoder") else rest).append(parameter)
    groups = [
        {"params": parameters, "lr": rate, "initial_lr": rate}
        for parameters, rate in ((body, settings.body_rate), (rest, settings.head_rate))
        if parameters
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)


def decay_rates(optimizer: torch.optim.Optimizer, *, remaining: float) -> None:
    """Set every learning rate to this fraction of its initial value."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * remaining


def load_controller(folder: Path, *, base: "PreTrainedModel | None" = None) -> PreferenceController:
    """The controller written by `PreferenceController.save`, for decoding.

    A controller whose trunk is the library's base needs that base.

    Raises:
        InvalidInputError: a file is missing.
        FormatError: a file is of another kind or version, or the parameters are not the config's.
    """
    content = read_versioned(folder / CONFIG, kind=KIND, version=SCHEMA_VERSION)
    path = require_file(folder / PARAMETERS, what="file of a controller's parameters")
    if hash_bytes(path.read_bytes()) != content.get("parameters"):
        raise FormatError(
            f"The parameters {str(path)!r} are not those of {str(folder / CONFIG)!r} (their hash "
            "differs); copy both from one controller."
        )
    with reading(folder / CONFIG, remedy="fit the controller anew"):
        controller = PreferenceController(
            trunk_of(content["trunk"], base=base),
            content["trunk"],
            experts=tuple(content["experts"]),
            tokenizer_fingerprint=str(content["tokenizer_fingerprint"]),
        )
        controller.load_state_dict(load_file(path))
    return controller.eval()
