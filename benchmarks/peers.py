"""What a user would pick instead: the same users served by peft, for side-by-side benchmarks.

Nothing here is used for answering.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import DynamicCache as Cache
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palate.models.adapter import Factor
from palate.models.load import Base

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LlamaSize:
    """Sizes of a Llama: hidden and intermediate width, layers, vocabulary."""

    hidden: int
    intermediate: int
    n_layers: int
    vocab: int


def random_base(
    size: LlamaSize, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Base:
    """A Llama with random parameters and no tokenizer worth the name, for timing only."""
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size.vocab,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.hidden // 64,
        num_key_value_heads=size.hidden // 64,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
    torch.random.set_rng_state(generator_state)
    torch.nn.Module.to(model, torch.device(device), dtype)
    return Base(model, _no_tokenizer(), "random", None, f"random-{seed}", f"random-{seed}")


def random_adapters(
    base: Base, *, n_experts: int, rank: int, seed: int, targets: Sequence[str] = TARGETS
) -> dict[str, dict[str, Factor]]:
    """Adapters with factors that move the logits a little.

    Args:
        base: What they are for.
        n_experts: How many.
        rank: Of each.
        seed: Of the factors.
        targets: Endings of the adapted layers' names; all attention and MLP projections by default.
    """
    generator = torch.Generator().manual_seed(seed)
    matrices = {
        name: module
        for name, module in base.model.named_modules()
        if name.rsplit(".", 1)[-1] in targets and isinstance(module, torch.nn.Linear)
    }
    return {
        f"expert{index}": {
            name: Factor(
                torch.randn(rank, module.in_features, generator=generator) * 0.02,
                torch.randn(module.out_features, rank, generator=generator) * 0.02,
                2.0,
            )
            for name, module in matrices.items()
        }
        for index in range(n_experts)
    }


class PeftUsers:
    """Users as peft serves them: one exactly merged (`cat`) adapter each.

    Attributes:
        model: A copy of the base with the experts and the users' adapters.
        names: The users' adapters.
    """

    def __init__(
        self,
        base: Base,
        adapters: dict[str, dict[str, Factor]],
        coefficients: Float[Tensor, "users experts"],
    ) -> None:
        """Load the experts and merge one adapter per user with `combination_type="cat"`."""
        first = next(iter(next(iter(adapters.values())).values()))
        config = LoraConfig(
            r=first.rank, lora_alpha=round(first.scale * first.rank), target_modules=list(TARGETS)
        )
        names = list(adapters)
        model = get_peft_model(copy.deepcopy(base.model), config, adapter_name=names[0])  # pyright: ignore[reportArgumentType]
        for name in names[1:]:
            model.add_adapter(name, config)
        _fill(model, adapters)
        self.names = [f"user{place}" for place in range(len(coefficients))]
        for name, row in zip(self.names, coefficients.tolist(), strict=True):
            model.add_weighted_adapter(names, row, name, combination_type="cat")
        self.model: PeftModel = model.eval()  # pyright: ignore[reportAttributeAccessIssue]

    def one_at_a_time(
        self, tokens: Int[Tensor, "users seq"], caches: Sequence[Cache | None]
    ) -> Float[Tensor, "users vocab"]:
        """Last logits of every user, one forward pass each."""
        rows: list[Tensor] = []
        for name, row, cache in zip(self.names, tokens, caches, strict=True):
            self.model.set_adapter(name)
            rows.append(self.model(row.unsqueeze(0), past_key_values=cache).logits[:, -1])
        return torch.cat(rows)

    def in_one_batch(
        self, tokens: Int[Tensor, "users seq"], cache: Cache | None
    ) -> Float[Tensor, "users vocab"]:
        """Last logits of every user, one pass with `adapter_names`."""
        return self.model(tokens, adapter_names=self.names, past_key_values=cache).logits[:, -1]


def _fill(model: PeftModel, adapters: dict[str, dict[str, Factor]]) -> None:
    modules = dict(model.base_model.model.named_modules())  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    for name, adapter in adapters.items():
        for layer, factor in adapter.items():
            module: torch.nn.Module = modules[layer]
            for side, value in (("lora_A", factor.down), ("lora_B", factor.up)):
                getattr(module, side)[name].weight.data.copy_(value)


def _no_tokenizer() -> PreTrainedTokenizerFast:
    filler = "<pad>"
    backend = Tokenizer(WordLevel({filler: 0}, unk_token=filler))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=filler)


def layer_sizes(base: Base) -> Iterator[tuple[int, int]]:
    """`(d_in, d_out)` of every matrix of the base, the head included."""
    for module in base.model.modules():
        if isinstance(module, torch.nn.Linear):
            yield module.in_features, module.out_features


class LoopedExperts:
    """The bank's arithmetic as a loop: every expert's two products, scaled and added in turn."""

    def __init__(
        self,
        base: Base,
        adapters: dict[str, dict[str, Factor]],
        coefficients: Float[Tensor, "users experts"],
    ) -> None:
        """Hook a copy of the base."""
        self.model = copy.deepcopy(base.model)
        modules = dict(self.model.named_modules())
        layers = {name for adapter in adapters.values() for name in adapter}
        columns = [coefficients[:, k, None, None].to(base.device) for k in range(len(adapters))]
        for layer in layers:
            factors = [
                (column * adapter[layer].scale, adapter[layer].down.T, adapter[layer].up.T)
                for column, adapter in zip(columns, adapters.values(), strict=True)
            ]
            modules[layer].register_forward_hook(_looped(factors))


def _looped(factors: list[tuple[Tensor, Tensor, Tensor]]) -> Callable[..., Tensor]:
    def add(_module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for scale, down, up in factors:
            output = output + (args[0] @ down * scale) @ up
        return output

    return add
