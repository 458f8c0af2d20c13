"""Train a translator on Multi30k and score it as published systems were.

    python benchmarks/multi30k.py bpe MODEL OUT
        English to German, lower case, Moses tokens, joint BPE of 10,000 merges: the data and the
        scoring of Transformer-tiny (41.02 BLEU; 12,103 tokens of reference)
    python benchmarks/multi30k.py raw MODEL OUT
        German to English, raw text, joint byte-level BPE: scored lower-cased on the tokens of spaCy
        (of 13a where spaCy is not installed), as bentrevett's tutorials are, and cased with 13a

MODEL is an architecture of `idiolect translate train`.
A run that was stopped resumes. The result is one line of JSON in OUT/bleu.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from idiolect.models.translators import TRANSLATORS
from idiolect.tasks.bleu import bleu
from idiolect.tasks.translator import Translator
from idiolect.text.parallel_text import TextPair
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.checkpoint import RunFolder
from idiolect.training.training_config import TrainingConfig
from idiolect.training.translate import learn_joint_bpe, new_translator, train_translator

DATA = Path(os.environ.get("IDIOLECT_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def read(name: str) -> list[str]:
    """Return the lines of a compressed file."""
    return gzip.decompress((DATA / name).read_bytes()).decode().splitlines()


def joined(line: str) -> str:
    """Remove the marks of BPE: `pul@@ ley` to `pulley`."""
    return line.replace("@@ ", "")


def published_bpe() -> Tokenizer:
    """Build a tokenizer of the published merges: subword-nmt's, with `</w>` at the end of words."""
    code = (DATA / "multi30k-bpe" / "code").read_text().splitlines()[1:]
    merges = [tuple(line.split()) for line in code]
    lines = [line for side in ("en", "de") for line in read(f"multi30k-bpe/train.{side}.gz")]
    words = [word for line in lines for word in line.split()]
    symbols = {c for word in words for c in word.removesuffix("@@")}
    pieces = [*sorted(symbols), *sorted(c + "</w>" for c in symbols)]
    pieces += [left + right for left, right in merges]
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(pieces)]
    engine = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(vocabulary)},
            merges=merges,
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        )
    )
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.decoder = decoders.BPEDecoder(suffix="</w>")
    engine.add_special_tokens([AddedToken(t, special=True) for t in vocabulary[:4]])
    return Tokenizer.from_engine(engine)


def load(kind: str, vocab_size: int) -> tuple[list[TextPair], list[TextPair], Tokenizer]:
    """Return the pairs of training and test, and the tokenizer."""
    if kind == "bpe":
        names = [f"multi30k-bpe/{part}" for part in ("train", "test.2016")]
        sides = ("en", "de")
    else:
        names = [f"multi30k/{part}" for part in ("train", "test_2016_flickr")]
        sides = ("de", "en")
    parts = []
    for name in names:
        source, target = (read(f"{name}.{side}.gz") for side in sides)
        rows = zip(source, target, strict=True)
        parts.append([TextPair(joined(s).strip(), joined(t).strip()) for s, t in rows])
    tokenizer = published_bpe() if kind == "bpe" else learn_joint_bpe(parts[0], vocab_size)
    return parts[0], parts[1], tokenizer


def published(data: str, translations: list[str], references: list[str]) -> str:
    """Score lower-cased tokens, as the published systems were."""
    sides = [[text.lower() for text in texts] for texts in (translations, references)]
    if data == "bpe":
        return str(bleu(*sides, tokenize="none"))
    try:
        import spacy
    except ImportError:
        return str(bleu(*sides, tokenize="13a"))
    words = spacy.blank("en").tokenizer
    tokens = [[" ".join(token.text for token in words(text)) for text in texts] for texts in sides]
    return f"{bleu(*tokens, tokenize='none')} (spaCy {spacy.__version__})"


def main() -> None:
    """Train, translate the test set, and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["bpe", "raw"])
    parser.add_argument("model", choices=TRANSLATORS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--warmup", type=int, default=2000)
    parser.add_argument("--schedule", default="inverse_sqrt")
    parser.add_argument("--average", type=int, default=10)
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--set", default="{}", help="JSON of settings that differ")
    parser.add_argument("--vocab-size", type=int, default=8000, help="ids, with raw text")
    parser.add_argument(
        "--score-only", action="store_true", help="score the mean of the checkpoints there are"
    )
    given = parser.parse_args()
    train, test, tokenizer = load(given.data, given.vocab_size)
    settings = {**TRANSLATORS[given.model], **json.loads(given.set)}
    model = new_translator(settings, tokenizer)
    steps = given.steps
    if given.score_only:
        folder = RunFolder(given.out)
        steps = int(max(folder.path.glob("checkpoint-*")).name.split("-")[1])
        weights = dict(model.network.named_parameters())
        for name, mean in folder.mean_weights(given.average).items():
            weights[name].data = mean.float()
    else:
        model = train_translator(
            model,
            train,
            output_dir=given.out,
            steps=steps,
            batch_tokens=given.batch_tokens,
            label_smoothing=given.label_smoothing,
            average_checkpoints=given.average,
            config=TrainingConfig(
                max_length=256,
                learning_rate=given.learning_rate,
                warmup_ratio=min(1.0, given.warmup / steps),
                schedule=given.schedule,
                adam_beta2=0.98,
                weight_decay=1e-4,
                save_steps=given.save_steps,
            ),
        )
    started = time.perf_counter()
    sources, references = [pair.source for pair in test], [pair.target for pair in test]
    result = {"model": given.model, "settings": json.loads(given.set), "steps": steps}
    for beams in (1, 5):
        translations = Translator(model, num_beams=beams).translate(sources, progress=True)
        cased = bleu(translations, references)
        result[f"beam {beams}"] = {
            "published protocol": published(given.data, translations, references),
            "13a": str(cased),
        }
        (given.out / f"beam{beams}.txt").write_text("\n".join(translations) + "\n")
    result["seconds of decoding"] = round(time.perf_counter() - started)
    result["examples"] = list(zip(sources[:3], translations[:3], references[:3], strict=True))
    (given.out / "bleu.json").write_text(json.dumps(result, ensure_ascii=False, indent=1))
    print(json.dumps(result, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
