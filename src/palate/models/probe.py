"""A probe of a base that is being loaded: does a padded, cached batch say what whole passes say?

The engine batches prompts of unlike lengths, padded on the left, and decodes them with a cache of
keys and values. Recurrent states, positions that are counted from the padding, caches of a model's
own and attention to later tokens all break that, whatever a model is called. So two short texts are
passed in both ways, and their log-probabilities compared.

What short texts cannot show is refused by what the configuration says: layers of other kinds than
attention, and chunks of attention that are counted from the padding. A slow probe that went well is
noted in the cache under the base's hash, and not repeated.
"""

from contextlib import suppress
from time import perf_counter
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from palate.core.errors import FormatError
from palate.core.files import hash_value, write_json
from palate.models.cache import RowCache, empty_kv
from palate.models.embedded import cache_folder

ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers that the engine's cache holds
N_DECODED = 3  # tokens of each text, after prompts of these lengths
LENGTHS = (7, 2)
# nats by which log-probabilities may be off: float32 rounds; in fewer bits so much in the mean over
# the vocabulary, and the median over tokens, since an expert chosen otherwise moves one token
TOLERANCE, COARSE_TOLERANCE = 3e-3, 0.25
SLOW_SECONDS = 0.1


def require_batchable(model: PreTrainedModel, *, name: str, fingerprint: str) -> None:
    """Return where a batch is answered as each text alone.

    Raises:
        FormatError: it is not.
    """
    key = [fingerprint, str(model.dtype), transformers.__version__]
    path = cache_folder() / "probes" / f"{hash_value(key)[:16]}.json"
    if path.is_file():
        return
    start = perf_counter()
    config: Any = model.config.get_text_config()
    others = sorted(set(getattr(config, "layer_types", None) or ()) - ATTENTION)
    fault = f"it has layers of {', '.join(others)}" if others else _fault(model, config.vocab_size)
    if fault:
        raise FormatError(
            f"The base model {name!r} of the type {config.model_type!r} cannot be answered exactly "
            f"in batches ({fault}); use a decoder of attention alone, such as Llama, Qwen3, "
            "Mistral or Gemma."
        )
    if (seconds := perf_counter() - start) > SLOW_SECONDS:
        with suppress(OSError):  # a cache that cannot be written costs another probe
            write_json(path, {"base": name, "seconds": seconds})


@torch.inference_mode()
def _fault(model: PreTrainedModel, n_vocab: int) -> str:
    """What is wrong, as part of a sentence, or nothing."""
    n_all = max(LENGTHS) + N_DECODED
    first = n_vocab // 2  # special tokens are elsewhere
    ids = torch.arange(first, first + 2 * n_all, device=model.device).view(2, n_all) % n_vocab
    try:
        wanted = torch.stack(
            [
                _log_probs(model(input_ids=row[None, n_all - n - N_DECODED :]).logits[0])
                for row, n in zip(ids, LENGTHS, strict=True)
            ]
        )
        given = _batched(model, ids)
    except Exception as error:  # noqa: BLE001  models raise anything where they are used otherwise
        reason = str(error).strip().partition("\n")[0][:100]
        return f"the pass ends with {type(error).__name__}: {reason}"
    gaps = (given - wanted).abs()  # [texts, tokens, vocab]
    if model.dtype == torch.float32 and not getattr(model, "is_quantized", False):
        gap, most = float(gaps.max()), TOLERANCE
    else:
        gap, most = float(gaps.mean(dim=2).median(dim=1).values.max()), COARSE_TOLERANCE
    return "" if gap <= most else f"log-probabilities are off by {gap:.2g} nats"


def _batched(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """`[texts, tokens, vocab]`: log-probabilities of a padded batch, decoded with a cache."""
    n_prompt = max(LENGTHS)
    places = torch.arange(n_prompt, device=ids.device)
    starts = n_prompt - torch.tensor(LENGTHS, device=ids.device).unsqueeze(1)
    cache = RowCache(empty_kv(), (places >= starts).long())
    parts: list[Tensor] = []
    for step in range(N_DECODED + 1):
        new = ids[:, :n_prompt] if step == 0 else ids[:, n_prompt + step - 1 :][:, :1]
        if step:
            cache.extend()
        parts.append(_log_probs(cache.logits(model, new).unsqueeze(1)))
    cache.select(torch.arange(2, device=ids.device))  # refuses layers without keys and values
    return torch.cat(parts, dim=1)


def _log_probs(logits: Tensor) -> Tensor:
    """Of the last prompt token and the decoded ones."""
    return logits.float().log_softmax(dim=-1)[..., -(N_DECODED + 1) :, :]
