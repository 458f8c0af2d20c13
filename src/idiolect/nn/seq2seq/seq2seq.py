"""`Seq2Seq`: a recurrent encoder-decoder with a choice of attention score functions.

    Sutskever 2014   deep LSTM, source reversed, no attention
    Bahdanau 2015    bidirectional GRU; the query is the previous state, the context an input
    Luong 2015       the query is the current state; its context joins the output, which the next
                     step reads
    See 2017         copies of source tokens, and coverage

All are configurations. If attention does not feed into the next step, all steps of a known target
are computed at once; otherwise they are computed one by one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from idiolect.errors import InputError
from idiolect.nn.basic import Dropout, Linear
from idiolect.nn.heads import LanguageHead
from idiolect.nn.network import Network, NetworkKind, Output
from idiolect.nn.seq2seq.decoder_state import CellState, DecoderState
from idiolect.nn.seq2seq.seq2seq_config import Seq2SeqConfig
from idiolect.nn.seq2seq.source_attention import Alignment, SourceAttention

__all__ = ["Seq2Seq"]

_CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Seq2Seq(Network):
    """A recurrent encoder-decoder.

    Raises:
        InputError: Ids are outside the vocabulary, a source is empty, a mask has another shape, or
            a cache has another batch size.
    """

    config: Seq2SeqConfig
    packs_texts = False

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        width, layers = config.hidden_size, config.num_layers
        cell: Any = _CELLS[config.cell]
        between = config.dropout if layers > 1 else 0.0
        self.tokens = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.dropout = Dropout(config.dropout)
        self.encoder = cell(
            width,
            width // 2 if config.bidirectional else width,
            layers,
            batch_first=True,
            dropout=between,
            bidirectional=config.bidirectional,
        )
        parts = 2 if config.cell == "lstm" else 1
        self.bridge = nn.ModuleList(
            Linear(width, width) for _ in range(parts if config.bidirectional else 0)
        )
        self.attention = None if config.attention == "none" else SourceAttention(config)
        self.reads_before_step = config.query == "previous"
        self.feeds = self.reads_before_step or config.input_feeding
        self.decoder = cell(
            2 * width if self.feeds else width, width, layers, batch_first=True, dropout=between
        )
        self.readout = None
        if self.reads_before_step:
            self.readout = Linear(3 * width, 2 * width)  # maxout, as in Bahdanau et al.
        elif self.attention is not None:
            self.readout = Linear(2 * width, width, bias=False)
        self.copy_gate = Linear(3 * width, 1) if config.copy else None
        self.heads = nn.ModuleDict({"language": LanguageHead(config)})  # type: ignore[arg-type]

    @property
    def kind(self) -> NetworkKind:
        """An encoder-decoder."""
        return "encoder-decoder"

    @property
    def blocks(self) -> list[nn.Module]:
        """None: the layers of torch's recurrent modules are not modules."""
        return []

    @property
    def head_modules(self) -> list[nn.Module]:
        """The language-model head."""
        return [self.heads]

    @property
    def has_dropout(self) -> bool:
        """Whether the dropout rate is above zero, or positions are sampled."""
        return self.config.dropout > 0 or self.config.hard_attention

    @property
    def has_own_logits(self) -> bool:  # type: ignore[override]
        """Whether predictions are mixed with copies of the source."""
        return self.config.copy

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Initialize all weights, reproducibly for a seed.

        Recurrent matrices are orthogonal, others uniform (Glorot & Bengio 2010), embeddings normal
        with standard deviation width^-0.5, biases zero, and the LSTM's forget bias one (in one of
        torch's two biases).
        """
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            for name, parameter in self.named_parameters():
                if name.endswith("sharpness"):
                    parameter.fill_(5.0)
                elif parameter.dim() < 2:
                    parameter.zero_()
                    if self.config.cell == "lstm" and ".bias_ih_l" in name:
                        size = len(parameter) // 4
                        parameter[size : 2 * size] = 1.0
                elif ".weight_hh_l" in name:
                    for gate in torch.split(parameter, parameter.shape[1]):
                        nn.init.orthogonal_(gate)
                elif name in ("tokens.weight", "heads.language.weight"):
                    parameter.normal_(std=self.config.hidden_size**-0.5)
                else:
                    nn.init.xavier_uniform_(parameter)
            self.clear_padding_row()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: DecoderState | None = None,
        return_logits: bool = True,
    ) -> Output:
        """Run a batch through encoder and decoder.

        Shape: all ids and masks (batch, length).

        Args:
            input_ids: The source.
            attention_mask: 0 for padding, on either side, and 1 for text.
            decoder_input_ids: The decoder's input; by default `input_ids`, shifted right by one.
                Padding is on the right.
            decoder_attention_mask: Not needed, because a step does not depend on later ones.
            cache: The state after earlier steps; `decoder_input_ids` then contains only the new
                ids. If it already contains a source, `input_ids` is not encoded again.
            return_logits: Whether to score the vocabulary.
        """
        state = DecoderState() if cache is None else cache
        if state.memory is None:
            self._begin(state, input_ids, attention_mask)
        if decoder_input_ids is None:
            decoder_input_ids = self.shift_right(input_ids, attention_mask)
        state.check_rows(len(decoder_input_ids))
        self.check_ids(decoder_input_ids)
        embedded = self.dropout(self.tokens(decoder_input_ids))
        read: Alignment | None
        if self.feeds or self.config.coverage_loss:
            hidden, read, outputs = self._run_steps(state, embedded)
        else:
            outputs, state.recurrent = self.decoder(embedded, state.recurrent)
            read = self._read(state, outputs)
            hidden = self._read_out(outputs, embedded, read)
            state.length += embedded.shape[1]
        logits = None
        if return_logits:
            logits = (
                self.score_vocabulary(hidden)
                if self.copy_gate is None
                else self._mix(state, hidden, outputs, embedded, read)
            )
        return Output(
            hidden_states=hidden,
            logits=logits,
            encoder_hidden_states=state.memory,
            attentions=None if read is None else _moved_back(read.weights, state.order),
            choice_log_probs=None if read is None else read.choice_log_probs,
        )

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        """Return the encoder's states, zero at padding; see `Network.text_states`."""
        if bidirectional and not self.config.bidirectional:
            raise InputError("this encoder reads in one direction", hint="omit bidirectional")
        ids, mask, order = _right_padded(input_ids, attention_mask)
        memory, _ = self._encode(ids, mask)
        if order is None:
            return memory
        return torch.zeros_like(memory).scatter(1, order[..., None].expand_as(memory), memory)

    def new_cache(self) -> DecoderState:
        """Return an empty state, without a source."""
        return DecoderState()

    def start_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the first ids of the decoder's input. Shape: (batch, 1)."""
        start = self.config.decoder_start_token_id
        if start is not None:
            return input_ids.new_full((len(input_ids), 1), start)
        ids, mask, _ = _right_padded(input_ids, attention_mask)
        return ids.gather(1, mask.sum(1, keepdim=True) - 1)

    def extra_loss(self, output: Output, labels: Tensor, predicted: Tensor) -> Tensor:
        """Return the coverage loss and REINFORCE; see `Network.extra_loss`.

        A sampled position is rewarded by the log-probabilities of its own target token and the
        later ones, less their mean over the batch at that step.
        """
        total = super().extra_loss(output, labels, predicted)
        if self.config.coverage_loss and output.attentions is not None:
            weights = output.attentions
            before = weights.cumsum(1) - weights
            repeated = torch.minimum(weights, before).sum(-1)
            total = total + self.config.coverage_loss * repeated[predicted].sum()
        if output.choice_log_probs is not None:
            with torch.no_grad():
                logits = output.logits
                scores = self.score_vocabulary(output.hidden_states) if logits is None else logits
                gained = scores.log_softmax(-1).gather(-1, labels[..., None])[..., 0] * predicted
                reward = gained.flip(1).cumsum(1).flip(1)
                mean = reward.sum(0) / predicted.sum(0).clamp(min=1)
            chosen = (output.choice_log_probs * (reward - mean))[predicted]
            total = total - chosen.sum()
        return total

    def _begin(self, state: DecoderState, input_ids: Tensor, mask: Tensor | None) -> None:
        """Encode a source into an empty state."""
        ids, present, state.order = _right_padded(input_ids, mask)
        state.memory, state.recurrent = self._encode(ids, present)
        state.source_ids, state.mask = ids, present
        if self.attention is not None:
            state.keys = self.attention.score.keys(state.memory)
        if self.feeds:
            state.fed = state.memory.new_zeros(len(ids), 1, self.config.hidden_size)
        if self.config.coverage_loss:
            state.coverage = state.memory.new_zeros(len(ids), 1, ids.shape[1])

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, CellState]:
        """Return the encoder's states and the decoder's initial state for right-padded ids."""
        self.check_ids(ids)
        lengths = mask.sum(-1)
        if not ids.numel() or int(lengths.min()) < 1:
            where = f" {int(lengths.argmin())} of the batch" if len(ids) else ""
            raise InputError(f"source{where} is empty", hint="leave out empty texts")
        limit = self.config.max_position_embeddings
        if limit and int(lengths.max()) > limit:
            raise InputError(
                f"a source has {int(lengths.max())} tokens, but the model has {limit} positions",
                hint="truncate it or split it",
            )
        if self.config.reverse_source:
            ids = _reversed(ids, lengths)
        embedded = self.dropout(self.tokens(ids))
        packed = pack_padded_sequence(embedded, lengths.cpu(), True, enforce_sorted=False)
        states, last = self.encoder(packed)
        memory, _ = pad_packed_sequence(states, True, total_length=ids.shape[1])
        if self.config.reverse_source:
            memory = _reversed(memory, lengths)
        return memory, self._bridge(last)

    def _bridge(self, last: CellState) -> CellState:
        """Map the encoder's final states to the decoder's initial ones. (layers, batch, width)."""
        if not self.config.bidirectional:
            return last
        parts = last if isinstance(last, tuple) else (last,)
        joined = [part.view(-1, 2, *part.shape[1:]).transpose(1, 2).flatten(2) for part in parts]
        mapped = [linear(part) for linear, part in zip(self.bridge, joined, strict=True)]
        mapped[0] = torch.tanh(mapped[0])
        return (mapped[0], mapped[1]) if len(mapped) == 2 else mapped[0]

    def _run_steps(self, state: DecoderState, embedded: Tensor) -> tuple[Tensor, Alignment, Tensor]:
        """Run the decoder step by step: hidden states, alignment and the decoder's own outputs."""
        hidden, reads, outputs = [], [], []
        for place in range(embedded.shape[1]):
            x = embedded[:, place : place + 1]
            read = None
            if self.reads_before_step:
                read = self._read(state, state.query)
                assert read is not None
                output, state.recurrent = self.decoder(
                    torch.cat([x, read.context], -1), state.recurrent
                )
            else:
                if state.fed is not None:
                    x = torch.cat([x, state.fed], -1)
                output, state.recurrent = self.decoder(x, state.recurrent)
                read = self._read(state, output)
                assert read is not None
            state.length += 1
            hidden.append(self._read_out(output, embedded[:, place : place + 1], read))
            if state.fed is not None:
                state.fed = hidden[-1]
            if state.coverage is not None:
                state.coverage = state.coverage + read.weights
            reads.append(read)
            outputs.append(output)
        sampled = [read.choice_log_probs for read in reads if read.choice_log_probs is not None]
        together = Alignment(
            torch.cat([read.context for read in reads], 1),
            torch.cat([read.weights for read in reads], 1),
            torch.cat(sampled, 1) if sampled else None,
        )
        return torch.cat(hidden, 1), together, torch.cat(outputs, 1)

    def _read(self, state: DecoderState, query: Tensor) -> Alignment | None:
        if self.attention is None:
            return None
        read: Alignment = self.attention(
            query,
            state.keys,
            state.memory,
            state.mask,
            first_step=state.length,
            coverage=state.coverage,
        )
        return read

    def _read_out(self, output: Tensor, embedded: Tensor, read: Alignment | None) -> Tensor:
        """Combine the decoder's output with the context. Shape: (batch, steps, width)."""
        if self.readout is None or read is None:
            joined = output
        elif self.reads_before_step:
            pieces = self.readout(torch.cat([output, embedded, read.context], -1))
            joined = pieces.unflatten(-1, (-1, 2)).amax(-1)
        else:
            joined = torch.tanh(self.readout(torch.cat([read.context, output], -1)))
        result: Tensor = self.dropout(joined)
        return result

    def _mix(
        self,
        state: DecoderState,
        hidden: Tensor,
        output: Tensor,
        embedded: Tensor,
        read: Alignment | None,
    ) -> Tensor:
        """Return log-probabilities of the vocabulary, mixed with copies of the source's tokens."""
        assert read is not None
        assert self.copy_gate is not None
        assert state.source_ids is not None
        gate = self.copy_gate(torch.cat([read.context, output, embedded], -1))
        own = F.logsigmoid(gate) + self.score_vocabulary(hidden).log_softmax(-1)
        where = state.source_ids[:, None].expand_as(read.weights)
        copied = torch.zeros_like(own).scatter_add(-1, where, read.weights)
        tiny = torch.finfo(own.dtype).tiny
        return torch.logaddexp(own, F.logsigmoid(-gate) + copied.clamp(min=tiny).log())


def _right_padded(ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Move padding to the right.

    Returns:
        The ids, their mask, and the original position of each; `None` if nothing moved.
    """
    if mask is None:
        return ids, torch.ones_like(ids, dtype=torch.bool), None
    if mask.shape != ids.shape:
        raise InputError(
            f"the mask has the shape {tuple(mask.shape)}", hint=f"it must be {tuple(ids.shape)}"
        )
    if int(mask.max()) > 1:
        raise InputError(
            "several documents are packed in a row", hint="a recurrent encoder needs a row for each"
        )
    present = mask > 0
    if bool((present[:, 1:] <= present[:, :-1]).all()):
        return ids, present, None
    order = (~present).long().argsort(dim=1, stable=True)
    return ids.gather(1, order), present.gather(1, order), order


def _moved_back(weights: Tensor, order: Tensor | None) -> Tensor:
    """Map weights over right-padded sources back to the original positions. (…, source)."""
    if order is None:
        return weights
    return torch.zeros_like(weights).scatter(-1, order[:, None].expand_as(weights), weights)


def _reversed(rows: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each row's first `lengths` entries. Shape: (batch, length, …)."""
    place = torch.arange(rows.shape[1], device=rows.device)
    other = lengths[:, None] - 1 - place
    index = torch.where(other >= 0, other, place)
    if rows.dim() == 3:
        return rows.gather(1, index[..., None].expand_as(rows))
    return rows.gather(1, index)
