"""Every causal type of the installed transformers, made tiny: answered exactly, or refused.

    python -m research.architectures --only llama --only mamba

A type's configuration is shrunk by the names of its fields and its parameters are random. palate
then loads the folder as any base and answers prompts of unlike lengths in one cached batch; the
other side is transformers alone, one whole text at a time, without padding and without a cache.
After that an adapter of `all-linear` with random factors is made by peft, applied by palate's bank
and compared with peft in the same way. A row says one of:

    exact     all log-probabilities agree within 1e-4, with and without the adapter
    refused   palate refuses the base, or says before training that adapters cannot be placed
    not made  transformers cannot make the type this small, or not without another package
    differs   palate answers something else in silence: a fault
    crashed   anything but one of palate's own sentences: a fault
"""

import dataclasses
import math
import re
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from palate.core.errors import CheckFailedError, InvalidInputError, PalateError
from palate.core.plan import member_plan, reference_plan
from palate.core.progress import note
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_log_probs
from palate.models.load import Base, load_base
from palate.training.placement import AdapterSettings, lora_config
from research.command_line import IsJson, print_result, run

TOLERANCE = 1e-4  # nats
MAX_PARAMETERS = 7_000_000  # of a tiny model
N_TOKENS = 6  # of each answer; all are scored
PROMPTS = ("a b c d e f g h i j", "b", "the old harbour")
ANSWERS = ("x y z", "a long answer, longer than the window", "z")
FAULTS = ("differs", "crashed")
SPECIALS = ("<pad>", "<s>", "</s>")
# value of an integer field by its name; the first rule that matches decides
SIZES: tuple[tuple[str, float], ...] = (
    (r"vocab_size$|^vocab_size_per_layer_input$", 259),
    (r"intermediate_size|ffn_dim|n_inner|d_ff|ffn_hidden_size|inner_size|mlp_dim", 48),
    (r"^(hidden_size|d_model|n_embd|dim|embedding_size|embed_dim|lru_width)$", 32),
    (r"^(word_embed_proj_dim|attention_hidden_size|input_hidden_size|backbone_hidden_size)$", 32),
    (r"^(mamba_d_ssm|hidden_size_per_layer_input)$", 32),
    (r"(num_hidden_layers|n_layers?|num_layers|decoder_layers|encoder_layers)$", 4),
    (r"^num_kv_shared_layers$", 0),
    (r"(_interval|_period)$", 2),
    (r"(num_attention_heads|n_heads?|num_heads|_attention_heads|linear_num_value_heads)$", 4),
    (r"(num_key_value_heads|num_kv_heads|n_kv_heads|linear_num_key_heads)$", 2),
    (r"(head_dim|qk_nope_head_dim|qk_rope_head_dim|v_head_dim|d_kv|kv_channels)$", 8),
    (r"lora_rank$", 16),
    (r"^rotary_dim$", 8),
    (r"_offset$", 1),
    (r"^(n_group|n_groups|num_group|mamba_n_groups)$", 2),
    (r"^topk_group$", 1),
    (r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok|num_experts_per_token|moe_k|moe_top_k|top_k_experts)$", 2),
    (r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length)$", 128),
    (r"^(sliding_window|attention_window_size|local_attention|window_size)$", 7),
    (r"^(initializer_range|init_std)$", 0.2),
    (r"^pad_token_id$", 0),
    (r"^(bos_token_id|decoder_start_token_id)$", 1),
    (r"^eos_token_id$", 2),
)
# fields that are set although they have no default
ALWAYS = ("bos_token_id", "eos_token_id", "pad_token_id", "head_dim", "num_key_value_heads")
# what the rules cannot know of a type: values that its own checks ask for
EXTRA: dict[str, dict[str, Any]] = {
    "mamba2": {"head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "reformer": {"is_decoder": True},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "moshi": {"audio_vocab_size": 32},
}


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one type."""

    type: str
    outcome: str  # exact, refused, not made, differs or crashed
    note: str = ""  # one sentence


def small_settings(kind: Any, defaults: Any) -> dict[str, Any]:
    """Arguments of a configuration class that make its model tiny; its defaults are given."""
    parts: Mapping[str, Any] = getattr(kind, "sub_configs", None) or {}
    names = [field.name for field in dataclasses.fields(kind) if field.name not in parts]
    sizes = {name: _size(name, _value(defaults, name)) for name in names}
    settings: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    if "kv_lora_rank" in settings and "num_key_value_heads" in settings:
        settings["num_key_value_heads"] = settings["num_attention_heads"]  # latents have all heads
    kinds = _value(defaults, "layer_types")
    if kinds and "layer_types" in names:
        few = list(dict.fromkeys(kinds))
        settings["layer_types"] = (few * 4)[: max(4, len(few))]
        settings["num_hidden_layers"] = len(settings["layer_types"])
    for name, part in parts.items():
        if dataclasses.is_dataclass(part) and _value(defaults, name) is not None:
            settings[name] = small_settings(part, _value(defaults, name))
    return settings


def _value(defaults: Any, name: str) -> Any:
    try:
        return getattr(defaults, name, None)
    except Exception:  # noqa: BLE001  configurations of unlike layers refuse such questions
        return None


def _size(name: str, value: Any) -> float | None:
    if name == "type_vocab_size":
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    sizes = (size for pattern, size in SIZES if re.search(pattern, name))
    return next(sizes, None) if is_number or name in ALWAYS else None


def save_tiny(kind: str, folder: Path) -> None:
    """Write a tiny random model of this type with a byte tokenizer.

    Raises:
        CheckFailedError: transformers cannot make it.
    """
    letters = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    pad, start, end = SPECIALS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, bos_token=start, eos_token=end
    )
    try:
        config_class = CONFIG_MAPPING[kind]
        settings = small_settings(config_class, config_class()) | EXTRA.get(kind, {})
        config = config_class(**settings)
        with torch.device("meta"):
            _require_small(AutoModelForCausalLM.from_config(config))
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        whole_log_probs(model, Scored((5, 6), (7, 8)))
    except CheckFailedError:
        raise
    except Exception as error:
        raise CheckFailedError(_first_line(error)) from error


def _require_small(model: Any) -> None:
    if (n_parameters := model.num_parameters()) > MAX_PARAMETERS:
        raise CheckFailedError(f"it still has {n_parameters:,} parameters")


@torch.no_grad()
def whole_log_probs(model: Any, item: Scored) -> list[float]:
    """Log-probability of each answer token by one pass over the whole text, nats."""
    logits = model(torch.tensor([item.context + item.answer]), use_cache=False).logits[0]
    log_probs = logits[len(item.context) - 1 : -1].float().log_softmax(-1)
    return log_probs.gather(1, torch.tensor(item.answer).unsqueeze(1)).squeeze(1).tolist()


def largest_gap(base: Base, bank: AdapterBank, plain: Any) -> float:
    """Largest difference of log-probabilities, scored and decoded in one batch, from `plain`'s."""
    plan = member_plan(index=0, n_experts=1) if bank.n_experts else reference_plan(n_experts=0)
    ids = [tuple(base.tokenizer(text)["input_ids"]) for text in (*PROMPTS, *ANSWERS)]
    items = [Scored(c, a) for c, a in zip(ids[:3], ids[3:], strict=True)]
    given = [row.tolist() for row in answer_log_probs(base, bank, plans=[plan] * 3, items=items)]
    sampling = SamplingParams(temperature=0.0, max_tokens=N_TOKENS)
    requests = [Request(prompt, plan, sampling) for prompt in PROMPTS]
    for context, answer in zip(ids[:3], LocalEngine(base, bank).generate(requests), strict=True):
        items.append(Scored(context, answer.tokens))
        given.append(list(answer.log_probs))
    wanted = [whole_log_probs(plain, item) for item in items]
    pairs = [
        abs(a - b)
        for mine, theirs in zip(given, wanted, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    return max(float("inf") if math.isnan(pair) else pair for pair in pairs)


def save_random_adapter(base: Base, folder: Path) -> tuple[Any, int]:
    """Write an adapter of `all-linear` with random factors by peft.

    Returns:
        The adapted model (peft itself does not load all that it saves), and the number of layers.
    """
    settings = AdapterSettings(r=2, lora_alpha=4)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    adapted = get_peft_model(model, lora_config(base.model, settings))
    generator = torch.Generator().manual_seed(0)
    factors = [p for name, p in adapted.named_parameters() if ".lora_" in name]
    with torch.no_grad():
        for factor in factors:
            factor.copy_(0.1 * torch.randn(factor.shape, generator=generator))
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return adapted.eval(), len(factors) // 2


def outcome_of(kind: str, folder: Path) -> Row:
    """Make the type in a folder and compare it; every exception becomes a row."""
    try:
        save_tiny(kind, folder / "base")
    except CheckFailedError as error:
        return Row(kind, "not made", str(error))
    try:
        base = load_base(folder / "base")
        plain = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
        gap = largest_gap(base, AdapterBank(base, {}), plain)
        if not gap <= TOLERANCE:
            return Row(kind, "differs", f"Log-probabilities are off by {gap:.2g} nats.")
        adapted, n_layers = save_random_adapter(base, folder / "adapter")
        bank = AdapterBank.load(base, {"expert": folder / "adapter"})
        gap = largest_gap(base, bank, adapted)
    except CheckFailedError:  # it took too long
        raise
    except PalateError as error:
        return Row(kind, "refused", str(error))
    except Exception as error:  # noqa: BLE001  a traceback is what is looked for
        return Row(kind, "crashed", f"{type(error).__name__}: {_first_line(error)}")
    if not gap <= TOLERANCE:
        return Row(kind, "differs", f"With an adapter they are off by {gap:.2g} nats.")
    return Row(kind, "exact", f"{n_layers} layers can be adapted.")


@contextmanager
def at_most(seconds: int) -> Generator[None]:
    """Raise CheckFailedError in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise CheckFailedError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def rows_of(kinds: Iterable[str], *, seconds: int) -> list[Row]:
    """One row per type, printed as they come."""
    rows: list[Row] = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with at_most(seconds):
                    row = outcome_of(kind, Path(folder))
            except CheckFailedError as error:
                row = Row(kind, "crashed", str(error))
        note(f"{row.type:28} {row.outcome:9} {row.note}")
        rows.append(row)
    return rows


def main(
    only: Annotated[list[str] | None, typer.Option("--only", help="A type; repeatable.")] = None,
    seconds: Annotated[int, typer.Option(help="Most seconds for one type.")] = 60,
    *,
    is_json: IsJson = False,
) -> None:
    """Compare every causal type of the installed transformers with palate's answers."""
    known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    unknown = [kind for kind in only or () if kind not in known]
    if unknown:
        raise InvalidInputError(f"The type {unknown[0]!r} is unknown; use one of transformers'.")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    rows = rows_of(only or known, seconds=seconds)
    counts = dict(Counter(row.outcome for row in rows).most_common())
    types = [dataclasses.asdict(row) for row in rows]
    print_result(
        {"counts": counts, "types": types} if is_json else {"counts": counts}, is_json=is_json
    )
    faults = [row.type for row in rows if row.outcome in FAULTS]
    if faults:
        raise CheckFailedError(f"{len(faults)} types are answered wrongly: {', '.join(faults)}.")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


if __name__ == "__main__":
    run(main)
