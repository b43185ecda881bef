"""What a model, its adapters and its caches weigh: counting, no measuring.

Llama-like decoders: grouped-query attention without biases, a gated MLP of three matrices, RMS
norms. Published shapes are listed by name.

    parameters   of a block: h (q + 2 kv) + q h + 3 h m + 2 h, and per head 2 d where queries and
                 keys are normed; q = heads d, kv = kv_heads d
    adapter      rank (d_in + d_out) for every adapted matrix
    cache        2 layers kv_heads d numbers for every token of every row
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from palate.core.errors import InvalidInputError

Entry = TypeVar("Entry")
Placement = Literal["all", "head", "top_no_kv"]
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder.

    Attributes:
        hidden: Width.
        intermediate: Width of the MLP.
        n_layers: Blocks.
        n_heads: Of queries.
        n_kv_heads: Of keys and values.
        head_dim: Width of a head.
        vocab: Tokens.
        is_tied: Embedding and unembedding are one matrix.
        has_head_norms: Queries and keys are normed.
    """

    hidden: int
    intermediate: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int
    is_tied: bool
    has_head_norms: bool = False

    def matrices(self) -> dict[str, tuple[int, int]]:
        """`(d_in, d_out)` of the linear layers of a block."""
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def n_parameters(self) -> int:
        """All of them."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.has_head_norms else 0)
        block = sum(d_in * d_out for d_in, d_out in self.matrices().values()) + norms
        tables = (1 if self.is_tied else 2) * self.vocab * self.hidden
        return self.n_layers * block + self.hidden + tables

    @property
    def n_computed(self) -> int:
        """Parameters that every token is multiplied with: all but the embedding's rows."""
        return self.n_parameters - (0 if self.is_tied else self.vocab * self.hidden)

    def cache_numbers(self) -> int:
        """Numbers kept for each token of each row: keys and values of all layers."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim

    def adapter_parameters(
        self, *, rank: int, placement: Placement = "all", n_top_blocks: int = 2
    ) -> int:
        """Parameters of one expert.

        Args:
            rank: Of every adapted matrix.
            placement: As in the run file of `palate build`.
            n_top_blocks: For `top_no_kv`.
        """
        if placement == "head":
            return rank * (self.hidden + self.vocab)
        sizes = self.matrices()
        blocks = self.n_layers
        if placement == "top_no_kv":
            sizes = {name: size for name, size in sizes.items() if name[0] not in "kv"}
            blocks = min(n_top_blocks, self.n_layers)
        return blocks * sum(rank * (d_in + d_out) for d_in, d_out in sizes.values())


SHAPES = {
    "smollm2-135m": ModelShape(576, 1536, 30, 9, 3, 64, 49152, is_tied=True),
    "smollm2-360m": ModelShape(960, 2560, 32, 15, 5, 64, 49152, is_tied=True),
    "smollm2-1.7b": ModelShape(2048, 8192, 24, 32, 32, 64, 49152, is_tied=True),
    "llama-3.2-1b": ModelShape(2048, 8192, 16, 32, 8, 64, 128256, is_tied=True),
    "llama-3.2-3b": ModelShape(3072, 8192, 28, 24, 8, 128, 128256, is_tied=True),
    "llama-3.1-8b": ModelShape(4096, 14336, 32, 32, 8, 128, 128256, is_tied=False),
    "llama-3.3-70b": ModelShape(8192, 28672, 80, 64, 8, 128, 128256, is_tied=False),
    "qwen3-0.6b": ModelShape(1024, 3072, 28, 16, 8, 128, 151936, is_tied=True, has_head_norms=True),
    "qwen3-1.7b": ModelShape(2048, 6144, 28, 16, 8, 128, 151936, is_tied=True, has_head_norms=True),
    "qwen3-8b": ModelShape(4096, 12288, 36, 32, 8, 128, 151936, is_tied=False, has_head_norms=True),
}


HUB = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-135m",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "smollm2-360m",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "smollm2-1.7b",
    "meta-llama/Llama-3.2-1B-Instruct": "llama-3.2-1b",
    "meta-llama/Llama-3.2-3B-Instruct": "llama-3.2-3b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.3-70B-Instruct": "llama-3.3-70b",
    "Qwen/Qwen3-0.6B": "qwen3-0.6b",
    "Qwen/Qwen3-1.7B": "qwen3-1.7b",
    "Qwen/Qwen3-8B": "qwen3-8b",
}


def shape_of(name: str) -> ModelShape:
    """The shape of this name.

    Raises:
        InvalidInputError: it is not listed.
    """
    return _listed(SHAPES, name, what="model")


STATE_BYTES = 16  # of an adapter's parameter in training: itself, gradient, two moments, float32


def training_bytes(
    shape: ModelShape,
    *,
    adapter_parameters: int,
    tokens: int,
    completion_tokens: int,
    bytes_per_number: int = 2,
) -> dict[str, int]:
    """Memory of training one expert, part by part: an estimate by counting what autograd keeps.

    The base is there twice (training works on a copy). A block keeps for every token its inputs and
    normed inputs (`8 h` numbers, half of them as float32), queries, keys, values and what attention
    gives (`2 q + 2 kv`) and the MLP's four products (`4 m`); attention is fused, so nothing grows
    with the square. Logits are kept for all tokens, and in float32 twice for those of answers.

    Args:
        shape: Of the base.
        adapter_parameters: Of the expert.
        tokens: Of one pass, both answers of every pair with their prompts, padding included.
        completion_tokens: Of these, of answers.
        bytes_per_number: Of the base.
    """
    queries, keys = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    block = 4 * shape.hidden * (bytes_per_number + 4)
    block += (2 * queries + 2 * keys + 4 * shape.intermediate) * bytes_per_number
    logits = tokens * bytes_per_number + completion_tokens * 2 * 4
    return {
        "bases": 2 * shape.n_parameters * bytes_per_number,
        "adapter": STATE_BYTES * adapter_parameters,
        "activations": tokens * shape.n_layers * block,
        "logits": shape.vocab * logits,
    }


@dataclass(frozen=True)
class Device:
    """What one accelerator can do, by its data sheet.

    Attributes:
        memory_bytes: Of its own memory.
        bytes_per_second: Read from it.
        flops: A second, dense, in bfloat16.
    """

    memory_bytes: float
    bytes_per_second: float
    flops: float


DEVICES = {
    "h200": Device(141e9, 4.8e12, 989e12),
    "h100": Device(80e9, 3.35e12, 989e12),
    "a100": Device(80e9, 2.0e12, 312e12),
    "l4": Device(24e9, 0.3e12, 121e12),
}


def device_of(name: str) -> Device:
    """The device of this name.

    Raises:
        InvalidInputError: it is not listed.
    """
    return _listed(DEVICES, name, what="device")


def _listed(known: Mapping[str, Entry], name: str, *, what: str) -> Entry:
    if name not in known:
        raise InvalidInputError(
            f"The {what} {name!r} is not listed; listed are {', '.join(known)}."
        )
    return known[name]


@dataclass(frozen=True)
class Load:
    """How answers are made.

    Attributes:
        shape: Of the base.
        bytes_per_number: 2 for bfloat16.
        n_experts: In the bank.
        rank: Of each.
        placement: Of each.
        rows: Of an answer: 1 for a member or a parameter soup, more for mixtures.
        has_shared_cache: The rows of an answer keep one cache (experts on the head alone).
        prompt_tokens: Read.
        answer_tokens: Written.
    """

    shape: ModelShape
    bytes_per_number: int
    n_experts: int
    rank: int
    placement: Placement
    rows: int
    has_shared_cache: bool
    prompt_tokens: int
    answer_tokens: int

    @property
    def model_bytes(self) -> int:
        """Of the base's parameters."""
        return self.shape.n_parameters * self.bytes_per_number

    @property
    def bank_bytes(self) -> int:
        """Of all experts."""
        one = self.shape.adapter_parameters(rank=self.rank, placement=self.placement)
        return self.n_experts * one * self.bytes_per_number

    @property
    def cache_rows(self) -> int:
        """Caches that an answer keeps."""
        return 1 if self.has_shared_cache else self.rows

    @property
    def cache_bytes(self) -> int:
        """Of an answer's caches at its end."""
        tokens = self.prompt_tokens + self.answer_tokens
        return self.cache_rows * tokens * self.shape.cache_numbers() * self.bytes_per_number


@dataclass(frozen=True)
class Capacity:
    """What one device does with a load: an estimate from its data sheet, nothing measured.

    Attributes:
        answers_together: That fit its memory, or the batch that was allowed.
        step_seconds: Of one token of all of them.
        answers_per_second: In the long run, prompts included.
    """

    answers_together: int
    step_seconds: float
    answers_per_second: float


def capacity_of(
    load: Load, device: Device, *, efficiency: float, max_together: int, free_share: float = 0.1
) -> Capacity:
    """What one device does, by roofline: whichever of reading memory and arithmetic takes longer.

    A step reads base and bank once and every cache at half of its answer; it multiplies every row
    with every parameter, and rows that share a cache with the unembedding alone. A prompt is
    arithmetic alone.

    Args:
        load: How answers are made.
        device: What makes them.
        efficiency: Share of the data sheet's rates that is reached; an assumption.
        max_together: Most answers at once.
        free_share: Of the memory that is left for the rest.

    Raises:
        InvalidInputError: not even one answer fits.
    """
    room = (1 - free_share) * device.memory_bytes - load.model_bytes - load.bank_bytes
    together = min(int(room // load.cache_bytes), max_together)
    if together < 1:
        needed = (load.model_bytes + load.bank_bytes + load.cache_bytes) / 1e9
        raise InvalidInputError(
            f"Base, experts and one answer need {needed:.1f} GB, more than the device has; choose "
            "a larger device, a smaller model or shorter prompts."
        )
    computed = load.shape.n_computed + load.bank_bytes / load.bytes_per_number
    rates = (efficiency * device.bytes_per_second, efficiency * device.flops)
    held = load.cache_bytes * (load.prompt_tokens + load.answer_tokens / 2)
    held /= load.prompt_tokens + load.answer_tokens
    reading = (load.model_bytes + load.bank_bytes + together * held) / rates[0]
    heads_alone = (load.rows - load.cache_rows) * load.shape.hidden * load.shape.vocab
    a_token = 2 * (computed * load.cache_rows + heads_alone)
    step = max(reading, a_token * together / rates[1])
    prompt = 2 * computed * load.prompt_tokens * load.cache_rows / rates[1]
    seconds = load.answer_tokens * step + together * prompt
    return Capacity(together, step, together / seconds)
