"""`Tokenizer`: encode and decode text with any algorithm of the `tokenizers` engine.

- The kind of tokenizer, the special ids and the fingerprint are read from the engine's JSON and
  `tokenizer_config.json`, never from a model's name.
- A tokenizer does not pad or truncate, and samples only on request. Loading discards the padding
  and truncation settings of `tokenizer.json`, which concern batches.
- `transformers.AutoTokenizer` loads a saved tokenizer with identical ids, because the saved
  settings name the generic class. The specific classes (`LlamaTokenizer`, `T5Tokenizer`, …) rebuild
  parts of the pipeline in their own code, which would lose changes.
- A `Tokenizer` is immutable. To change one, change a copy of its engine and wrap that.
- Texts are data: the name of a special token in a text, such as `<|endoftext|>`, is text, unless
  `parse_special_tokens` is set. Added tokens that are not special are found in any text.
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import groupby
from operator import index
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Self

from tokenizers import pre_tokenizers

from idiolect.errors import CheckpointError, InputError
from idiolect.text.arguments import checked, iterate_texts
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.text.hub import locate
from idiolect.text.tokenizers import formats
from idiolect.text.tokenizers.engine_identity import Kind, find_kind, hash_engine
from idiolect.text.tokenizers.extension import Extension
from idiolect.text.tokenizers.sampling import Sampler, check_strength
from idiolect.text.tokenizers.special_tokens import (
    WHOLE_PIPELINE,
    find_role,
    plain_text_engine,
    published_settings,
    special_names,
)
from idiolect.text.tokenizers.word_counts import batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tokenizers import AddedToken, Encoding
    from tokenizers import Tokenizer as Engine

__all__ = ["Tokenizer"]


class Tokenizer:
    """Encode texts to ids and decode ids to text.

    >>> tokenizer = Tokenizer.load("path/to/checkpoint")  # doctest: +SKIP
    >>> tokenizer.encode_batch(["a text", "another"])  # doctest: +SKIP
    [[64, 2420], [29214]]
    """

    engine: Engine
    """The `tokenizers` engine; change a copy of it, not this one."""
    settings: dict[str, Any]
    """Contents of `tokenizer_config.json` and `special_tokens_map.json`; `save` writes them."""

    def __init__(
        self,
        engine: Engine,
        settings: dict[str, Any] | None = None,
        extension: Extension | Path | None = None,
    ) -> None:
        self.engine = engine
        self.settings = dict(settings or {})
        self._extension = extension
        if engine.truncation is not None:
            self.settings.setdefault("model_max_length", engine.truncation["max_length"])
            engine.no_truncation()
        if engine.padding is not None:
            if engine.token_to_id(padding := engine.padding["pad_token"]) is not None:
                self.settings.setdefault("pad_token", padding)
            engine.no_padding()
        # Set once, before the engine is shared, and not saved with it. See `text_engine`.
        engine.encode_special_tokens = True
        for randomness in ("dropout", "alpha"):
            if getattr(engine.model, randomness, None) is not None:
                setattr(engine.model, randomness, None)

    @classmethod
    @checked
    def load(cls, source: str | Path, *, encoding: str | None = None) -> Self:
        """Load a published tokenizer.

        Args:
            source: a directory, one file (`tokenizer.json`, `vocab.json` with `merges.txt` in the
                same folder, `vocab.txt`, a SentencePiece `.model`, a tiktoken rank file), or the id
                of a repository on the Hugging Face hub.
            encoding: for tiktoken ranks, the published name of their encoding; by default the
                file's name.

        Raises:
            InputError: there is no such file, directory or repository, or no tokenizer in it.
            CheckpointError: a file is damaged, not UTF-8, or contradicts another.
            OfflineError: the hub cannot be reached and the files are not cached.
        """
        path = locate(source, (*formats.TOKENIZER_FILES, "extension.json"))
        engine, settings = formats.read(path, encoding)
        record = (path if path.is_dir() else path.parent) / "extension.json"
        return cls(engine, settings, record if record.is_file() else None)

    @classmethod
    def from_engine(
        cls,
        engine: Engine,
        settings: dict[str, Any] | None = None,
        extension: Extension | None = None,
    ) -> Self:
        """Wrap an engine, which must not be changed afterwards."""
        return cls(engine, settings, extension)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the engines made on demand: a copy of an engine loses its switches."""
        return {"engine": self.engine, "settings": self.settings, "extension": self._extension}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or a pickled tokenizer."""
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def extension(self) -> Extension | None:
        """The record of the tokens added to a published tokenizer; None if there are none.

        Raises:
            CheckpointError: the record on disk is damaged, or belongs to another tokenizer.
        """
        if not isinstance(self._extension, Path):
            return self._extension
        found = check_format(read_json(self._extension), self._extension)
        record = Extension.from_dict(found)
        if record.size + len(record.added) != len(self):
            raise CheckpointError(
                f"{self._extension} adds {len(record.added)} ids to {record.size}, "
                f"but the tokenizer has {len(self)}",
                hint="it belongs to another tokenizer; restore the right one or remove it",
            )
        return record

    @checked
    def save(self, directory: str | Path, *, settings: Mapping[str, Any] | None = None) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, each atomically.

        The record of an extension is written to `extension.json`.
        `transformers.AutoTokenizer` loads the directory with identical ids. A tokenizer without a
        padding token names an existing special token for it, since readers pad batches with it.

        Args:
            directory: The directory.
            settings: Further entries of `tokenizer_config.json`, for keys that are not set.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # An extended tokenizer may later be placed beside the config.json of any type of model.
        defaults = {**(WHOLE_PIPELINE if self.extension else {}), **(settings or {})}
        written = published_settings(self.engine, {**defaults, **self.settings})
        text = json.dumps(written, ensure_ascii=False, indent=2, sort_keys=True)
        write_atomic(directory / "tokenizer_config.json", f"{text}\n".encode())
        record = directory / "extension.json"
        if self.extension:
            compact = json.dumps(with_format(self.extension.to_dict()), ensure_ascii=False)
            write_atomic(record, f"{compact}\n".encode())
        else:
            record.unlink(missing_ok=True)
        write_atomic(directory / "tokenizer.json", self.engine.to_str(pretty=True).encode())

    @cached_property
    def text_engine(self) -> Engine:
        """The engine that encodes text, and treats the names of special tokens as text."""
        return plain_text_engine(self.engine, set(self.special_tokens))

    @cached_property
    def _parsing_engine(self) -> Engine:
        return type(self.engine).from_str(self.engine.to_str())

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Names and ids of the special tokens."""
        names = special_names(self.engine, self.settings)
        added = self.engine.get_added_tokens_decoder().items()
        return {token.content: id_ for id_, token in added if token.content in names}

    @cached_property
    def batch_pad_token_id(self) -> int | None:
        """Id of the token with which users of the saved tokenizer pad batches."""
        return find_role(self.engine, published_settings(self.engine, self.settings), "pad")

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        add_special_tokens: bool = True,
        parse_special_tokens: bool = False,
    ) -> list[list[int]]:
        """Encode texts, by default with the special tokens of the model's own template.

        Args:
            texts: the texts.
            add_special_tokens: whether to add the special tokens of the model's template.
            parse_special_tokens: whether to encode the name of a special token in a text as that
                token. Use it only for templates: in a document, `<|endoftext|>` would end the text.

        Returns:
            The ids of each text.
        """
        engine = self._parsing_engine if parse_special_tokens else self.text_engine
        return [
            encoding.ids
            for batch in batches(_check_batch(texts))
            for encoding in engine.encode_batch_fast(batch, add_special_tokens=add_special_tokens)
        ]

    def encode(
        self, text: str, *, add_special_tokens: bool = True, parse_special_tokens: bool = False
    ) -> list[int]:
        """Encode one text; see `encode_batch`."""
        return self.encode_batch(
            [text],
            add_special_tokens=add_special_tokens,
            parse_special_tokens=parse_special_tokens,
        )[0]

    def encode_with_offsets(
        self,
        texts: Iterable[str],
        *,
        add_special_tokens: bool = True,
        parse_special_tokens: bool = False,
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Encode texts as `encode_batch` does, and locate each token.

        Returns:
            The ids of each text, and the character range `(start, end)` of each id. Tokens of the
            template have `(0, 0)`.
        """
        return [
            (encoding.ids, encoding.offsets)
            for encoding in self._encodings(texts, add_special_tokens, parse_special_tokens)
        ]

    def sample_batch(
        self,
        texts: Iterable[str],
        *,
        alpha: float | None = None,
        dropout: float | None = None,
        seed: int = 0,
        add_special_tokens: bool = True,
        parse_special_tokens: bool = False,
    ) -> list[list[int]]:
        """Encode texts with random segmentations, which the seed determines.

        Args:
            texts: the texts.
            alpha: for Unigram, the exponent of a segmentation's probability (Kudo 2018). 0 samples
                uniformly, 0.1 to 0.5 are usual, a large value always takes the best.
            dropout: for BPE, the probability to skip a merge (Provilkov et al. 2020). 0 is
                deterministic, 0.1 is usual, 1 leaves single symbols.
            seed: random seed.
            add_special_tokens: as in `encode_batch`.
            parse_special_tokens: as in `encode_batch`.

        Raises:
            InputError: the parameter of the algorithm is missing or out of range, or the algorithm
                has no subword sampling.
        """
        strength = check_strength(self.kind, alpha=alpha, dropout=dropout)
        random = Random(seed)
        return [
            self._sampler.resample(encoding, strength, random)
            for encoding in self._encodings(texts, add_special_tokens, parse_special_tokens)
        ]

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self.engine)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Decode ids to a text; see `decode_batch`."""
        return self.decode_batch([ids], skip_special_tokens=skip_special_tokens)[0]

    def decode_batch(
        self, batch: Iterable[Sequence[int]], *, skip_special_tokens: bool = True
    ) -> list[str]:
        """Decode lists of ids to texts.

        Raises:
            InputError: an id is negative or not below `len(self)`.
        """
        try:
            lists = [list(map(index, ids)) for ids in batch]
        except TypeError as error:
            raise InputError(
                "expected lists of ids", hint="pass [tokenizer.encode(text)]"
            ) from error
        for ids in lists:
            if ids and not (min(ids) >= 0 and max(ids) < len(self)):
                wrong = next(i for i in ids if not 0 <= i < len(self))
                raise InputError(
                    f"id {wrong} is outside the vocabulary of {len(self)} ids",
                    hint="they may come from another tokenizer",
                )
        if self._misread:
            return [self._decode_runs(ids, skip_special_tokens) for ids in lists]
        return self.engine.decode_batch(lists, skip_special_tokens=skip_special_tokens)

    @cached_property
    def _misread(self) -> dict[int, AddedToken]:
        """Added tokens that the engine's decoder would decode as bytes, such as `naïve`."""
        if self.kind != "byte-bpe":
            return {}
        alphabet = set(pre_tokenizers.ByteLevel.alphabet())
        return {
            id_: token
            for id_, token in self.engine.get_added_tokens_decoder().items()
            if not token.content.isascii() and set(token.content) <= alphabet
        }

    def _decode_runs(self, ids: list[int], skip_special_tokens: bool) -> str:
        parts = []
        for token, run in groupby(ids, key=self._misread.get):
            if token is None:
                parts.append(self.engine.decode(list(run), skip_special_tokens))
            elif not (token.special and skip_special_tokens):
                parts += [token.content for _ in run]
        return "".join(parts)

    @cached_property
    def _length(self) -> int:
        return max(self.engine.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def __len__(self) -> int:
        """Return the number of ids, including added tokens and unused ids below the largest."""
        return self._length

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {len(self)} ids)"

    @cached_property
    def kind(self) -> Kind:
        """The engine's algorithm, found from its components.

        Raises:
            ConfigError: the engine's algorithm is unknown.
        """
        return find_kind(self.engine)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that determines ids: 32 hexadecimal digits, unchanged by saving."""
        return hash_engine(self.engine)

    def token_id(self, role: str) -> int | None:
        """Return the id of a special token by its role, such as `pad` or `eos`, or None.

        The settings (`pad_token`, …) are tried first, then the post-processor and the model, then
        the usual names of special tokens.
        """
        return find_role(self.engine, self.settings, role)

    pad_token_id = cached_property(lambda self: self.token_id("pad"))
    """Id of the padding token, or None."""
    bos_token_id = cached_property(lambda self: self.token_id("bos"))
    """Id of the beginning-of-text token, or None."""
    eos_token_id = cached_property(lambda self: self.token_id("eos"))
    """Id of the end-of-text token, or None."""
    unk_token_id = cached_property(lambda self: self.token_id("unk"))
    """Id of the token for unknown text, or None."""
    mask_token_id = cached_property(lambda self: self.token_id("mask"))
    """Id of the token for a masked position, or None."""
    cls_token_id = cached_property(lambda self: self.token_id("cls"))
    """Id of the token whose hidden state represents the text, or None."""
    sep_token_id = cached_property(lambda self: self.token_id("sep"))
    """Id of the token that separates two texts, or None."""

    def _encodings(self, texts: Iterable[str], add: bool, parse: bool) -> Iterator[Encoding]:
        engine = self._parsing_engine if parse else self.text_engine
        for batch in batches(_check_batch(texts)):
            yield from engine.encode_batch(batch, add_special_tokens=add)


def _check_batch(texts: Iterable[str]) -> Iterable[str]:
    """Reject a single text, because a string is an iterable of strings as well."""
    if isinstance(texts, str):
        raise InputError("expected a batch of texts, not one text", hint="use encode")
    return iterate_texts(texts)
