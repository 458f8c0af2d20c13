"""`/audit`: how tokenizers split a text."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from idiolect.serve.bodies.text_bodies import AuditBody, AuditedBody
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Serving
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["audit", "router"]

router = APIRouter(tags=["texts"])


@router.post("/audit", response_model=AuditedBody, summary="Compare two vocabularies on a text")
async def audit(body: AuditBody, service: Serving) -> JsonResponse:
    """Show how the base's vocabulary and the extended one break a text."""
    with service.using() as parts:
        return JsonResponse(await service.searches.run(_audit, parts, body.text))


def _audit(parts: ServedParts, text: str) -> dict[str, Any]:
    base, adapted = parts.need("vocabularies")
    before, after = (_tokens(tokenizer, text) for tokenizer in (base, adapted))
    known = len(base)
    terms = [
        {"text": text[one["start"] : one["end"]], "start": one["start"], "end": one["end"]}
        for one in after
        if one["id"] >= known
    ]
    return {
        "base": [{k: v for k, v in one.items() if k != "id"} for one in before],
        "adapted": [{k: v for k, v in one.items() if k != "id"} for one in after],
        "terms": terms,
        "saved": 1 - len(after) / len(before) if before else 0.0,
    }


def _tokens(tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    [(ids, offsets)] = tokenizer.encode_with_offsets([text], add_special_tokens=False)
    pairs = zip(ids, offsets, strict=True)
    return [{"id": id, "start": a, "end": b, "token": text[a:b]} for id, (a, b) in pairs]
