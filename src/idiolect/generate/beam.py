"""Beam search with length and coverage penalties, early stopping, beam groups, required words.

Candidates, finished beams and stopping are as in `transformers`. At each step, the max(2, 1 + ends)
· k best continuations are considered. Those among the first k that end are finished, and the best k
others are continued. The beams of all texts advance together, and the beams of an encoder-decoder
share one copy of their source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.logits_processors import LogitsProcessor, WrittenRow, nothing_permitted
from idiolect.generate.required_words import Continuation, RequiredWords

__all__ = ["Beam", "BeamStep", "beam_search"]

_OUT = float("-inf")


@dataclass
class Beam:
    """A text that a beam search found."""

    ids: list[int]
    """Generated ids."""
    logprobs: list[float]
    """The network's log-probability of each id."""
    score: float
    """Sum of processed log-probabilities, with the length and coverage penalties."""
    ended: bool
    """Whether an end token or stop string ended it."""


@dataclass(frozen=True)
class BeamStep:
    """One step of a search, for showing the search tree."""

    text: int
    """Number of the prompt."""
    candidates: list[tuple[list[int], int, float]]
    """The previous ids, the new token and the summed log-probability, best first."""
    kept: list[list[int]]
    """The ids of the beams that are continued."""


@torch.inference_mode()
def beam_search(
    decoding: Decoding,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    options: GenerationOptions,
    *,
    eos_token_id: Sequence[int],
    processors: Sequence[LogitsProcessor] = (),
    stops: Callable[[Sequence[int]], bool] | None = None,
    required: RequiredWords | None = None,
    watch: Callable[[BeamStep], None] | None = None,
) -> list[list[Beam]]:
    """Search for the most likely continuations of a batch of prompts.

    Args:
        decoding: The batch, not started.
        prompts: The ids of each prompt that the decoder continues; empty for an encoder-decoder.
        limits: Maximum number of new tokens of each prompt, at least 1.
        options: Beams, penalties and the stopping rule.
        eos_token_id: Ids that end a text.
        processors: Applied to the log-probabilities.
        stops: Whether generated ids complete a stop string.
        required: What each text must contain; tokens of the prompt do not count.
        watch: Called after each step of each group.

    Returns:
        For each prompt the finished beams, best first; fewer than `num_beams` if the processors
        permit no more.

    Raises:
        InputError: The processors permit no text at all.
    """
    if options.coverage_penalty:
        decoding.keep_attention()
    scores = decoding.start()
    search = _Search(
        prompts, limits, options, eos_token_id, processors, stops, required, watch, scores
    )
    while True:
        rows, texts = search.advance(scores, decoding.attention)
        if not len(search.texts):
            return search.result()
        decoding.select_beams(rows, texts)
        scores = decoding.step(search.ids[..., search.length - 1].flatten())


@dataclass(frozen=True)
class _Candidates:
    """Continuations of each group by one token, best first. (texts, groups, candidates)."""

    sums: Tensor
    parents: Tensor
    """The beam of the group that each continues."""
    tokens: Tensor
    logprobs: Tensor
    ends: Tensor
    """Whether the text ends, by the token or by a stop string that it completes."""

    def take(self, places: Tensor) -> _Candidates:
        """Return the given candidates. (texts, groups, n)."""
        parts = (self.sums, self.parents, self.tokens, self.logprobs, self.ends)
        return _Candidates(*(part.gather(2, places) for part in parts))


class _Search:
    """The open beams of unfinished texts, and the finished beams of all texts.

    Unused beams have a sum of minus infinity, so that all texts have the same number.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        options: GenerationOptions,
        eos_token_id: Sequence[int],
        processors: Sequence[LogitsProcessor],
        stops: Callable[[Sequence[int]], bool] | None,
        required: RequiredWords | None,
        watch: Callable[[BeamStep], None] | None,
        like: Tensor,
    ) -> None:
        device, count, groups = like.device, len(prompts), options.num_beam_groups
        self.prompts, self.options = [list(prompt) for prompt in prompts], options
        self.processors, self.stops, self.watch = processors, stops, watch
        self.required = required
        self.eos = torch.tensor(sorted(set(eos_token_id)), dtype=torch.long, device=device)
        self.limits = torch.tensor(limits, device=device)
        self.size = options.num_beams // groups
        """Number of beams per group."""
        self.keep = max(2, 1 + len(self.eos)) * self.size
        """Number of candidates per group."""
        self.length = 0
        longest = max(limits)
        self.texts = torch.arange(count, device=device)
        """Numbers of the unfinished texts."""
        # One beam before the first step. (texts, groups, beams) and (…, longest).
        self.sums = like.new_zeros(count, groups, 1)
        self.ids = self.texts.new_zeros(count, groups, 1, longest)
        self.logprobs = like.new_zeros(count, groups, 1, longest)
        self.coverage: Tensor | None = None
        """Cumulative attention to each source token. (texts, groups, beams, source)."""
        # The best finished beams of each text, by its number.
        self.scores = like.new_full((count, groups, self.size), _OUT)
        self.lengths = self.ids.new_zeros(count, groups, self.size)
        self.ended = torch.zeros_like(self.lengths, dtype=torch.bool)
        self.finished_ids = self.ids.new_zeros(count, groups, self.size, longest)
        self.finished_logprobs = like.new_zeros(count, groups, self.size, longest)

    def advance(self, scores: Tensor, attention: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Add a token to each beam, given its scores (rows, vocabulary).

        Args:
            scores: The scores.
            attention: The attention of each row to its source, if kept. (rows, source).

        Returns:
            The rows to continue, and the positions of their texts; None for all texts.
        """
        count, groups, width = self.sums.shape
        # Before the first step all groups read the same row.
        own = scores.view(count, -1, width, scores.shape[-1]).expand(-1, groups, -1, -1)
        if attention is not None:
            seen = attention.view(count, -1, width, attention.shape[-1]).expand(-1, groups, -1, -1)
            self.coverage = seen if self.coverage is None else self.coverage + seen
        found = self._candidates(own)
        self.length += 1
        last = self.limits[self.texts] == self.length
        self._finish(found, last)
        # The best continuing candidates, by score; ended ones fill up the rest.
        new = found.take(found.ends.long().argsort(dim=-1, stable=True)[..., : self.size])
        ids, logprobs = self._written(new)
        if self.coverage is not None:
            self.coverage = self.coverage.gather(2, _spread(new.parents, self.coverage))
        sums = new.sums.masked_fill(new.ends | last[:, None, None], _OUT)
        if self.watch is not None:
            self._report(found, ids, sums)
        self.ids, self.logprobs = ids, logprobs
        rows = torch.arange(count * groups, device=sums.device).view(count, groups, 1)
        rows = rows // groups if self.length == 1 else rows * width
        return self._drop_done(sums, rows + new.parents)

    def result(self) -> list[list[Beam]]:
        """Return the finished beams of each text, best first."""
        results = []
        for text, scores in enumerate(self.scores.flatten(1).tolist()):
            lengths, ended = self.lengths[text].flatten(), self.ended[text].flatten()
            ids = self.finished_ids[text].flatten(0, 1).tolist()
            logprobs = self.finished_logprobs[text].flatten(0, 1).tolist()
            beams = [
                Beam(ids[place][:length], logprobs[place][:length], scores[place], end)
                for place, (length, end) in enumerate(
                    zip(lengths.tolist(), ended.tolist(), strict=True)
                )
                if scores[place] > _OUT
            ]
            if not beams:
                raise nothing_permitted()
            results.append(sorted(beams, key=lambda beam: -beam.score))
        return results

    def _candidates(self, own: Tensor) -> _Candidates:
        """Return the best continuations, given scores (texts, groups, beams, vocabulary)."""
        vocabulary, penalty = own.shape[-1], self.options.diversity_penalty
        totals = own.logsumexp(-1)
        processed = self._processed(own.log_softmax(-1)) if self.processors else own
        taken = own.new_zeros(len(own), vocabulary)
        """How often the earlier groups of a text chose each token at this step."""
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for group in range(own.shape[1]):
            scores = processed[:, group]
            if parts and penalty:
                scores = scores - penalty * taken[:, None]
            best, tokens = scores.topk(min(self.keep, vocabulary))
            if not self.processors:
                best = best - totals[:, group, :, None]
            sums = (self.sums[:, group, :, None] + best).flatten(1)
            sums, places = sums.topk(min(self.keep, sums.shape[1]))
            parents, tokens = places // best.shape[-1], tokens.flatten(1).gather(1, places)
            ends = torch.isin(tokens, self.eos)
            if self.stops is not None:
                ends |= self._stopped(group, sums, parents, tokens)
            if self.required is not None:
                full = self.sums[:, group, :, None] + scores
                if not self.processors:
                    full = full - totals[:, group, :, None]
                sums, parents, tokens, ends = self._with_words(
                    group, full, sums, parents, tokens, ends
                )
            parts.append((sums, parents, tokens, ends))
            order = ends.long().argsort(dim=-1, stable=True)[:, : self.size]
            chosen = ~ends & (sums > _OUT)
            taken.scatter_add_(1, tokens.gather(1, order), chosen.gather(1, order).to(taken))
        sums, parents, tokens, ends = (torch.stack(part, 1) for part in zip(*parts, strict=True))
        logprobs = own.flatten(2).gather(2, parents * vocabulary + tokens)
        return _Candidates(sums, parents, tokens, logprobs - totals.gather(2, parents), ends)

    def _processed(self, logs: Tensor) -> Tensor:
        """Apply the processors to the rows that hold a beam."""
        live = self.sums > _OUT
        numbers = self.texts.tolist()
        rows = [
            WrittenRow(self.prompts[numbers[text]], ids)
            for text, ids in zip(
                live.nonzero()[:, 0].tolist(),
                self.ids[live][:, : self.length].tolist(),
                strict=True,
            )
        ]
        changed = logs[live]
        for processor in self.processors:
            changed = processor(changed, rows)
        result = torch.full(logs.shape, _OUT, device=logs.device)
        result[live] = changed
        return result

    def _stopped(self, group: int, sums: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
        """Return which candidates of a group complete a stop string. (texts, candidates)."""
        assert self.stops is not None
        ends = torch.zeros_like(tokens, dtype=torch.bool)
        before = self.ids[:, group, :, : self.length].tolist()
        for text, place in (sums > _OUT).nonzero().tolist():
            ids = [*before[text][int(parents[text, place])], int(tokens[text, place])]
            ends[text, place] = self.stops(ids)
        return ends

    def _with_words(
        self, group: int, full: Tensor, sums: Tensor, parents: Tensor, tokens: Tensor, ends: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the candidates of a group that continue, and those that end with all words.

        Args:
            group: The number of the group.
            full: The summed log-probability of each beam and token. (texts, beams, vocabulary).
            sums: The sums of the best candidates. (texts, candidates), like the following.
            parents: Their beams.
            tokens: Their tokens.
            ends: Whether they end the text.
        """
        assert self.required is not None
        results = []
        before, live = self.ids[:, group, :, : self.length].tolist(), self.sums[:, group] > _OUT
        lists = (part.tolist() for part in (sums, parents, tokens, ends))
        for text, columns in enumerate(zip(*lists, strict=True)):
            found = [Continuation(*one) for one in zip(*columns, strict=True) if one[0] > _OUT]
            beams = [ids if on else None for ids, on in zip(before[text], live[text], strict=True)]
            going, ended = self.required.choose(beams, found, full[text], self._is_end, self.size)
            if self.limits[self.texts[text]] == self.length + 1:
                # The last token: texts that lack a word are dropped.
                going = [
                    one
                    for one in going
                    if self.required.progress([*before[text][one.parent], one.token]).is_complete
                ]
            none = Continuation(_OUT, 0, 0, ends=False)
            both = [[*part, *[none] * self.size][: self.size] for part in (going, ended)]
            results.append([list(column) for column in zip(*both[0], *both[1], strict=True)])
        values, *numbers = zip(*results, strict=True)
        new = [torch.tensor(column, device=sums.device) for column in numbers]
        return sums.new_tensor(values), new[0], new[1], new[2]

    def _is_end(self, ids: Sequence[int]) -> bool:
        return ids[-1] in self.eos or (self.stops is not None and self.stops(ids))

    def _written(self, found: _Candidates) -> tuple[Tensor, Tensor]:
        """Return the ids and log-probabilities of candidates. (texts, groups, n, longest)."""
        index = _spread(found.parents, self.ids)
        ids, logprobs = self.ids.gather(2, index), self.logprobs.gather(2, index)
        ids[..., self.length - 1] = found.tokens
        logprobs[..., self.length - 1] = found.logprobs
        return ids, logprobs

    def _finish(self, found: _Candidates, last: Tensor) -> None:
        """Keep those of the first k that end here; all, for texts at their length limit."""
        # With required words, continuing candidates come first, then ended ones.
        count = self.size if self.required is None else 2 * self.size
        first = found.take(
            torch.arange(min(count, found.sums.shape[2]), device=last.device).expand(
                *found.sums.shape[:2], -1
            )
        )
        finished = first.ends | last[:, None, None]
        if not bool(finished.any()):
            return
        scores = first.sums / self.length**self.options.length_penalty
        if self.coverage is not None:
            covered = self.coverage.clamp(1e-6, 1).log().sum(-1)
            scores = scores + self.options.coverage_penalty * covered.gather(2, first.parents)
        ids, logprobs = self._written(first)
        own = self.texts
        every = torch.cat([self.scores[own], scores.masked_fill(~finished, _OUT)], 2)
        self.scores[own], places = every.topk(self.size)
        lengths = torch.full_like(first.tokens, self.length)
        for store, more in ((self.lengths, lengths), (self.ended, first.ends)):
            store[own] = torch.cat([store[own], more], 2).gather(2, places)
        index = _spread(places, ids)
        for store, more in ((self.finished_ids, ids), (self.finished_logprobs, logprobs)):
            store[own] = torch.cat([store[own], more], 2).gather(2, index)

    def _drop_done(self, sums: Tensor, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Stop the groups that cannot improve; return the rows and texts that continue."""
        penalty, early = self.options.length_penalty, self.options.early_stopping
        worst, lengths = self.scores[self.texts][..., -1], torch.full_like(self.texts, self.length)
        if early == "never" and penalty > 0:
            lengths = self.limits[self.texts]
        # The coverage term is at most zero, and its size shrinks as a text grows.
        done = sums.amax(-1) / lengths[:, None] ** penalty <= worst
        if early is True:
            done |= worst > _OUT
        self.sums = sums.masked_fill(done[..., None], _OUT)
        going = (~done.all(1)).nonzero()[:, 0]
        if going.numel() and 2 * len(going) > len(done):
            # Copying the cache costs about as much as a step, so remove several texts at once.
            return rows.flatten(), None
        self.texts, self.sums = self.texts[going], self.sums[going]
        self.ids, self.logprobs = self.ids[going], self.logprobs[going]
        if self.coverage is not None:
            self.coverage = self.coverage[going]
        return rows[going].flatten(), going

    def _report(self, found: _Candidates, ids: Tensor, sums: Tensor) -> None:
        """Report the step of each active group."""
        assert self.watch is not None
        for text, group in (self.sums[..., 0] > _OUT).nonzero().tolist():
            before = self.ids[text, group, :, : self.length - 1].tolist()
            parts = (found.parents, found.tokens, found.sums)
            parents, tokens, values = (part[text, group].tolist() for part in parts)
            seen = [
                (before[parent], token, value)
                for parent, token, value in zip(parents, tokens, values, strict=True)
                if value > _OUT
            ]
            kept = ids[text, group][sums[text, group] > _OUT, : self.length].tolist()
            self.watch(BeamStep(int(self.texts[text]), seen, kept))


def _spread(places: Tensor, like: Tensor) -> Tensor:
    """Expand indices to gather whole rows of the last dimension. (…, n) to (…, n, size)."""
    return places[..., None].expand(*places.shape, like.shape[-1])
