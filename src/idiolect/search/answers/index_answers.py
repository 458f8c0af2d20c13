"""`IndexAnswers`: the answers of an index, with sources."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, overload

from idiolect.errors import ConfigError, InputError
from idiolect.search.answers.answer import NO_ANSWER, Answer, AnswerStream, Citation, Passage
from idiolect.search.answers.answer_options import AnswerOptions
from idiolect.search.answers.answer_prompt import fitting_passages, messages_of, says_unknown
from idiolect.search.answers.citations import CitationWriter, without_markers
from idiolect.search.answers.extractive import best_sentences
from idiolect.search.answers.passage_search import find_passages, sentence_scores
from idiolect.search.answers.support import WordSupport, language_of
from idiolect.search.answers.writers import Writer, writer_of
from idiolect.search.index_search import IndexSearch
from idiolect.search.passages import PASSAGE_LENGTH, PassageNamespace
from idiolect.text.arguments import checked, wrong_type

__all__ = ["IndexAnswers"]

_MAX_QUESTION = 10_000
"""Maximum characters of a question."""
_MAX_TOP_K = 100
_GROWN = 2
"""A passage is expanded to at most this many times the maximum passage length."""


class IndexAnswers(IndexSearch):
    """The items of an index, searches of them, and answers from them."""

    @overload
    def answer(
        self, question: str, top_k: int = 5, *, stream: Literal[False] = False, **options: Any
    ) -> Answer: ...

    @overload
    def answer(
        self, question: str, top_k: int = 5, *, stream: Literal[True], **options: Any
    ) -> AnswerStream: ...

    @overload
    def answer(
        self, question: str, top_k: int = 5, *, stream: bool, **options: Any
    ) -> Answer | AnswerStream: ...

    def answer(
        self, question: str, top_k: int = 5, *, stream: bool = False, **options: Any
    ) -> Answer | AnswerStream:
        """Answer a question from the items, with citations.

        Passages are retrieved, reranked if there is a reranker, and diversified. If they do not
        match the question, the index abstains: the answer says that there is none. Otherwise a
        model writes the answer from the passages; without a model, the answer consists of the
        sentences that match best. Every citation is a part of an item that supports the sentence
        before it: one that the model cited, if it supports the sentence, or else one that was found
        afterwards.

        Args:
            question: The question.
            top_k: The number of passages to read, 1 to 100.
            stream: Return an iterator over the sentences of the answer.
            options: The fields of `AnswerOptions`, such as `model`, `rerank` and `filter`.

        Returns:
            The answer; with `stream`, an `AnswerStream`, whose `result` is the answer.

        Raises:
            InputError: The question is empty or too long, or an option of the search is not valid.
            ConfigError: An option is unknown or out of range, or the encoder cannot be found; or
                the instructions leave no room for a passage.
            VerificationError: A score of the reranker is not finite.
            OfflineError: The server of the model cannot be reached.
        """
        if not isinstance(question, str):
            raise wrong_type(question, "the question", "a text")
        if not question.strip():
            raise InputError("the question is empty", hint="ask something")
        if len(question) > _MAX_QUESTION:
            raise InputError(
                f"the question has {len(question):,} characters", hint=f"at most {_MAX_QUESTION:,}"
            )
        if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= _MAX_TOP_K:
            raise InputError(f"top_k is {top_k!r}", hint=f"use 1 to {_MAX_TOP_K}")
        work = _Answering(self, question, top_k, AnswerOptions.of(options))
        pieces = AnswerStream(work.pieces())
        return pieces if stream else pieces.result

    @checked
    def add_passages(
        self, max_length: int = PASSAGE_LENGTH, *, namespace: str = "", progress: bool = False
    ) -> int:
        """Split the items into passages and store these; `answer` then searches the passages.

        Passages are updated when items are added, changed or deleted. Run it again to resume.

        Args:
            max_length: Maximum words of a passage, 8 to 10,000. A length that differs from the
                stored one drops the passages of all namespaces.
            namespace: The namespace of the items.
            progress: Show progress on a terminal.

        Returns:
            The number of passages.

        Raises:
            InputError: The length is not valid, or the namespace is one of passages.
            ConfigError: The index has no encoder.
        """
        if not 8 <= max_length <= 10_000:
            raise InputError(f"max_length is {max_length}", hint="use 8 to 10,000 words")
        if not self.has_encoder:
            raise ConfigError(
                "the vectors of this index came with its items, so passages can have none",
                hint="answers split the items that are found; or build an index with an encoder",
            )
        PassageNamespace.refuse(namespace)
        names = PassageNamespace.create(self.store, max_length)
        items = self.store.items(namespace=namespace)
        parts = chain.from_iterable(names.split([item]) for item in items)
        self._add_all(parts, names.name(namespace), progress, False)
        self.store.merge()
        return self.store.namespaces().get(names.name(namespace), 0)


@dataclass(frozen=True)
class _Answering:
    """Answers one question."""

    index: IndexSearch
    question: str
    top_k: int
    options: AnswerOptions

    def pieces(self) -> Generator[str, None, Answer]:
        """Yield the answer sentence by sentence, and return it whole."""
        options = self.options
        writer = None if options.model is None else writer_of(options.model)
        names = PassageNamespace.of(self.index.store)
        length = _GROWN * (PASSAGE_LENGTH if names is None else names.max_length)
        found = find_passages(self.index, self.question, self.top_k, options, max_length=length)
        passages, method = list(found.passages), "extractive"
        text, citations, dropped = "", list[Citation](), list[str]()
        if passages and found.confidence >= options.min_confidence:
            cited = self._written(writer, passages) if writer else None
            if cited is not None:
                method = "generated"
                passages, sentences, work = cited
                for piece in sentences:
                    text += piece
                    yield piece
                citations, dropped = work.citations, work.dropped
            if not text and not any(map(says_unknown, dropped)):
                method = "extractive"
                passages = list(found.passages)
                for piece, citation in self._quoted(passages):
                    text, citations = text + piece, [*citations, citation]
                    yield piece
        if not text:
            yield NO_ANSWER
        return Answer(
            question=self.question,
            answer=text or NO_ANSWER,
            citations=tuple(citations),
            passages=tuple(passages),
            abstained=not text,
            method="generated" if method == "generated" else "extractive",
            confidence=found.confidence,
            dropped=tuple(dropped),
        )

    def _written(
        self, writer: Writer, passages: list[Passage]
    ) -> tuple[list[Passage], Iterator[str], CitationWriter] | None:
        """Return the passages in the prompt, and the model's sentences; None if no passage fits."""
        options, room = self.options, self.options.max_prompt_tokens
        limit = writer.room(options.max_new_tokens)
        room = room if limit is None else min(room, limit)
        instructions = options.instructions
        least = writer.count(messages_of("", [], instructions))
        if least > room:
            raise ConfigError(
                f"the instructions take {least:,} of {max(0, room):,} tokens of the prompt, so no"
                " passage fits",
                hint="raise max_prompt_tokens, or lower max_new_tokens: a model reads and writes"
                " within its context length",
            )
        read = fitting_passages(
            self.question, passages, instructions, room=room, count=writer.count
        )
        if not read:
            return None
        language = language_of(self.index.store)
        work = CitationWriter(
            read,
            options.support or WordSupport(language).score,
            min_support=options.min_support,
            question=self.question,
            only_supported=options.only_supported,
        )

        def sentences() -> Iterator[str]:
            messages = messages_of(self.question, read, instructions)
            for piece in writer.write(messages, options.max_new_tokens):
                yield from work.write(piece)
            yield from work.finish()

        return read, sentences(), work

    def _quoted(self, passages: list[Passage]) -> Iterator[tuple[str, Citation]]:
        """Yield the sentences that match the question best, with their citation markers."""

        def score(question: str, sentences: Any) -> Any:
            return sentence_scores(self.index, question, sentences)

        most = self.options.max_sentences
        for n, one in enumerate(best_sentences(self.question, passages, score, most=most), 1):
            text = " ".join(without_markers(one.text).split())
            yield f"{' ' if n > 1 else ''}{text} [{n}]", one
