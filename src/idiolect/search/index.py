"""`Index`: an encoder and a store together, for dense, lexical and hybrid search of texts.

- Building skips items that are already stored with the same text and metadata. Run an interrupted
  build again to resume it.
- The index stores the fingerprint of its encoder. Vectors of different encoders cannot be compared,
  so another encoder is an error.
- Items may have their own vectors. Then no encoder is needed, and queries are vectors, too.

>>> index = Index.build("products", encoder, [Item("p1", "a red lamp")])   # doctest: +SKIP
>>> index.search("crimson light")                                          # doctest: +SKIP
[Hit(id='p1', score=1.0, text='a red lamp', metadata={}, highlight='')]
>>> index = Index.build("own", None, [("p1", "a red lamp", {}, [0.6, 0.8])])   # doctest: +SKIP
>>> [hits[0].score for hits in index.search_vectors([[1.0, 0.0], [0.0, 1.0]])] # doctest: +SKIP
[0.6, 0.8]
"""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from idiolect.search.answers.index_answers import IndexAnswers
from idiolect.search.index_encoder import load_given, remember_encoder
from idiolect.search.index_location import index_folder, is_index
from idiolect.search.index_search import Mode
from idiolect.search.item_forms import as_items
from idiolect.search.items import own_width
from idiolect.search.store.store import Memory, Store
from idiolect.text.arguments import checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts

__all__ = ["Index", "Mode"]


class Index(IndexAnswers):
    """A searchable collection of items; see `IndexContents` for its arguments and its items."""

    @classmethod
    @checked
    def build(
        cls,
        path: str | Path,
        encoder: Encoder | str | None,
        items: Iterable[Any],
        *,
        dimensions: int | None = None,
        memory: Memory | None = None,
        memory_limit: int | str | None = None,
        label_field: str | None = None,
        language: str | None = None,
        namespace: str = "",
        source: str | None = None,
        progress: bool = False,
        skip_invalid_metadata: bool = False,
        encoding_counts: EncodingCounts | None = None,
    ) -> Self:
        """Build an index of items, or resume building it, in bounded memory.

        Args:
            path: the folder of the index.
            encoder: computes the vectors of items without one: an encoder, or its path or name.
                None if all items have vectors, or for the encoder of an existing index.
            items: a stream of items, or of dicts or tuples with the fields of one, or a table; see
                `as_items`. The last item with an id wins.
            dimensions: truncate vectors of the encoder to this size (Matryoshka encoders). Without
                an encoder, the width of the items' own vectors; by default that of the first.
            memory: where graphs are searched, `ram` or `disk`; see `Store.open`.
            memory_limit: of the process, for `disk`, such as `2GB`; see `Store.open`.
            label_field: a metadata field, for `disk`, by whose values filters are faster; see
                `Store.open`.
            language: of the texts, by which lexical search stems words, such as `de`; English by
                default. See `idiolect.search.store.lexical_terms`.
            namespace: the namespace of the items.
            source: location of the encoder, stored in the index with the encoder's precision; by
                default the path or name given as the encoder.
            progress: show progress on a terminal.
            skip_invalid_metadata: see `add`.
            encoding_counts: see `Index`.

        Returns:
            The open index; see its `counts` for the numbers of items.

        Raises:
            ConfigError: the folder has an index built with another encoder, or an item has no
                vector and there is no encoder.
            InputError: an item is not valid; earlier batches are stored.
        """
        folder, stream = index_folder(path), as_items(items)
        source = str(encoder) if isinstance(encoder, str | Path) and source is None else source
        if encoder is not None:
            encoder = load_given(encoder)
            dimensions = dimensions or encoder.dimensions
        elif not is_index(folder):
            first = list(islice(stream, 1))
            dimensions, stream = own_width(first, dimensions), chain(first, stream)
        # Merge only once, at the end: many small insertions would take longer.
        store = Store.open(
            folder,
            dimensions=dimensions,
            language=language,
            background=False,
            memory=memory,
            memory_limit=memory_limit,
            label_field=label_field,
        )
        with cls(store, encoder, encoding_counts=encoding_counts) as index:
            if source is not None:
                remember_encoder(store, source, getattr(encoder, "precision", "fp32"))
            counts = index.add(
                stream,
                namespace=namespace,
                progress=progress,
                skip_invalid_metadata=skip_invalid_metadata,
            )
            index.store.merge()
        built = cls.open(folder, encoder, encoding_counts=encoding_counts)
        built.counts = counts
        return built

    @classmethod
    @checked
    def open(
        cls,
        path: str | Path,
        encoder: Encoder | str | None = None,
        *,
        encoding_counts: EncodingCounts | None = None,
    ) -> Self:
        """Open an index. Close it, or use it as a context manager.

        Args:
            path: the folder of the index, or of a run of the pipeline with one.
            encoder: the encoder that computed the vectors, or its path or name; by default the one
                that the index names, if any. A path or name is loaded when it is first needed.
            encoding_counts: see `IndexContents`.

        Raises:
            InputError: the folder has no index.
            ConfigError: the index was built with another encoder.
        """
        return cls(Store.open(index_folder(path)), encoder, encoding_counts=encoding_counts)
