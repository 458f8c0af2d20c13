"""Position encodings.

Positions enter a Transformer at one of three places:

    embeddings        learned table, sinusoids
    queries and keys  rotary
    scores            T5 buckets, ALiBi, untied positions (TUPE): the `ScoreBias` modules

Shaw's relative keys and values belong to each layer: the attention holds a `RelativeTable`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from idiolect.nn.basic import Linear
from idiolect.nn.config import RotaryScaling, TransformerConfig

__all__ = [
    "Alibi",
    "RelativeBuckets",
    "RelativeTable",
    "Rotary",
    "ScoreBias",
    "Sinusoids",
    "UntiedPositions",
    "alibi_slopes",
    "make_score_bias",
    "relative_bucket",
    "rotary_frequencies",
    "rotate",
    "sinusoids",
]


def sinusoids(length: int, width: int, *, interleaved: bool) -> Tensor:
    """Return the sinusoidal table of "Attention Is All You Need" (Vaswani et al. 2017, 1706.03762).

    With `interleaved`, sines and cosines alternate and the frequencies are 10000^(-2i/width).
    Otherwise all sines come first and the exponent has width/2 - 1 steps, as in tensor2tensor and
    fairseq (and therefore in XGLM's weights).

    Shape: (length, width), float32.
    """
    positions = torch.arange(length, dtype=torch.float64, device="cpu")[:, None]
    half = width // 2
    steps = torch.arange(half, dtype=torch.float64, device="cpu")
    if interleaved:
        angles = positions * 10_000.0 ** (-2 * steps / width)
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    else:
        angles = positions * 10_000.0 ** (-steps / max(half - 1, 1))
        table = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return nn.functional.pad(table, (0, width - table.shape[1])).float()


def rotary_frequencies(
    width: int, *, base: float, scaling: RotaryScaling | None
) -> tuple[Tensor, float]:
    """Return the rotation of each dimension pair per position, and the factor on the cosines.

    Shape: (width / 2,), float32.
    """
    # Frequencies are not weights: they are computed even if the weights are on the "meta" device.
    steps = torch.arange(0, width, 2, dtype=torch.float32, device="cpu")
    frequencies = 1.0 / base ** (steps / width)
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        turns = scaling.trained_length * frequencies / (2 * math.pi)
        keep = ((turns - scaling.slow) / (scaling.fast - scaling.slow)).clamp(0, 1)
        return frequencies * (keep + (1 - keep) / scaling.factor), 1.0

    def dimension(turns: float) -> float:
        """Return the index of the pair with this many rotations within the trained length."""
        return (
            width * math.log(scaling.trained_length / (turns * 2 * math.pi)) / (2 * math.log(base))
        )

    low, high = dimension(scaling.fast), dimension(scaling.slow)
    if scaling.rounded:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (steps / 2 - low) / max(high - low, 1e-3)
    divide = ramp.clamp(0, 1)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return frequencies * (1 - divide + divide / scaling.factor), factor


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (x_i, x_{i + width/2}) by its angle (Su et al. 2021, 2104.09864).

    Shape: x (…, heads, width); cosines and sines (…, 1, width), or fewer dimensions, the first of
    x; the others are unchanged.
    """
    cosine, sine = turn
    if (turned := cosine.shape[-1]) < x.shape[-1]:
        return torch.cat([rotate(x[..., :turned], turn), x[..., turned:]], dim=-1)
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-right, left], dim=-1) * sine


class Sinusoids(nn.Module):
    """The sinusoidal table, extended for longer texts; it is not saved."""

    table: Tensor

    def __init__(self, length: int, width: int, *, interleaved: bool) -> None:
        super().__init__()
        self.width, self.interleaved = width, interleaved
        table = sinusoids(length, width, interleaved=interleaved)
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Look positions up. Shape: (…) to (…, width)."""
        needed = int(positions.max()) + 1 if positions.numel() else 0
        table = self.table  # Another thread may meanwhile replace it by a shorter one.
        if needed > len(table):
            longer = sinusoids(2 * needed, self.width, interleaved=self.interleaved)
            self.table = table = longer.to(table)
        return table[positions]


class Rotary(nn.Module):
    """Rotary angles for any positions; the frequencies are not saved."""

    frequencies: Tensor

    def __init__(self, width: int, *, base: float, scaling: RotaryScaling | None) -> None:
        super().__init__()
        exact, self.factor = rotary_frequencies(width, base=base, scaling=scaling)
        self._exact = exact.tolist()
        self.register_buffer("frequencies", exact, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network's device, but stay in float32: rounded frequencies shift positions."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.frequencies.dtype != torch.float32:
            self.frequencies = torch.tensor(self._exact, device=self.frequencies.device)
        return self

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosines and sines. Shape: positions (…), result two of (…, 1, width)."""
        angles = positions[..., None, None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return (angles.cos() * self.factor).to(dtype), (angles.sin() * self.factor).to(dtype)


class ScoreBias(nn.Module, ABC):
    """A bias on the attention scores of every layer, computed from positions alone."""

    @abstractmethod
    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the bias.

        Shape: positions (…, queries) and (…, keys), result (…, heads, queries, keys).
        """


def relative_bucket(distance: Tensor, *, buckets: int, limit: int, two_sided: bool) -> Tensor:
    """Return T5's bucket of signed distances, key minus query (Raffel et al. 2019, 1910.10683).

    Half of the buckets contain a single distance; the others grow logarithmically up to `limit`. If
    `two_sided`, the upper half of the bucket numbers is for keys to the right.

    >>> relative_bucket(torch.tensor([-200, -3, 0, 3]), buckets=32, limit=128, two_sided=True)
    tensor([15,  3,  0, 19])
    """
    start = torch.zeros_like(distance)
    if two_sided:
        buckets //= 2
        start = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = -distance.clamp(max=0)
    exact = buckets // 2
    # The same float32 operations as in the reference: bucket borders depend on their rounding.
    wide = torch.log(distance.float() / exact) / math.log(limit / exact) * (buckets - exact)
    wide = (exact + wide.clamp(min=0).long()).clamp(max=buckets - 1)
    return start + torch.where(distance < exact, distance, wide)


class RelativeBuckets(ScoreBias):
    """A learned score per attention head and distance bucket, shared by all layers (T5)."""

    def __init__(self, heads: int, *, buckets: int, limit: int, two_sided: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        self.limit = limit
        self.two_sided = two_sided

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Look up the score of each distance."""
        bucket = relative_bucket(
            keys[..., None, :] - queries[..., :, None],
            buckets=self.table.num_embeddings,
            limit=self.limit,
            two_sided=self.two_sided,
        )
        scores: Tensor = self.table(bucket)
        return scores.movedim(-1, -3)


def alibi_slopes(heads: int) -> Tensor:
    """Return the slope of each attention head: powers of 2^(-8/heads).

    If the number of heads is not a power of two, slopes are interpolated for the remaining ones.

    Shape: (heads,).
    """
    whole = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / whole) for i in range(whole)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / whole) for i in range(heads - whole)]
    return torch.tensor(slopes, device="cpu")


class Alibi(ScoreBias):
    """A penalty that grows linearly with distance (Press et al. 2021, 2108.12409)."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(heads), persistent=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return -slope · |key - query|."""
        distance = (keys[..., None, :] - queries[..., :, None]).abs()
        return -self.slopes[:, None, None] * distance[..., None, :, :]


class UntiedPositions(ScoreBias):
    """Position scores with separate projections from those of the content (TUPE, 2006.15595).

    Content and position scores are summed, so both are scaled by (2·head_dim)^-0.5. With
    `relative_buckets` a relative score is added (TUPE-R). If `two_sided`, the first token is
    untied: its row and column have one learned score each, since [CLS] represents the text and not
    a position.
    """

    def __init__(self, config: TransformerConfig, *, two_sided: bool) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.scale = (2 * config.attention_head_size) ** -0.5
        self.table = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.query = Linear(
            config.hidden_size, config.num_attention_heads * config.attention_head_size
        )
        self.key = Linear(
            config.hidden_size, config.num_attention_heads * config.attention_head_size
        )
        self.relative = (
            RelativeBuckets(
                config.num_attention_heads,
                buckets=config.relative_buckets,
                limit=config.relative_distance,
                two_sided=two_sided,
            )
            if config.relative_buckets
            else None
        )
        self.first = nn.Parameter(torch.zeros(2, config.num_attention_heads)) if two_sided else None

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the scores between all positions."""
        positions = self.norm(self.table.weight)
        query = self.query(positions)[queries].unflatten(-1, (self.heads, -1)).movedim(-2, -3)
        key = self.key(positions)[keys].unflatten(-1, (self.heads, -1)).movedim(-2, -3)
        scores: Tensor = query @ key.mT * self.scale
        if self.relative is not None:
            scores = scores + self.relative(queries, keys)
        if self.first is not None:
            of_first, to_first = self.first[:, :, None, None]
            from_first = (queries == 0)[..., None, :, None]
            scores = torch.where((keys == 0)[..., None, None, :], to_first, scores)
            scores = torch.where(from_first, of_first, scores)
        return scores


def make_score_bias(config: TransformerConfig, *, two_sided: bool) -> ScoreBias | None:
    """Build the score bias of a configuration, if it has one."""
    if config.has_buckets:
        return RelativeBuckets(
            config.num_attention_heads,
            buckets=config.relative_buckets,
            limit=config.relative_distance,
            two_sided=two_sided,
        )
    if config.position == "alibi":
        return Alibi(config.num_attention_heads)
    if config.position == "untied":
        return UntiedPositions(config, two_sided=two_sided)
    return None


class RelativeTable(nn.Module):
    """One learned vector per clipped distance (Shaw et al. 2018, 1803.02155).

    There are 2·k + 1 vectors; distances beyond ±k share the outermost ones.
    """

    def __init__(self, vectors: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vectors, width)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Look up a vector for each pair. Shape: (…, queries, keys, width)."""
        limit = (self.table.num_embeddings - 1) // 2
        distance = (keys[..., None, :] - queries[..., :, None]).clamp(-limit, limit)
        vectors: Tensor = self.table(distance + limit)
        return vectors
