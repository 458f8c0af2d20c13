"""Write an audit as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.text.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.audit import Audit, Candidate
    from idiolect.vocabulary.audit.corpus_statistics import CorpusStatistics

__all__ = ["audit_record", "format_pieces", "write_csv", "write_json"]

_COLUMNS = (
    "term", "form", "count", "documents", "pieces", "tokenization", "tokens_saved", "log_odds", "z",
    "pmi", "source",
)  # fmt: skip


def format_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Show a text's tokens, such as `met|form|in`."""
    return "|".join(tokenizer.decode_batch([[id_] for id_ in ids], skip_special_tokens=False))


def audit_record(audit: Audit) -> dict[str, Any]:
    """Convert an audit to plain data for JSON."""
    return {
        "tokenizer": {
            "kind": audit.tokenizer.kind,
            "ids": len(audit.tokenizer),
            "fingerprint": audit.tokenizer.fingerprint,
        },
        "statistics": _statistics(audit.statistics),
        "general": _statistics(audit.general) if audit.general else None,
        "terms": [
            {
                "term": group.term,
                "count": group.count,
                "documents": group.documents,
                "tokens_saved": group.saved,
                "spellings": [_candidate(audit, one) for one in group.candidates],
            }
            for group in audit.groups
        ],
        "left_out": [asdict(term) for term in audit.rejected],
    }


def write_json(audit: Audit, path: str | Path) -> None:
    """Write `audit_record` to a file, atomically."""
    text = json.dumps(audit_record(audit), ensure_ascii=False, indent=1)
    write_atomic(Path(path), f"{text}\n".encode())


def write_csv(audit: Audit, path: str | Path) -> None:
    """Write the candidate terms to a file, one spelling per line, atomically."""
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    for group in audit.groups:
        for one in group.candidates:
            writer.writerow({"term": group.term, **_candidate(audit, one)})
    write_atomic(Path(path), table.getvalue().encode())


def _statistics(statistics: CorpusStatistics) -> dict[str, Any]:
    record = asdict(statistics)
    record["pieces"] = {str(pieces): n for pieces, n in sorted(statistics.pieces.items())}
    for name in ("bytes_per_token", "tokens_per_word", "unknown_share"):
        record[name] = getattr(statistics, name)
    return record


def _candidate(audit: Audit, candidate: Candidate) -> dict[str, Any]:
    return {
        "form": candidate.form,
        "count": candidate.count,
        "documents": candidate.documents,
        "pieces": len(candidate.pieces),
        "tokenization": format_pieces(audit.tokenizer, candidate.pieces),
        "tokens_saved": candidate.saved,
        "log_odds": candidate.log_odds,
        "z": candidate.z,
        "pmi": candidate.pmi,
        "source": candidate.source,
    }
