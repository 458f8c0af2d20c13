"""Decoding strategies: greedy search."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.cache import Cache
from idiolect.nn.transformer import Transformer

__all__ = ["greedy"]


@torch.inference_mode()
def greedy(
    network: Transformer,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    new: int,
    stop: Collection[int] = (),
) -> Tensor:
    """Continue texts with the most likely token at each step.

    Shape: ids and mask (batch, length), result (batch, at most new). The decoder of an
    encoder-decoder network starts with its start id, which is not part of the result.

    Args:
        network: A network with a language-model head.
        ids: The texts, padded on the left if their lengths differ. The input of an encoder may be
            padded on either side.
        mask: 1 for text and 0 for padding; by default there is no padding.
        new: Maximum number of new tokens.
        stop: Ids that end a text. The rest of its row is filled with that id.

    Raises:
        InputError: The network does not predict the next token, or texts are empty or padded on
            the right.
    """
    if ids.shape[1] == 0:
        raise InputError("an empty text", hint="start with the model's first token")
    if network.decoder is None or "language" not in network.heads:
        raise InputError(
            "this network does not predict the next token",
            hint="load a decoder with a language-model head",
        )
    has_encoder = network.encoder is not None
    if not has_encoder and mask is not None and not bool(mask[:, -1].all()):
        raise InputError("texts to continue are padded on the right", hint="pad on the left")
    cache = Cache()
    stops = torch.tensor(sorted(stop), dtype=torch.long, device=ids.device)
    finished = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    start = network.start_ids(ids, mask) if has_encoder else ids
    step = start
    generated: list[Tensor] = []
    for _ in range(new):
        if has_encoder:
            output = network(ids, mask, target_ids=step, cache=cache, heads=False)
        else:
            output = network(step, mask, cache=cache, heads=False)
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
        token = network.score_vocabulary(output.hidden[:, -1]).argmax(-1)
        if generated:
            token = torch.where(finished, generated[-1], token)
        generated.append(token)
        finished = finished | torch.isin(token, stops)
        if bool(finished.all()):
            break
        step = token[:, None]
    return torch.stack(generated, dim=1) if generated else ids[:, :0]
