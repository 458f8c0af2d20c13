"""Translation by beam search beside transformers' Marian: the same weights, the same beams.

    python benchmarks/translation.py [--texts 64] [--beams 5]

The model is the published Transformer with random weights, in Marian's shape (post-norm, sinusoids
with all sines first, shared embeddings), so both sides compute the same targets; that they do is
checked. Random weights rarely end a target, so both write `--length` tokens for each text. Seconds
are the processor's, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import time

import torch
import transformers

from idiolect.generate.beam import beam_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.nn.config import TransformerConfig
from idiolect.nn.transformer import Transformer

END, START = 0, 1


def marian(width: int, layers: int, vocabulary: int) -> transformers.MarianMTModel:
    """Build Marian with random weights that tell tokens apart."""
    sides = {}
    for side in ("encoder", "decoder"):
        sides |= {f"{side}_layers": layers, f"{side}_attention_heads": 8}
        sides[f"{side}_ffn_dim"] = 4 * width
    config = transformers.MarianConfig(
        vocab_size=vocabulary,
        d_model=width,
        max_position_embeddings=256,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=END,
        forced_eos_token_id=None,
        bos_token_id=None,
        init_std=0.05,
        **sides,
    )
    torch.manual_seed(0)
    return transformers.MarianMTModel(config).eval()


def ours(theirs: transformers.MarianMTModel) -> Transformer:
    """Build our Transformer with the same weights."""
    config = theirs.config
    made = Transformer(
        TransformerConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_attention_heads=config.encoder_attention_heads,
            intermediate_size=config.encoder_ffn_dim,
            num_encoder_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            norm_placement="after_sum",
            final_norm=False,
            activation="relu",
            position="sinusoidal",
            max_position_embeddings=256,
            embedding_scale=config.d_model**0.5,
            head_bias=True,
            decoder_start_token_id=START,
            eos_token_id=END,
        )
    )
    weights, names = theirs.state_dict(), {}
    for side in ("encoder", "decoder"):
        for layer in range(config.encoder_layers):
            mine, other = f"{side}.layers.{layer}.", f"model.{side}.layers.{layer}."
            attentions = {"attention": "self_attn"}
            if side == "decoder":
                attentions["cross"] = "encoder_attn"
            for own, their in attentions.items():
                names[f"{mine}{own}_norm"] = f"{other}{their}_layer_norm"
                for part in ("query", "key", "value", "output"):
                    short = "out" if part == "output" else part[0]
                    names[f"{mine}{own}.{part}"] = f"{other}{their}.{short}_proj"
            names |= {
                f"{mine}feed_forward.up": f"{other}fc1",
                f"{mine}feed_forward.down": f"{other}fc2",
                f"{mine}feed_forward_norm": f"{other}final_layer_norm",
            }
    state = {
        f"{own}.{kind}": weights[f"{their}.{kind}"]
        for own, their in names.items()
        for kind in ("weight", "bias")
    }
    state |= {"tokens.weight": weights["model.shared.weight"]}
    state |= {"heads.language.bias": weights["final_logits_bias"][0]}
    made.load_state_dict(state)
    for stack, their_side in ((made.encoder, "encoder"), (made.decoder, "decoder")):
        # Marian's table is of its own kind; both sides read the same one.
        stack.sinusoids.table = weights[f"model.{their_side}.embed_positions.weight"].clone()
    return made.eval()


def main() -> None:
    """Decode on both sides in turn, and print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--source-length", type=int, default=20, help="of the longest source")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    theirs = marian(given.width, given.layers, given.vocabulary)
    mine = ours(theirs)
    random = torch.Generator().manual_seed(1)
    bounds = (given.source_length // 2, given.source_length + 1)
    lengths = torch.randint(*bounds, (given.texts,), generator=random)
    lengths = lengths.sort().values
    ids = torch.randint(2, given.vocabulary, (given.texts, int(lengths.max())))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    ids = ids.masked_fill(mask == 0, START)

    def run_theirs() -> torch.Tensor:
        return theirs.generate(
            ids,
            attention_mask=mask,
            num_beams=given.beams,
            max_new_tokens=given.length,
            do_sample=False,
            length_penalty=1.0,
            early_stopping=False,
            bad_words_ids=None,
        )[:, 1:]

    def run_mine() -> torch.Tensor:
        beams = beam_search(
            Decoding(mine, ids, mask),
            [[]] * len(ids),
            [given.length] * len(ids),
            GenerationOptions(num_beams=given.beams),
            eos_token_id=[END],
        )
        longest = max(len(texts[0].ids) for texts in beams)
        rows = [texts[0].ids + [END] * (longest - len(texts[0].ids)) for texts in beams]
        return torch.tensor(rows)

    same = float((run_mine() == run_theirs()).all(1).float().mean())
    times: dict[str, list[float]] = {"idiolect": [], "transformers": []}
    for _ in range(given.repeats):
        for name, run in (("idiolect", run_mine), ("transformers", run_theirs)):
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    medians = {name: sorted(found)[len(found) // 2] for name, found in times.items()}
    tokens = given.texts * given.length
    print(f"{given.texts} texts, {given.beams} beams, {given.length} tokens, {vars(given)}")
    print(f"equal translations: {100 * same:.0f} %")
    for name, seconds in medians.items():
        print(f"{name:13} {seconds:7.3f} s   {tokens / seconds:8.0f} tokens/s")
    print(f"ratio {medians['transformers'] / medians['idiolect']:.2f}")


if __name__ == "__main__":
    main()
