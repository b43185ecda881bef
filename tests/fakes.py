"""Tiny stand-ins: random models with a byte tokenizer, random adapters, scripted logits."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIALS = ["<pad>", "<s>", "</s>"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, after three special tokens."""
    letters = SPECIALS + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def llama(*, n_kv: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of some thousand parameters, not saved."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=n_kv,
        attention_bias=True,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def save_tiny_llama(
    folder: Path,
    *,
    seed: int = 0,
    is_tied: bool = True,
    n_positions: int = 256,
    chat_template: str | None = None,
) -> Path:
    """A random Llama of about 30,000 parameters, as a Hugging Face folder."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=n_positions,
        tie_word_embeddings=is_tied,
        initializer_range=0.15,  # far from uniform, so that differences show
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """A random GPT-2 (its linear layers are `Conv1D`), as a Hugging Face folder."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A random one-layer encoder, as a Hugging Face folder."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_random_adapter(
    base_folder: Path,
    folder: Path,
    *,
    seed: int,
    rank: int = 4,
    lora_alpha: float = 8,
    targets: Sequence[str] = ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"),
    **options: object,
) -> Path:
    """An adapter with random factors of size one tenth, made and saved by peft itself."""
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        **options,
    )
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder
