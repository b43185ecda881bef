"""One decoding step of a Llama in fewer operations than transformers' own code takes.

With few sequences a third of a step goes into a thousand small operations and the Python around
them. Here norms are one operation, queries and keys are rotated together in three, heads that share
keys and values attend as several queries of one head, and the mask is made once. Layers are called
as modules, so that experts change them as elsewhere. The sums are those of transformers; in
bfloat16 fewer of them are rounded in between.
"""

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


def llama_step(
    model: Any, tokens: Int[Tensor, "sequences 1"], *, mask: Tensor, kv: Any
) -> Float[Tensor, "rows vocab"]:
    """Logits after one more token of every sequence, whose keys and values `kv` keeps.

    Args:
        model: For which `is_plain_llama`.
        tokens: `[sequences, 1]`, ids.
        mask: `[sequences, columns]`, one where a sequence has a token, the new one included.
        kv: The cache of transformers, filled up to the new column.
    """
    body, n = model.model, len(tokens)
    hidden = body.embed_tokens(tokens)
    cos, sin = body.rotary_emb(hidden, mask.sum(dim=1, keepdim=True) - 1)
    half = cos.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1).unsqueeze(1)
    cos, bias = cos.unsqueeze(1), None
    if not bool(mask.all()):
        bias = torch.zeros_like(mask, dtype=hidden.dtype)[:, None, None]
        bias = bias.masked_fill(mask[:, None, None] == 0, -torch.inf)
    for layer, states in zip(body.layers, kv.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        source = _normed(hidden, layer.input_layernorm)
        heads = (n, 1, -1, attention.head_dim)
        queries = attention.q_proj(source).view(heads)
        keys = attention.k_proj(source).view(heads)
        values = attention.v_proj(source).view(heads)
        both = torch.cat([queries, keys], dim=2).transpose(1, 2)
        both = torch.addcmul(both * cos, both.roll(half, -1), sin)
        n_heads, n_groups = queries.shape[2], attention.num_key_value_groups
        keys, values = states.update(both[:, n_heads:], values.transpose(1, 2))
        output = scaled_dot_product_attention(
            both[:, :n_heads].reshape(n, -1, n_groups, attention.head_dim),
            keys,
            values,
            attn_mask=bias,
            scale=attention.scaling,
        )
        hidden = hidden + attention.o_proj(output.reshape(n, 1, -1))
        source = _normed(hidden, layer.post_attention_layernorm)
        hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(source)) * mlp.up_proj(source))
    return model.lm_head(_normed(hidden, body.norm))[:, -1]


def _normed(hidden: Tensor, norm: LlamaRMSNorm) -> Tensor:
    return rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)
