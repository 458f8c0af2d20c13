"""Key/value caches, so that a decoder processes each token once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["Cache", "LayerCache"]


class LayerCache:
    """Keys and values of one attention layer. Shape: (batch, key heads, length, head width).

    Buffers have spare capacity and double when full, so that a step copies only the new token. The
    first `prefix` entries, which precede the texts of all rows, always stay at the front.
    """

    def __init__(self) -> None:
        self.length = self.prefix = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new tokens at the end; return all keys and all values (views, not copies)."""
        end = self.length + keys.shape[2]
        self._keys = _reserve(self._keys, keys, self.length, end)
        self._values = _reserve(self._values, values, self.length, end)
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def begin(self, keys: Tensor, values: Tensor, rows: int) -> None:
        """Store a prefix that precedes the texts of all rows. Shape: (key heads, n, head width)."""
        self.append(keys.expand(rows, *keys.shape), values.expand(rows, *values.shape))
        self.prefix = self.length

    def read(self) -> tuple[Tensor, Tensor] | None:
        """Return all keys and all values, or `None` before the first `append`."""
        if self._keys is None or self._values is None:
            return None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order (for beams and finished texts)."""
        if self._keys is None or self._values is None:
            return
        if len(rows) != len(self._keys):
            self._keys, self._values = self._keys[rows], self._values[rows]
            return
        for buffer in (self._keys, self._values):
            # The spare capacity is not copied; in the first steps it is most of the buffer.
            # `index_select` takes less than half the time of `used[rows]`.
            used = buffer[:, :, : self.length]
            used.copy_(used.index_select(0, rows))

    def crop(self, length: int) -> None:
        """Keep only the first `length` entries (to discard rejected draft tokens)."""
        self.length = min(self.length, length)

    def drop_first(self, count: int) -> None:
        """Remove the first tokens of the texts, which are padding in every row."""
        if self._keys is not None and self._values is not None:
            for buffer in (self._keys, self._values):
                if self.prefix:  # move the prefix next to the remaining tokens
                    moved = buffer[:, :, : self.prefix].clone()
                    buffer[:, :, count : count + self.prefix] = moved
            self._keys, self._values = self._keys[:, :, count:], self._values[:, :, count:]
            self.length -= count


def _reserve(buffer: Tensor | None, like: Tensor, used: int, needed: int) -> Tensor:
    """Return a buffer with space for `needed` tokens that contains the first `used` ones."""
    if buffer is not None and buffer.shape[2] >= needed:
        return buffer
    batch, heads, _, width = like.shape
    larger = like.new_empty(batch, heads, max(64, 2 * used, needed), width)
    if buffer is not None:
        larger[:, :, :used] = buffer[:, :, :used]
    return larger


class Cache:
    """The caches of a decoder's layers, and the encoder's output of an encoder-decoder network."""

    def __init__(self) -> None:
        self._own: list[LayerCache] = []
        self._cross: list[LayerCache] = []
        self.memory: Tensor | None = None
        """The encoder's hidden states, stored in the first step. Shape: (batch, length, width)."""

    def layer(self, index: int) -> tuple[LayerCache, LayerCache]:
        """Return the caches of a layer's self-attention and cross-attention."""
        while len(self._own) <= index:
            self._own.append(LayerCache())
            self._cross.append(LayerCache())
        return self._own[index], self._cross[index]

    @property
    def length(self) -> int:
        """Number of cached tokens of the texts."""
        return self._own[0].length - self._own[0].prefix if self._own else 0

    @property
    def prefix(self) -> int:
        """Number of virtual tokens before the texts of all rows."""
        return self._own[0].prefix if self._own else 0

    def begin(self, prefix: Sequence[tuple[Tensor, Tensor]], rows: int) -> None:
        """Put keys and values of each layer before the texts of all rows, if nothing is cached.

        Shape: keys and values (key heads, n, head width).
        """
        if prefix and not self._own:
            for index, (keys, values) in enumerate(prefix):
                self.layer(index)[0].begin(keys, values, rows)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order. Shape: rows (n,), int64."""
        for cache in (*self._own, *self._cross):
            cache.select(rows)
        if self.memory is not None:
            self.memory = self.memory[rows]

    def select_beams(self, rows: Tensor, texts: Tensor | None = None) -> None:
        """Keep the given beams, several for each text, grouped by text.

        Entries that depend only on the source have one row per text, shared by its beams.
        Shape: rows (beams,), texts (n,), int64.

        Args:
            rows: The rows of the beams to keep.
            texts: The texts to keep, if not all.
        """
        for cache in self._own:
            cache.select(rows)
        if texts is not None:
            for cache in self._cross:
                cache.select(texts)
            self.memory = None if self.memory is None else self.memory[texts]

    def crop(self, length: int) -> None:
        """Keep only the decoder's first `length` tokens."""
        for cache in self._own:
            cache.crop(length + cache.prefix)

    def drop_first(self, count: int) -> None:
        """Remove the decoder's first tokens, which are padding in every row."""
        for cache in self._own:
            cache.drop_first(count)
