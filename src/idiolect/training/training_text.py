"""`TrainingText`: the text of a run, in one or several languages, as token files and as a source.

Several corpora are sampled row by row. A corpus with a share p of all tokens is sampled with a
probability proportional to p^α: with α = 1 in proportion to its size, with α = 0 uniformly (Conneau
& Lample 2019, 1901.07291). α is the inverse of a temperature, and a cap limits the size that a
large corpus counts with (Raffel et al. 2019, 1910.10683).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.mixed_rows import MixedRows
from idiolect.training.data.parallel_corpus import ParallelCorpus
from idiolect.training.data.segment_stream import SegmentStream
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.objective_settings import check_number
from idiolect.training.progress import notice, track
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["CorpusSampling", "TrainingText", "sampling_shares"]


@dataclass(frozen=True, kw_only=True)
class CorpusSampling:
    """Settings for sampling from several corpora.

    Raises:
        ConfigError: A number is out of range, or both alpha and temperature are set.
    """

    alpha: float | None = None
    """The exponent of a corpus's share of the tokens (0.5; mT5 0.3, mBART 0.7)."""
    temperature: float | None = None
    """1 / alpha, as an alternative."""
    cap: int | None = None
    """Maximum size in tokens that a corpus counts with."""

    def __post_init__(self) -> None:
        if self.alpha is not None and self.temperature is not None:
            raise ConfigError(
                "sampling_alpha and sampling_temperature are both set",
                hint="alpha is 1 / temperature; set one of them",
            )
        if self.alpha is not None:
            check_number(self.alpha, "sampling_alpha", least=0)
        if (
            self.temperature is not None
            and check_number(self.temperature, "sampling_temperature") <= 0
        ):
            raise ConfigError(f"sampling_temperature is {self.temperature}", hint="above 0")
        if self.cap is not None and check_number(self.cap, "sampling_cap") < 1:
            raise ConfigError(f"sampling_cap is {self.cap}", hint="at least 1 token")

    @property
    def exponent(self) -> float:
        """The exponent α."""
        if self.temperature is not None:
            return 1 / self.temperature
        return 0.5 if self.alpha is None else self.alpha


def sampling_shares(sizes: Sequence[int], sampling: CorpusSampling) -> list[float]:
    """Return the probability of each corpus.

    >>> [round(share, 3) for share in sampling_shares([900, 100], CorpusSampling(alpha=0.5))]
    [0.75, 0.25]
    """
    capped = [min(size, sampling.cap or size) for size in sizes]
    # Computed with logarithms relative to the largest, so that no power overflows.
    highest = max(capped)
    raised = [
        math.exp(sampling.exponent * math.log(size / highest)) if size else 0.0 for size in capped
    ]
    return [one / sum(raised) for one in raised]


@dataclass(frozen=True)
class _Part:
    """One corpus of a run."""

    text: Corpus | ParallelCorpus
    language: str | None
    replay: bool = False


class TrainingText:
    """The text of a run.

    Args:
        corpus: A corpus, a path, a list of texts, or a dict of these by language. For objectives
            that read pairs, see `ParallelCorpus.of`.
        replay: General text in the same form, or None.
        replay_share: Share of the replayed text: in the characters with a single corpus, otherwise
            in the rows.
        sampling: How to sample from several corpora.
        pairs: Whether the objective reads pairs of texts.
        name: Name of the argument `corpus` in messages.

    Raises:
        InputError: There is no text, or it has another form.
    """

    def __init__(
        self,
        corpus: Any,
        *,
        replay: Any = None,
        replay_share: float = 0.1,
        sampling: CorpusSampling | None = None,
        pairs: bool = False,
        name: str = "corpus",
    ) -> None:
        self.sampling, self.replay_share, self.name = (
            sampling or CorpusSampling(),
            replay_share,
            name,
        )
        self._what = "the corpus" if name == "corpus" else f"the {name} text"
        if replay is not None and not 0 < replay_share < 1:
            raise InputError(
                f"a share of {replay_share} replays nothing", hint="choose one between 0 and 1"
            )
        own = _parts(corpus, name, pairs)
        general = [] if replay is None else _parts(replay, "replay", pairs, replay=True)
        if len(own) == len(general) == 1 and not pairs and own[0].language is None:
            assert isinstance(own[0].text, Corpus)
            assert isinstance(general[0].text, Corpus)
            own, general = [_Part(own[0].text.mix(general[0].text, replay_share), None)], []
        self.parts = [*own, *general]
        self._tokens: list[TokenFile] = []

    @property
    def languages(self) -> list[str]:
        """The distinct names of languages."""
        named: dict[str, None] = {}
        for part in self.parts:
            if isinstance(part.text, ParallelCorpus):
                named |= dict.fromkeys(one for one in part.text.languages if one is not None)
            elif part.language is not None:
                named[part.language] = None
        return list(named)

    def record(self) -> Any:
        """Return an identification of the text, for the record of a run."""
        if len(self.parts) == 1 and self.parts[0].language is None:
            return repr(self.parts[0].text)
        return {
            "parts": [[repr(one.text), one.language, one.replay] for one in self.parts],
            "replay_share": self.replay_share,
            "alpha": self.sampling.exponent,
            "cap": self.sampling.cap,
        }

    def tokenize(
        self, session: TrainingSession, folder: Path, tokenizer: Tokenizer, *, sentences: bool
    ) -> None:
        """Tokenize the text in the first process, unless this was done before.

        Args:
            session: The run.
            folder: Folder for the tokens; with several corpora, a number is appended to its name.
            tokenizer: The tokenizer.
            sentences: Mark the ends of sentences.

        Raises:
            InputError: Sentences are needed, but no document has at least two.
        """
        self._tokens = []
        for number, part in enumerate(self.parts):
            own = folder if len(self.parts) == 1 else folder.with_name(f"{folder.name}-{number}")

            def write(own: Path = own, part: _Part = part) -> None:
                if not _is_intact(own, tokenizer, sentences):
                    documents = track(part.text, "tokenizing the corpus, documents")
                    TokenFile.write(own, documents, tokenizer, sentences=sentences)

            session.on_first(write)
            self._tokens.append(TokenFile(own, tokenizer))
        if sentences and not any(one.record["sentences"] for one in self._tokens):
            raise InputError(
                f"no document of {self._what} has two sentences",
                hint="an objective that permutes or pairs sentences needs documents of several: "
                "read whole files (--per file), or set permute_sentences=0 (denoising) or "
                "full_sentences=false (masked)",
            )

    @property
    def bytes_per_token(self) -> float:
        """Mean number of UTF-8 bytes per token."""
        records = [one.record for one in self._tokens]
        return float(sum(r["bytes"] for r in records) / max(1, sum(r["tokens"] for r in records)))

    def source(self, objective: Any, tokenizer: Tokenizer, config: TrainingConfig) -> Any:
        """Return the source of an objective's rows, after `tokenize`."""
        sources = self.sources(objective, tokenizer, config)
        if len(sources) == 1:
            return sources[0]
        if any(isinstance(one, SegmentStream) for one in sources):
            raise ConfigError(
                "a recurrent network reads its text as one stream, not as rows of several corpora",
                hint="pass one corpus",
            )
        return MixedRows(
            sources,
            self._shares(),
            rows=config.batch_size,
            seed=config.seed,
            documents=[len(one) for one in self._tokens],
        )

    def sources(self, objective: Any, tokenizer: Tokenizer, config: TrainingConfig) -> list[Any]:
        """Return one source per corpus, after `tokenize`."""
        return [
            objective.make_source(
                tokens,
                tokenizer,
                config,
                name=self._name_of(part),
                **_languages(part),
            )
            for part, tokens in zip(self.parts, self._tokens, strict=True)
        ]

    def _name_of(self, part: _Part) -> str:
        """Return the name of a corpus in messages."""
        what = "the replayed text" if part.replay else self._what
        return what if part.language is None else f"{what} in {part.language}"

    def _shares(self) -> list[float]:
        """Return the probability of each corpus; those of replayed text sum to `replay_share`."""
        shares = []
        for replayed in (False, True):
            sizes = [
                int(tokens.record["tokens"])
                for part, tokens in zip(self.parts, self._tokens, strict=True)
                if part.replay == replayed
            ]
            has_replay = any(part.replay for part in self.parts)
            of_all = self.replay_share if replayed else 1 - self.replay_share * has_replay
            if sizes:
                shares += [of_all * share for share in sampling_shares(sizes, self.sampling)]
        return shares


def _languages(part: _Part) -> dict[str, Any]:
    if isinstance(part.text, ParallelCorpus):
        return {"languages": part.text.languages}
    return {"language": part.language}


def _parts(source: Any, name: str, pairs: bool, *, replay: bool = False) -> list[_Part]:
    """Return the corpora of an argument."""
    if pairs:
        return [_Part(one, None, replay) for one in ParallelCorpus.of(source, name)]
    if not isinstance(source, Mapping):
        return [_Part(Corpus.of(source, name), None, replay)]
    if not source:
        raise InputError(f"{name} has no languages", hint='such as {"en": corpus}')
    return [
        _Part(Corpus.of(one, f"{name} of {language}"), str(language), replay)
        for language, one in source.items()
    ]


def _is_intact(folder: Path, tokenizer: Tokenizer, sentences: bool) -> bool:
    """Return whether a corpus was tokenized; damaged files are reported and deleted."""
    if not folder.exists():
        return False
    try:
        tokens = TokenFile(folder, tokenizer)
    except CheckpointError as error:
        notice(f"{error.message}; tokenizing the corpus again")
    else:
        if tokens.has_sentences or not sentences:
            return True
    shutil.rmtree(folder)
    return False
