"""Reference log-probabilities of a library's answers, computed once and stored.

They come from the same lines as the log-probabilities in training, so an untrained adapter has
log-ratios of zero. Finished batches are appended to a file named by the hash of all that determines
them; an interrupted pass goes on with the next batch.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.files import append_jsonl, hash_value, read_jsonl, write_jsonl
from palate.core.progress import progress_of
from palate.models.load import Base
from palate.training.pair_trainer import completion_log_probs
from palate.training.pairs import Sequences, padded

_BATCH = 32  # answers in one pass


def reference_log_probs(
    base: Base, sequences: Sequences, *, folder: Path | None = None
) -> Float[ndarray, " answers"]:
    """`[answers]`: log-probability of each under the base, nats; stored by batch in a folder."""
    if folder is None:
        return sequence_log_probs(base.model, sequences)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"reference-{data_key(base, sequences)}.jsonl"
    batches: list[list[float]] = []
    if path.is_file():
        rows = read_jsonl(path, what="stored log-probabilities", is_torn_end_dropped=True)
        batches = [row["log_probs"] for row in rows]
        write_jsonl(path, rows)  # without a line that was cut off
    with progress_of("reference log-probabilities, answers") as report:

        def on_batch(log_probs: list[float], done: int) -> None:
            append_jsonl(path, [{"log_probs": log_probs}])
            report(done, len(sequences))

        return sequence_log_probs(base.model, sequences, known=batches, on_batch=on_batch)


def sequence_log_probs(
    model: Any,
    sequences: Sequences,
    *,
    known: Iterable[list[float]] = (),
    on_batch: Callable[[list[float], int], None] | None = None,
) -> Float[ndarray, " answers"]:
    """`[answers]`: log-probability of each answer under the model, nats.

    `known` are the first batches' values, from an earlier call; `on_batch` hears a new batch's
    values and the number of answers done.
    """
    order = np.argsort(sequences.lengths(), kind="stable")  # like lengths need little padding
    values = [value for batch in known for value in batch]
    for start in range(len(values), len(order), _BATCH):
        ids, mask, is_answer = padded(sequences, order[start : start + _BATCH])
        with torch.inference_mode():
            log_probs = completion_log_probs(
                model,
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                completion_mask=is_answer.to(model.device),
            )
        batch = log_probs.double().tolist()
        values += batch
        if on_batch is not None:
            on_batch(batch, len(values))
    result = np.zeros(len(order))
    result[order] = values
    return result


def data_key(base: Base, sequences: Sequences) -> str:
    """Short hash of the base, its type and the answers."""
    dtype = str(base.model.dtype)
    return hash_value([base.fingerprint, dtype, sequences.prompts, sequences.answers])[:16]
