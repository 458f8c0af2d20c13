"""How the next token is chosen: for now the likeliest, always."""

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
    """Continue texts with the likeliest token at each step.

    Shape: ids and mask (batch, length), result (batch, at most new). A decoder behind an encoder
    begins with its start id, which is not part of the result.

    Args:
        network: A network with a language-model head.
        ids: The texts. Of different lengths, they are padded on the left, where the mask is 0; what
            an encoder reads may be padded on either side.
        mask: 1 for text and 0 for padding; `None`: no padding.
        new: The most tokens to add.
        stop: Ids that end a text. What follows one in the result is filled with it.

    Raises:
        InputError: The network predicts no next token, or the texts are empty or padded on the
            right.
    """
    if ids.shape[1] == 0:
        raise InputError("nothing to continue", hint="begin with the model's first token")
    if network.decoder is None or "language" not in network.heads:
        raise InputError(
            "this network does not predict the next token",
            hint="a decoder with a language-model head does",
        )
    both = network.encoder is not None
    if not both and mask is not None and not bool(mask[:, -1].all()):
        raise InputError("texts to continue are padded on the right", hint="pad on the left")
    cache = Cache()
    stops = torch.tensor(sorted(stop), dtype=torch.long, device=ids.device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    start = network.start_ids(ids, mask) if both else ids
    step = start
    chosen: list[Tensor] = []
    for _ in range(new):
        if both:
            output = network(ids, mask, target_ids=step, cache=cache, heads=False)
        else:
            output = network(step, mask, cache=cache, heads=False)
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
        token = network.score_vocabulary(output.hidden[:, -1]).argmax(-1)
        if chosen:
            token = torch.where(ended, chosen[-1], token)
        chosen.append(token)
        ended = ended | torch.isin(token, stops)
        if bool(ended.all()):
            break
        step = token[:, None]
    return torch.stack(chosen, dim=1) if chosen else ids[:, :0]
