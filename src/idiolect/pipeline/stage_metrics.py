"""What each stage of a run leaves behind: the fields of its `metrics.json`, and its files.

    RUN/idiolect.toml            the configuration as it was used
    RUN/manifest.json            versions, and for each step its inputs' fingerprint and its seconds
    RUN/metrics.json             {step: what is in its own metrics.json}
    RUN/report.html              for people
    RUN/stages/STEP/metrics.json

The steps of the main road are audit, extend, distill, adapt, tune, index and evaluate. The controls
are steps too, in the same format: `plain.adapt` and `plain.tune` train the base without new tokens,
`random.extend` to `random.tune` teach it terms chosen at random.

    audit/terms.json             the terms chosen, as `Terms.load` reads them
    extend/model                 the extended model; its extension.json says what was added
    distill/model, adapt/model   the model after it; metrics.jsonl has a line a training step
    tune/model                   the finished encoder, as `Encoder.load` reads it; metrics.jsonl
    index/index                  the index, as `Index.open` reads it
    evaluate/vectors.npy         vectors of the tuned encoder, a row an item, in the items' order
    evaluate/searches.json       a list of `Search`: searches before and after, side by side
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

__all__ = [
    "AuditMetrics",
    "BrokenTerm",
    "EvaluateMetrics",
    "ExtendMetrics",
    "FoundItem",
    "IndexMetrics",
    "IndexPoint",
    "Language",
    "Promises",
    "Ranking",
    "Search",
    "Significance",
    "System",
    "TextMetrics",
    "TokenCount",
    "TrainingMetrics",
    "TuneMetrics",
]


class TextMetrics(TypedDict):
    """How the base's tokenizer fares on a text."""

    documents: int
    words: int
    tokens: int
    bytes_per_token: float
    tokens_per_word: float
    unknown_share: float
    """Share of tokens that stand for text the tokenizer cannot spell, 0 to 1."""
    pieces: dict[str, int]
    """Number of words by the number of pieces they are cut into."""


class BrokenTerm(TypedDict):
    """A term the tokenizer breaks."""

    term: str
    pieces: list[str]
    """The pieces it is cut into now."""
    count: int
    saved: int
    """Tokens saved in the audited text if its spellings were one token each."""
    chosen: bool
    """Whether it is taught."""


class AuditMetrics(TypedDict):
    """Of the step audit."""

    items: int
    """In the catalogue."""
    tokenizer: str
    """Kind of tokenizer, such as byte-bpe."""
    vocabulary: int
    """Its ids."""
    domain: TextMetrics
    general: TextMetrics | None
    candidates: int
    """Spellings that could become a token."""
    terms: int
    """Terms chosen."""
    rows: int
    """Spellings chosen: a token and a row of the embedding each."""
    saved: int
    """Tokens they save in the audited text."""
    broken: list[BrokenTerm]
    """The 60 terms that cost most, the worst first."""
    skipped: dict[str, int]
    """Records of the corpus that could not be read, by reason."""


class TokenCount(TypedDict):
    """A text in tokens before and after. Of the domain it is what is kept out of training."""

    documents: int
    before: int
    after: int
    saved: float
    """Share of tokens saved, 0 to 1."""
    changed: int
    """Documents that are tokenised otherwise beyond the new terms. It must be 0."""
    uses: int
    """Occurrences of new tokens."""


class ExtendMetrics(TypedDict):
    """Of the step extend."""

    method: str
    added: int
    refused: list[dict[str, str]]
    """Spellings that were not added: `text` and `reason`; the first 50."""
    first_id: int
    """Ids from here on are new."""
    texts: dict[str, TokenCount]
    """By `domain` and, where there is any, `general`."""
    unverified: list[str]
    notes: list[str]


class TrainingMetrics(TypedDict):
    """Of the steps distill and adapt; each training step is a line of metrics.jsonl."""

    steps: int
    tokens: int
    """Tokens read in training."""
    loss_first: float
    """Mean loss of the first tenth of the steps; 0 where there were none."""
    loss_last: float
    """Mean loss of the last tenth."""
    train: NotRequired[str]
    """adapt: what trained."""
    objective: NotRequired[str]
    """adapt: causal, masked, or imitation of the base's vectors."""
    error_before: NotRequired[float]
    """distill: distance to the teacher's hidden states on snippets kept apart, a share of their
    variance."""
    error_after: NotRequired[float]
    without_context: NotRequired[int]
    """distill: new tokens that occur in no snippet and keep their first rows."""


class TuneMetrics(TypedDict):
    """Of the step tune."""

    pairs: int
    supervised: bool
    """False where there were no pairs, and parts of the same text were taken for pairs."""
    note: str
    """What a reader should know of it; empty if nothing."""
    steps: int
    loss_first: float
    loss_last: float
    left_out: int
    """Pairs left out because their query is one the search is tested with."""
    kept_apart: int
    """Pairs not trained on, for choosing how hybrid search joins."""


class IndexPoint(TypedDict):
    """What the graph finds at one width of search."""

    width: int
    recall: float
    """Share of the ten nearest items it finds, against exact search."""
    queries_per_second: float
    """One query at a time, on one thread."""


class IndexMetrics(TypedDict):
    """Of the step index."""

    items: int
    cut: int
    """Items longer than the encoder reads; of these only the beginning is found by meaning."""
    dimensions: int
    bytes: int
    """On disk."""
    meaning: float | None
    """Weight of meaning in hybrid search, words having the rest, as chosen on pairs that were kept
    apart; None where there were none."""
    exact_queries_per_second: float
    """Of a plain product with all vectors, for comparison."""
    curve: list[IndexPoint]


class System(TypedDict):
    """A system that is measured."""

    name: str
    """bm25, base, vocabulary, pretraining, tuning, hybrid; the controls: untrained,
    plain.pretraining, plain.tuning, random.pretraining, random.tuning."""
    label: str
    """For people."""
    control: bool
    search: dict[str, float] | None
    """Means over the queries, by measure: ndcg@10, recall@100, mrr@10, judged@10 (the share of the
    first ten that somebody judged). None if not measured."""
    similar: dict[str, float] | None
    """The same for similar items."""


class Significance(TypedDict):
    """Whether one system is better than another, over the same queries."""

    test: str
    """search or similar."""
    measure: str
    first: str
    second: str
    """Names of systems; the difference is the second's mean less the first's."""
    difference: float
    low: float
    high: float
    """Ends of the 95% interval, by paired bootstrap."""
    p_value: float
    """Two-sided paired randomisation test."""
    wins: int
    losses: int


class Ranking(TypedDict):
    """A test of rankings."""

    queries: int
    items: int
    notes: list[str]


class Language(TypedDict):
    """Bits per byte, on documents kept out of training."""

    applicable: bool
    """False for models that do not predict the next token."""
    note: str
    window: int
    """Characters a window."""
    systems: dict[str, dict[str, float]]
    """By the system's name (base, vocabulary, pretraining, plain.pretraining, random.pretraining,
    untrained): `domain` and, where there is any, `general`."""
    forgetting: dict[str, Any] | None
    """From base to pretraining on general text without new terms: divergence in bits a token,
    same_first."""
    terms: dict[str, Any] | None
    """How often new tokens are ranked first where they stand; see `training.evaluation.TermUse`."""


class Promises(TypedDict):
    """What was promised, and whether it held."""

    original_rows: str
    """Hash of the base's rows of embedding and head."""
    original_rows_identical: bool
    """Whether the finished model has the same."""
    documents_changed: int
    """Documents tokenised otherwise beyond the new terms, over all text checked."""
    documents_checked: int


class EvaluateMetrics(TypedDict):
    """Of the step evaluate."""

    tokens: dict[str, TokenCount]
    """As `texts` of extend."""
    language: Language
    search: Ranking | None
    similar: Ranking | None
    systems: list[System]
    """In the order of the road, then the controls."""
    significance: list[Significance]
    matryoshka: list[dict[str, float]]
    """Of the tuned encoder: `dimensions`, `trained` (1 or 0: whether it was tuned at that width),
    and `search` and `similar`, each an ndcg@10."""
    promises: Promises
    notes: list[str]
    """What a reader must know, such as that items' text is part of adaptation."""


class FoundItem(TypedDict):
    """An item that a search found."""

    id: str
    title: str
    text: str
    """Its beginning."""
    grade: float | None
    """What people judged it for this query; None if they did not."""


class Search(TypedDict):
    """One search, before and after."""

    query: str
    base: list[FoundItem]
    """The base's first five."""
    tuning: list[FoundItem]
    """The tuned encoder's first five."""
    new_terms: list[str]
    """New tokens in the query."""
