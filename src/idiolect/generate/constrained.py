"""Constrained decoding: texts that match a regular expression, a grammar or a JSON schema.

`llguidance` computes the mask of permitted tokens, which is applied here. The tokenizer is that of
the model, so added domain terms are tokens like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import ConfigError, MissingDependencyError
from idiolect.generate.logits_processors import WrittenRow
from idiolect.text.arguments import checked

if TYPE_CHECKING:
    from idiolect.generate.generator import Generator

__all__ = ["Constraint"]

_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space between values is fixed; otherwise a model may generate it endlessly."""


class Constraint:
    """A constraint on generated text. Pass it to `Generator.generate(constraint=...)`.

    Create one with `regex`, `grammar` or `json_schema`. A text that was truncated at
    `max_new_tokens` is only a prefix of a match; its `finish_reason` is `length`.
    """

    def __init__(self, generator: Generator, grammar: str, kind: str) -> None:
        self._library = _library()
        tokenizer = generator.model.tokenizer
        self.eos_token_id = list(generator.eos_token_id)
        """The only ids that are permitted after a complete text."""
        if not self.eos_token_id:
            raise ConfigError(
                "the model has no token that ends a text", hint="choose a model with one"
            )
        try:
            self._tokenizer = self._library.LLTokenizer(
                tokenizer.engine.to_str(), n_vocab=len(tokenizer), eos_token=self.eos_token_id
            )
        except ValueError as error:
            raise ConfigError(
                f"constraints cannot be used with this tokenizer: {error}",
                hint="choose a model with a byte-level or byte-fallback vocabulary",
            ) from error
        wrong, messages = self._library.LLMatcher.validate_grammar_with_warnings(
            grammar, self._tokenizer
        )
        if wrong or messages:
            text = " ".join("; ".join(messages).split())
            raise ConfigError(
                f"the {kind} cannot be used: {text[:300]}", hint="change or remove that part"
            )
        self._grammar = grammar
        self._matchers: WeakKeyDictionary[WrittenRow, tuple[Any, list[int]]] = WeakKeyDictionary()

    @classmethod
    @checked
    def regex(cls, generator: Generator, pattern: str) -> Self:
        """Match a regular expression, from the first to the last character.

        Raises:
            ConfigError: It is not valid, or uses features that finite automata do not support.
        """
        grammar = _library().LLMatcher.grammar_from_regex(pattern)
        return cls(generator, grammar, "regular expression")

    @classmethod
    @checked
    def grammar(cls, generator: Generator, lark: str) -> Self:
        """Match a context-free grammar in the syntax of Lark; the start rule is `start`.

        Raises:
            ConfigError: The grammar is not valid.
        """
        return cls(generator, _library().LLMatcher.grammar_from_lark(lark), "grammar")

    @classmethod
    def json_schema(cls, generator: Generator, schema: Mapping[str, Any]) -> Self:
        """Match JSON that satisfies a schema.

        Raises:
            ConfigError: The schema is not valid, is contradictory, or has a keyword that cannot be
                enforced.
        """
        try:
            grammar = _library().LLMatcher.grammar_from_json_schema(
                json.dumps(schema), defaults=_JSON
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the JSON schema cannot be used: {error}") from error
        return cls(generator, grammar, "JSON schema")

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores of the permitted tokens; the others become -inf."""
        for place, row in enumerate(rows):
            mask = np.frombuffer(self._matcher(row).compute_bitmask(), dtype=np.uint8)
            bits = np.unpackbits(mask, bitorder="little")[: scores.shape[-1]].astype(bool)
            permitted = torch.zeros(scores.shape[-1], dtype=torch.bool)
            permitted[: len(bits)] = torch.from_numpy(bits)
            scores[place].masked_fill_(~permitted.to(scores.device), float("-inf"))
        return scores

    def _matcher(self, row: WrittenRow) -> Any:
        """Return a matcher that has consumed the generated ids of a row."""
        matcher, read = self._matchers.get(row, (None, []))
        if matcher is None or row.ids[: len(read)] != read:
            matcher, read = self._library.LLMatcher(self._tokenizer, self._grammar), []
        matcher.consume_tokens(row.ids[len(read) :])
        self._matchers[row] = matcher, list(row.ids)
        return matcher


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingDependencyError(
            "constraints need the package llguidance", hint="pip install 'idiolect[constraints]'"
        ) from error
    return llguidance
