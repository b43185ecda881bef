"""One decoding step of a Llama in fewer operations than transformers' own code takes.

With few sequences a third of a step goes into a thousand small operations and the Python around
them. Here norms are one operation, queries and keys are rotated together in three, heads that share
keys and values attend as several queries of one head, and the mask is made once. Layers are called
as modules, so that experts change them as elsewhere. The sums are those of transformers; in
bfloat16 fewer of them are rounded in between.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm


def is_plain_llama(model: Any) -> bool:
    """Whether `llama_step` is the model's step: its own classes throughout, on a CPU."""
    return (
        type(model) is LlamaForCausalLM
        and model.device.type == "cpu"
        and all(type(layer) is LlamaDecoderLayer for layer in model.model.layers)
    )


Part = tuple[Any, Tensor, Any]  # places of its sequences, a slice or indices; mask; cache


def llama_step(
    model: Any, tokens: Int[Tensor, "sequences 1"], *, parts: Sequence[Part]
) -> Float[Tensor, "rows vocab"]:
    """Logits after one more token of every sequence.

    Args:
        model: For which `is_plain_llama`.
        tokens: `[sequences, 1]`, ids.
        parts: Sequences that attend over as many columns, each once: their places among all (a
            slice if there is one part), a mask, `[part, columns]`, one where a sequence has a
            token, the new one included, and the cache of transformers, filled up to the new column.
    """
    body, n = model.model, len(tokens)
    hidden = body.embed_tokens(tokens)
    positions = torch.empty_like(tokens)
    for places, mask, _ in parts:
        positions[places] = mask.sum(dim=1, keepdim=True) - 1
    cos, sin = body.rotary_emb(hidden, positions)
    half = cos.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1).unsqueeze(1)
    cos = cos.unsqueeze(1)
    biases = [_bias(mask, hidden.dtype) for _, mask, _ in parts]
    back = torch.cat([places for places, _, _ in parts]).argsort() if len(parts) > 1 else None
    for number, layer in enumerate(body.layers):
        attention, mlp = layer.self_attn, layer.mlp
        source = _normed(hidden, layer.input_layernorm)
        heads = (n, 1, -1, attention.head_dim)
        queries = attention.q_proj(source).view(heads)
        keys = attention.k_proj(source).view(heads)
        values = attention.v_proj(source).view(heads)
        both = torch.cat([queries, keys], dim=2).transpose(1, 2)
        both = torch.addcmul(both * cos, both.roll(half, -1), sin)
        n_heads, n_groups = queries.shape[2], attention.num_key_value_groups
        values, outputs = values.transpose(1, 2), []
        for (places, _, kv), bias in zip(parts, biases, strict=True):
            own = both[places]
            keys, their_values = kv.layers[number].update(own[:, n_heads:], values[places])
            wanted = own[:, :n_heads].reshape(len(own), -1, n_groups, attention.head_dim)
            output = scaled_dot_product_attention(
                wanted, keys, their_values, attn_mask=bias, scale=attention.scaling
            )
            outputs.append(output.reshape(len(own), 1, -1))
        joined = outputs[0] if back is None else torch.cat(outputs)[back]
        hidden = hidden + attention.o_proj(joined)
        source = _normed(hidden, layer.post_attention_layernorm)
        hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(source)) * mlp.up_proj(source))
    return model.lm_head(_normed(hidden, body.norm))[:, -1]


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    if bool(mask.all()):
        return None
    return torch.where(mask[:, None, None] == 0, -torch.inf, 0.0).to(dtype)


def _normed(hidden: Tensor, norm: LlamaRMSNorm) -> Tensor:
    return rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)
