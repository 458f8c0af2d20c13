"""Decoding strategies: greedy search."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.network import Network

__all__ = ["greedy"]


@torch.inference_mode()
def greedy(
    network: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int,
    eos_token_id: Collection[int] = (),
) -> Tensor:
    """Continue texts with the most likely token at each step.

    Shape: input_ids and attention_mask (batch, length), result (batch, at most max_new_tokens). The
        decoder of an
    encoder-decoder network starts with its start id, which is not part of the result.

    Args:
        network: A network with a language-model head.
        input_ids: The token ids of the texts, padded on the left if their lengths differ. The input
            of an encoder may be padded on either side.
        attention_mask: 1 for text and 0 for padding; by default there is no padding.
        max_new_tokens: Maximum number of new tokens.
        eos_token_id: Ids that end a text. The rest of the row is filled with the same id.

    Raises:
        InputError: The network does not predict the next token, or texts are empty or padded on
            the right.
    """
    if input_ids.shape[1] == 0:
        raise InputError("the text is empty", hint="start with the beginning-of-text token")
    if network.kind == "bidirectional" or not network.has_language_head:
        raise InputError(
            "this network does not predict the next token",
            hint="load a decoder with a language-model head",
        )
    has_encoder = network.kind == "encoder-decoder"
    if not has_encoder and attention_mask is not None and not bool(attention_mask[:, -1].all()):
        raise InputError("texts to continue are padded on the right", hint="pad on the left")
    cache = network.new_cache()
    stops = torch.tensor(sorted(eos_token_id), dtype=torch.long, device=input_ids.device)
    finished = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    start = network.start_ids(input_ids, attention_mask) if has_encoder else input_ids
    step = start
    generated: list[Tensor] = []
    for _ in range(max_new_tokens):
        if has_encoder:
            output = network(
                input_ids, attention_mask, decoder_input_ids=step, cache=cache, return_logits=False
            )
        else:
            output = network(step, attention_mask, cache=cache, return_logits=False)
            if attention_mask is not None:
                attention_mask = torch.cat(
                    [attention_mask, attention_mask.new_ones(len(input_ids), 1)], dim=1
                )
        token = network.score_vocabulary(output.hidden_states[:, -1]).argmax(-1)
        if generated:
            token = torch.where(finished, generated[-1], token)
        generated.append(token)
        finished = finished | torch.isin(token, stops)
        if bool(finished.all()):
            break
        step = token[:, None]
    return torch.stack(generated, dim=1) if generated else input_ids[:, :0]
