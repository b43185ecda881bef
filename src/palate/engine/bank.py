"""The adapter bank: all experts stacked on the frozen base, mixed per row, exactly.

For a row with coefficients `c` a linear layer computes

    y = W x + sum_k c_k s_k B_k A_k x = W x + B (m * (A x)),    m = c_k s_k repeated rank_k times,

with A and B the experts' factors stacked. Any mix of ranks, scales and adapted layers works,
coefficients may be negative, and every row of a batch has its own. Where no row has more than one
expert (mixtures, portfolios) each row can take its own expert's factors instead of all, the same
sum without its zeros; it does where that moves fewer bytes: in passes of several tokens, or where
there are no more rows than experts. Only the stretch of experts that some row of the batch uses is
multiplied. On a CPU passes of few tokens take copies of the factors in float32: a thin product in
bfloat16 costs up to five times as much there, and rounds. The base is not changed: forward hooks
add the second term while `applied` is in force, so a bank costs nothing when it is not used.

Rows that differ only in what experts do to the unembedding can share one pass of everything before
it: they share a sequence, and the head's hook turns its hidden states into the rows' logits.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from palate.core.errors import FormatError, InvalidCoefficientsError
from palate.core.files import reading
from palate.models.adapter import PARAMETERS, Adapter, Factor, load_adapter
from palate.models.load import Base
from palate.models.packed import MOST_TOKENS, Rearranged
from palate.models.reach import head_of, is_adaptable, reach_of

Signature = tuple[tuple[int, int, float], ...]  # (expert, rank, scale) of each stacked block
MOST_STRETCH = 0.55  # share of the ranks, above which the unembedding's rearranged factors win
MOST_NUMBERS = 2**20  # tokens times numbers of both factors, up to which float32 wins on a CPU


@dataclass(frozen=True, eq=False)
class _Layer:
    down: Float[Tensor, "ranks d_in"]
    up: Float[Tensor, "ranks d_out"]
    signature: Signature
    is_head: bool
    rearranged: Rearranged | None  # `up` of the unembedding, where passes of few tokens take it so
    floats: tuple[Tensor, Tensor] | None  # `down` and `up` in float32, where few tokens take those


@dataclass(frozen=True, eq=False)
class _Scales:
    """The factors of a layer's inner products."""

    ranks: slice  # of the stretch of blocks that rows use
    values: Float[Tensor, "rows 1 ranks"]  # of the stretch
    floats: Float[Tensor, "rows 1 ranks"]  # the same in float32
    own: Float[Tensor, "rows 1 one"]  # of each row's only block
    blocks: Int[Tensor, " rows"] | None  # each row's only block; `None` where one has several


class AdapterBank:
    """Experts on one base, in a fixed order."""

    def __init__(
        self,
        base: Base,
        adapters: Mapping[str, Adapter],
        *,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Stack the adapters and hook the layers they change.

        The order of the adapters is the bank order; there may be none. The base's parameters stay.
        An error names the adapter's file where `files` has them.

        Raises:
            FormatError: an adapter names a layer the base lacks, or of other dimensions.
        """
        self.names: tuple[str, ...] = tuple(adapters)
        self._scales: dict[tuple[Signature, bool], _Scales] = {}
        self._latest: tuple[object, dict[tuple[Signature, bool], _Scales]] = None, {}
        self._sequences: Int[Tensor, " rows"] | None = None
        self._device, self._turn = base.device, base.turn
        self._handles: list[RemovableHandle] = []
        modules = dict(base.model.named_modules())
        changed = list(dict.fromkeys(name for adapter in adapters.values() for name in adapter))
        for expert, adapter in adapters.items():
            with nullcontext() if files is None else reading(files[expert]):
                _require_fit(modules, adapter, expert=expert, base=base.path)
        self._layers: dict[str, _Layer] = {}
        reach, head = reach_of(base.model, changed), head_of(base.model)
        if head is not None:
            self._handles.append(head.register_forward_pre_hook(_contiguous))
            self._handles.append(head.register_forward_hook(self._spread))
        self._before_head, self._in_cache = (
            tuple(
                index
                for index, adapter in enumerate(adapters.values())
                if any(reach[name] not in kinds for name in adapter)
            )
            for kinds in (("head",), ("head", "last"))
        )
        for name in changed:
            blocks = [
                (index, adapter[name])
                for index, adapter in enumerate(adapters.values())
                if name in adapter
            ]
            parameter = next(base.model.parameters())
            layer = _stack(blocks, like=parameter, is_head=reach[name] == "head")
            self._layers[name] = layer
            self._handles.append(modules[name].register_forward_hook(self._hook(layer)))
        self.n_bytes = sum(
            (layer.down.numel() + layer.up.numel()) * layer.down.element_size()
            for layer in self._layers.values()
        )

    @classmethod
    def load(cls, base: Base, folders: Mapping[str, Path]) -> "AdapterBank":
        """The bank of the PEFT folders, in the mapping's order; raises also as `load_adapter`."""
        adapters = {name: load_adapter(folder) for name, folder in folders.items()}
        files = {name: folder / PARAMETERS for name, folder in folders.items()}
        with base.turn:
            return cls(base, adapters, files=files)

    @property
    def n_experts(self) -> int:
        """Number of experts."""
        return len(self.names)

    def before_head(self, coefficients: Sequence[float]) -> tuple[float, ...]:
        """The coefficients that change hidden states: rows equal in them can share a sequence."""
        return tuple(coefficients[index] for index in self._before_head)

    def in_cache(self, coefficients: Sequence[float]) -> tuple[float, ...]:
        """The coefficients that change keys or values: rows equal in them can share a cache."""
        return tuple(coefficients[index] for index in self._in_cache)

    @contextmanager
    def applied(
        self,
        coefficients: Sequence[Sequence[float]] | Tensor,
        *,
        sequences: Sequence[int] | None = None,
    ) -> Generator[None]:
        """While in force, row `b` of every batch runs with coefficients `coefficients[b]`.

        Args:
            coefficients: `[rows, experts]`, any sign; one row per row of the batch.
            sequences: `[rows]`, row of the model's input that each row uses, where that has fewer:
                the logits then have a row for each. All of `0..sequences-1` occur, and rows of a
                sequence agree in `before_head`.

        Raises:
            InvalidCoefficientsError: the shape is not `[rows, experts]` or a value is not finite.
        """
        matrix = torch.as_tensor(coefficients, dtype=torch.float64)
        if matrix.ndim != 2 or matrix.shape[1] != self.n_experts:
            raise InvalidCoefficientsError(
                f"The coefficients have shape {tuple(matrix.shape)}, but the bank has "
                f"{self.n_experts} experts; give one coefficient per expert and row."
            )
        if not bool(torch.isfinite(matrix).all()):
            raise InvalidCoefficientsError("The coefficients hold a value that is not finite.")
        key = (matrix.shape, matrix.cpu().numpy().tobytes(), tuple(sequences or ()))
        with self._turn:
            before = self._scales, self._sequences
            self._sequences = (
                None if sequences is None else torch.tensor(sequences, device=self._device)
            )
            if key != self._latest[0]:  # a running batch asks for the same at every step
                self._latest = key, self._scales_for(matrix, sequences)
            self._scales = self._latest[1]
            try:
                yield
            finally:
                self._scales, self._sequences = before

    def close(self) -> None:
        """Take the hooks off the base."""
        with self._turn:
            for handle in self._handles:
                handle.remove()
        self._handles.clear()

    def _scales_for(
        self, rows: Float[Tensor, "rows experts"], sequences: Sequence[int] | None
    ) -> dict[tuple[Signature, bool], _Scales]:
        if not bool(rows.any()):
            return {}
        by_sequence = rows
        if sequences is not None:
            by_sequence = rows[
                [sequences.index(sequence) for sequence in range(max(sequences) + 1)]
            ]
        has_one = bool(((rows != 0).sum(dim=1) <= 1).all())
        scales: dict[tuple[Signature, bool], _Scales] = {}
        for layer in self._layers.values():
            signature, key = layer.signature, (layer.signature, layer.is_head)
            if key in scales:
                continue
            matrix = rows if layer.is_head else by_sequence
            experts = torch.tensor([k for k, _, _ in signature])
            ranks = torch.tensor([rank for _, rank, _ in signature])
            factors = torch.tensor([scale for _, _, scale in signature], dtype=torch.float64)
            by_block = matrix[:, experts] * factors  # [rows, blocks]
            every = by_block.repeat_interleave(ranks, dim=1)
            used = every.any(dim=0).nonzero().flatten().tolist()
            if not used:
                continue
            blocks = by_block.abs().argmax(dim=1)
            own = by_block.gather(1, blocks.unsqueeze(1)).unsqueeze(1).to(layer.down)
            is_alone = has_one and len(set(ranks.tolist())) == 1 and len(set(blocks.tolist())) > 1
            stretch = slice(used[0], used[-1] + 1)
            if (
                layer.rearranged is not None
                and len(every.T[stretch]) > MOST_STRETCH * every.shape[1]
            ):
                stretch = slice(None)
            scales[key] = _Scales(
                stretch,
                (values := every[:, stretch].unsqueeze(1)).to(layer.down),
                values.to(layer.down.device, torch.float32),
                own,
                blocks.to(own.device) if is_alone else None,
            )
        return scales

    def _spread(
        self, _module: nn.Module, _args: tuple[Tensor, ...], output: Tensor
    ) -> Tensor | None:
        return None if self._sequences is None else output.index_select(0, self._sequences)

    def _hook(self, layer: _Layer):
        def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            scale = self._scales.get((layer.signature, layer.is_head))
            if scale is None:
                return None
            source = args[0]
            if layer.is_head and self._sequences is not None:
                source = source.index_select(0, self._sequences)
            shape = output.shape
            if source.ndim != 3:  # some models pass all tokens in one axis, or heads in one more
                by_row = (len(scale.values), -1)
                source = source.reshape(*by_row, source.shape[-1])
                output = output.reshape(*by_row, shape[-1])
            n_blocks, n_tokens = len(layer.signature), source.shape[0] * source.shape[1]
            is_taught = torch.is_grad_enabled()
            is_few = layer.rearranged is not None and n_tokens <= MOST_TOKENS and not is_taught
            n_numbers = scale.values.shape[2] * (source.shape[2] + output.shape[2]) * n_tokens
            if layer.floats is not None and n_numbers <= MOST_NUMBERS and not is_taught:
                down, up = (part[scale.ranks] for part in layer.floats)
                inner = nn.functional.linear(source.float(), down) * scale.floats
                return output.add_(inner @ up).view(shape)
            is_thin = source.shape[1] > 1 or len(source) <= n_blocks
            if scale.blocks is not None and is_thin and not is_few:
                own = (n_blocks, -1)  # [rows, rank, d] below
                down = layer.down.view(*own, layer.down.shape[1]).index_select(0, scale.blocks)
                up = layer.up.view(*own, layer.up.shape[1]).index_select(0, scale.blocks)
                return torch.baddbmm(output, (source @ down.mT) * scale.own, up).view(shape)
            down, up = layer.down[scale.ranks], layer.up[scale.ranks]
            inner = (nn.functional.linear(source, down) * scale.values).flatten(0, 1)
            flat = output.flatten(0, 1)
            if is_few and layer.rearranged is not None and len(up) == len(layer.up):
                return layer.rearranged.added(flat, inner).view(shape)
            return torch.addmm(flat, inner, up).view(shape)

        return add


def _contiguous(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last tokens' hidden states in one piece: else torch copies the matrix for every row."""
    return tuple(part.contiguous() for part in args)


def _stack(blocks: Sequence[tuple[int, Factor]], *, like: Tensor, is_head: bool) -> _Layer:
    down = torch.cat([factor.down for _, factor in blocks]).contiguous()
    up = torch.cat([factor.up.T for _, factor in blocks]).contiguous()
    signature = tuple((index, factor.rank, factor.scale) for index, factor in blocks)
    down, up = down.to(like.device, like.dtype), up.to(like.device, like.dtype)
    other = Rearranged(up.T) if is_head and Rearranged.is_possible(up) else None
    is_small = not is_head and down.numel() + up.numel() <= MOST_NUMBERS
    has_floats = is_small and down.dtype.itemsize == 2 and down.device.type == "cpu"
    floats = (down.float(), up.float()) if has_floats else None
    return _Layer(down, up, signature, is_head, other, floats)


def _require_fit(
    modules: Mapping[str, nn.Module], adapter: Adapter, *, expert: str, base: str
) -> None:
    for layer, factor in adapter.items():
        module = modules.get(layer)
        matrix = getattr(module, "weight", None)
        if not isinstance(matrix, Tensor) or matrix.ndim != 2:
            raise FormatError(
                f"The expert {expert!r} adapts the layer {layer!r}, which the base {base!r} "
                "does not have; use the base it was trained on."
            )
        if not is_adaptable(layer, module):
            raise FormatError(
                f"The expert {expert!r} adapts {layer!r}, but only plain linear layers that every "
                "token passes can be stacked; train it with target_modules 'all-linear'."
            )
        is_linear = isinstance(module, nn.Linear)  # a quantised one's matrix is packed
        d_out, d_in = (module.out_features, module.in_features) if is_linear else matrix.shape[::-1]
        own = (*factor.up.shape, *factor.down.shape)
        if own != (d_out, factor.rank, factor.rank, d_in):
            raise FormatError(
                f"The expert {expert!r} adapts the layer {layer!r} with dimensions {own}, but the "
                f"base {base!r} has {(d_out, d_in)}; use the base it was trained on."
            )
        if not bool(torch.isfinite(factor.up).all() and torch.isfinite(factor.down).all()):
            raise FormatError(
                f"The expert {expert!r} has a number of the layer {layer!r} that is not finite, "
                "which would reach every answer; train it again."
            )
