"""Data types of a base: named ones, `auto`, and on GPUs `8bit` and `4bit` by bitsandbytes.

`auto` is on a GPU the model's own type, and on a CPU the faster one of float32 and bfloat16.
A processor with instructions for bfloat16 is not always faster in it, so the base itself is raced
at its first use: prefill of a few hundred tokens, then decoding of a batch, in both types. The
winner is stored in the cache, per base, processor, number of threads and version of torch.
bfloat16 has to win clearly, because float32 is closer to exact: log-probabilities are computed in
float32 from the logits in any case, but with those of SmolLM2-135M in bfloat16 they are off by 0.05
nats per token in the mean (63 tokens of five answers; at most 0.32).
"""

import re
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.files import hash_value, read_json, write_json
from palate.models.embedded import cache_folder

AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZED = ("8bit", "4bit")
MIN_SPEEDUP = 1.1  # with which bfloat16 wins
N_DECODED, N_STEPS = 16, 8  # rows of the decoded batch, and tokens of each
N_PREFILLED = 256  # tokens, of models of up to 150 million parameters; fewer of larger ones
MAX_SECONDS = 3.0  # of a racer, after which it ends the pass that it is in
_INSTRUCTIONS = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")


def require_dtype(dtype: str, *, device: str) -> None:
    """Return where a base can be loaded in the data type on the device.

    Raises:
        InvalidInputError: the data type is unknown, or needs a GPU.
        MissingExtraError: `bitsandbytes` is not installed.
    """
    known = (AUTO, *DTYPES, *QUANTIZED)
    if dtype not in known:
        raise InvalidInputError(f"The dtype {dtype!r} is unknown; use one of {', '.join(known)}.")
    if dtype in QUANTIZED and torch.device(device).type != "cuda":
        raise InvalidInputError(
            f"The dtype {dtype!r} needs a GPU, but the device is {device!r}; use `auto` there."
        )
    if dtype in QUANTIZED and find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"The dtype {dtype!r} needs the module 'bitsandbytes', which is not installed; run "
            "`python -m pip install bitsandbytes`."
        )


def load_options(dtype: str, *, device: str) -> dict[str, Any]:
    """What transformers' `from_pretrained` takes for a data type that `require_dtype` let pass."""
    if dtype not in QUANTIZED:
        return {"dtype": DTYPES.get(dtype, AUTO)}
    return {
        "dtype": torch.bfloat16,
        "quantization_config": BitsAndBytesConfig(
            load_in_8bit=dtype == "8bit",
            load_in_4bit=dtype == "4bit",
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        "device_map": {"": device},
    }


def faster_dtype(base: str, load: Callable[[torch.dtype], Any]) -> str:
    """`float32` or `bfloat16`, whichever this processor runs the base faster in.

    It is stored by the base's folder, or hub id and revision; `load` is called where it is not.
    """
    known = known_dtype(base)
    if known is not None:
        return known
    seconds = {name: _seconds(load(DTYPES[name])) for name in ("float32", "bfloat16")}
    is_won = seconds["float32"] > MIN_SPEEDUP * seconds["bfloat16"]
    dtype = "bfloat16" if is_won else "float32"
    with suppress(OSError):  # a cache that cannot be written costs another race
        write_json(_race_file(base), {"base": base, "dtype": dtype, "seconds": seconds})
    return dtype


def known_dtype(base: str) -> str | None:
    """What `faster_dtype` gives, where it is known without running the base; `None` elsewhere."""
    if not _INSTRUCTIONS.search(_processor()):
        return "float32"
    path = _race_file(base)
    return str(read_json(path, what="stored race")["dtype"]) if path.is_file() else None


def _race_file(base: str) -> Path:
    racers = [_processor(), torch.get_num_threads(), torch.__version__]
    return cache_folder() / "dtypes" / f"{hash_value([base, *racers])[:16]}.json"


@torch.inference_mode()
def _seconds(model: Any) -> float:
    """Seconds of a prefill and of some steps of decoding, each at its fastest."""
    n_prefilled = round(N_PREFILLED * min(1.0, 1.5e8 / model.num_parameters()))
    prompt = torch.ones(1, max(n_prefilled, N_DECODED), dtype=torch.long)
    first = torch.ones(N_DECODED, 1, dtype=torch.long)
    model.eval()
    prefill = step = float("inf")
    start = perf_counter()
    while perf_counter() < start + MAX_SECONDS:
        began = perf_counter()
        model(prompt, logits_to_keep=1)
        prefill, kv = min(prefill, perf_counter() - began), None
        for _ in range(N_STEPS):
            began = perf_counter()
            kv = model(first, past_key_values=kv, use_cache=True).past_key_values
            step = min(step, perf_counter() - began)
            if perf_counter() > start + MAX_SECONDS:
                break
    return prefill + N_STEPS * step


def _processor() -> str:
    """The processor's name and instructions as Linux tells them; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    facts = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(dict.fromkeys(facts))
