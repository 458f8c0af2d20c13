"""Look-ups, files, and files that are damaged."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.words.vector_formats import holds_vectors
from idiolect.words.word_vectors import WordVectors

if TYPE_CHECKING:
    from idiolect.models.language_model import LanguageModel

WORDS = ["king", "queen", "man", "woman", "tax"]
ROWS = np.array([[1, 1, 0], [1, -1, 0], [0.1, 1, 0], [0.1, -1, 0], [0, 0, 1]], np.float32)


@pytest.fixture
def vectors() -> WordVectors:
    return WordVectors(WORDS, ROWS, [9, 8, 7, 6, 5])


def test_neighbours_analogies_and_odd_ones(vectors: WordVectors) -> None:
    assert vectors.most_similar("king", top_k=1)[0][0] == "man"
    assert [word for word, _ in vectors.most_similar("king", top_k=10)][-1] == "woman"
    for method in ("3cosadd", "3cosmul"):
        assert vectors.analogy("man", "king", "woman", method=method)[0][0] == "queen"  # type: ignore[arg-type]
    assert vectors.doesnt_match(["king", "man", "tax"]) == "tax"
    assert "king" in vectors
    assert "duke" not in vectors
    with pytest.raises(InputError, match="did you mean queen"):
        vectors["quen"]


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin", "v.glove", "v.safetensors", "v"])
def test_every_format_is_read_as_it_was_written(
    vectors: WordVectors, name: str, tmp_path: Path
) -> None:
    vectors.save(tmp_path / name)
    read = WordVectors.load(tmp_path / name)
    assert read.words == WORDS
    np.testing.assert_array_equal(read.vectors, ROWS)
    if name in ("v", "v.safetensors"):
        assert isinstance(read.vectors, np.memmap)
        assert read.counts is not None
        assert read.counts.tolist() == [9, 8, 7, 6, 5]


def test_gensim_reads_and_writes_the_same_files(vectors: WordVectors, tmp_path: Path) -> None:
    gensim = pytest.importorskip("gensim.models", reason="gensim is not installed")
    for name, binary in (("a.txt", False), ("a.bin", True)):
        vectors.save(tmp_path / name)
        theirs = gensim.KeyedVectors.load_word2vec_format(tmp_path / name, binary=binary)
        np.testing.assert_array_equal(theirs["woman"], ROWS[3])
        theirs.save_word2vec_format(str(tmp_path / f"b{name}"), binary=binary)
        np.testing.assert_array_equal(WordVectors.load(tmp_path / f"b{name}").vectors, ROWS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"2 2\na 1 2\nb 1\n", "line 3 of .* has 1 numbers, not 2"),
        (b"a 1 2\na 2 3\n", "line 2 of .*'a' is also on line 1"),
        (b"2 2\na 1 nan\nb 1 2\n", "line 2 of .* NaN"),
        (b"2 2\na 1 2\nnew york 1 2\n", "'new york' has a space"),
        (b"3 2\na 1 2\nb 1 2\n", "has 2 vectors, but its first line announces 3"),
        (b"9999999999 2\na 1 2\n", "announces 9999999999 words"),
        (b"2 999999999\na 1 2\n", "announces 2 words of 999999999"),
        (b"1000000 100\nabc \x00\x01\x02", "ends at word 1"),
        (b"", "is empty"),
        (pickle.dumps({"a": 1}), "is a pickle"),
        (struct.pack("<Q", 2**40) + b"{", "no file of word vectors"),
        (struct.pack("<Q", 2) + b"{}", "no file of word vectors"),
    ],
)
def test_a_damaged_file_is_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        WordVectors.load(path)


def test_a_header_length_like_the_first_byte_of_a_pickle_is_read(
    vectors: WordVectors, tmp_path: Path
) -> None:
    path = tmp_path / "v"
    vectors.save(path)
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    longer = size + (0x80 - size) % 256
    header = raw[8 : 8 + size] + b" " * (longer - size)
    path.write_bytes(struct.pack("<Q", longer) + header + raw[8 + size :])
    np.testing.assert_array_equal(WordVectors.load(path).vectors, ROWS)


def test_safetensors_offsets_are_checked(tmp_path: Path) -> None:
    header = {
        "vectors": {"dtype": "F32", "shape": [10**9, 10**3], "data_offsets": [0, 4 * 10**12]},
        "words": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    data = json.dumps(header).encode()
    path = tmp_path / "v.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data + b"a")
    with pytest.raises(InputError, match="beyond the file"):
        WordVectors.load(path)


@pytest.mark.parametrize(
    ("words", "rows", "message"),
    [
        (["a", "a"], [[1.0], [2.0]], "'a' occurs twice"),
        (["a b"], [[1.0]], "'a b' has a space"),
        (["a", "b"], [[1.0], [np.nan]], "'b' has NaN"),
        (["a", "b"], [[1.0]], "2 words, but"),
    ],
)
def test_bad_vectors_are_named(words: list[str], rows: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WordVectors(words, rows)


def test_an_encoder_averages_words(vectors: WordVectors, tmp_path: Path) -> None:
    from idiolect.encoding.encoder import Encoder
    from idiolect.words.word_model import word_model

    Encoder(word_model(vectors)).save(tmp_path / "encoder")
    encoder = Encoder.load(tmp_path / "encoder")
    made = encoder.encode(["The King, a TAX", "unknown"])
    mean = ROWS[0] + ROWS[4]
    np.testing.assert_allclose(made[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert not made[1].any()
    weighted = Encoder(word_model(vectors, sif=True)).encode(["king", "tax"])
    assert abs(float(weighted[0] @ weighted[1])) < 0.9


def test_an_encoder_of_words_is_indexed_searched_and_tuned(
    vectors: WordVectors, tmp_path: Path
) -> None:
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.tune import tune
    from idiolect.search.index import Index
    from idiolect.training.training_config import TrainingConfig
    from idiolect.words.word_model import word_model

    encoder = Encoder(word_model(vectors))
    items = [{"id": word, "text": f"the {word}"} for word in WORDS]
    index = Index.build(tmp_path / "index", encoder, items)
    assert [hit.id for hit in index.search("a king", top_k=2)] == ["king", "man"]
    before = encoder.encode(["tax", "king"])
    config = TrainingConfig(batch_size=2, learning_rate=0.05)
    pairs = [("tax", "king"), ("man", "woman")] * 4
    tune(encoder, pairs, output_dir=tmp_path / "tuned", epochs=3, whiten=False, config=config)
    after = encoder.encode(["tax", "king"])
    assert before[0] @ before[1] < 0.01
    assert after[0] @ after[1] > before[0] @ before[1] + 0.02


def test_a_row_of_a_new_word_is_mixed_from_like_words() -> None:
    from idiolect.vocabulary.rows.neighbours import word_rows

    class Tokens:
        def __len__(self) -> int:
            return 4

        def decode_batch(self, rows: list[list[int]]) -> list[str]:
            return [[" King", "##ing", "queen tax", "x"][row[0]] for row in rows]

    rows = word_rows(Tokens(), WordVectors(WORDS, ROWS))  # type: ignore[arg-type]
    np.testing.assert_allclose(rows[0], ROWS[0])
    np.testing.assert_allclose(rows[2], (ROWS[1] + ROWS[4]) / 2)
    assert not rows[1].any()
    assert not rows[3].any()


def test_other_programs_read_the_streamed_tensors(vectors: WordVectors, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    vectors.save(tmp_path / "v.safetensors")
    tensors = load_file(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(tensors["vectors"], ROWS)
    np.testing.assert_array_equal(tensors["counts"], [9, 8, 7, 6, 5])
    assert bytes(tensors["words"]).decode().split("\n") == WORDS


def _small_model() -> LanguageModel:
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.bpe import train

    settings = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 16,
    }
    return LanguageModel.new(settings, train(["the water and a garden"] * 9, 300))


def test_extend_mixes_new_rows_from_like_words(tmp_path: Path) -> None:
    """With the command, from files: a term whose vector is that of one word has its row."""
    from typer.testing import CliRunner

    from idiolect.cli.main import app
    from idiolect.models.language_model import LanguageModel
    from idiolect.nn.embedding import joined_rows
    from idiolect.vocabulary.extend.extend import extend

    model = _small_model()
    model.save(tmp_path / "model")
    like = WordVectors(["hydrolate", "water", "garden"], [[0, 2.0], [0, 1], [1, 0]])
    like.save(tmp_path / "words.safetensors")
    (tmp_path / "terms.txt").write_text("hydrolate\n")
    names = [str(tmp_path / name) for name in ("model", "terms.txt", "words.safetensors", "larger")]
    options = ["--init", "vectors", "--vectors", names[2], "-o", names[3]]
    result = CliRunner().invoke(app, ["extend", *names[:2], *options])
    assert result.exit_code == 0, result.output
    larger = LanguageModel.load(tmp_path / "larger")
    texts = [model.tokenizer.decode([id_]) for id_ in range(len(model.tokenizer))]
    (water,) = (id_ for id_, text in enumerate(texts) if text.strip() == "water")
    (term,) = larger.tokenizer.encode(" hydrolate")
    rows = joined_rows(larger.network.tokens.weight)
    np.testing.assert_array_equal(rows[term].detach(), rows[water].detach())
    unlike = WordVectors(["water", "court"], [[0, 1.0], [1, 0]])
    for vectors, init, message in (
        (None, "vectors", "needs word vectors"),
        (unlike, "vectors", "none of the new tokens has a word vector"),
        (like, "subword", "not used by init 'subword'"),
    ):
        with pytest.raises(InputError, match=message):
            extend(model, ["hydrolate"], init=init, vectors=vectors)  # type: ignore[arg-type]


def test_the_rows_of_a_model_are_word_vectors(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from idiolect.cli.main import app
    from idiolect.nn.embedding import joined_rows
    from idiolect.words.model_rows import vectors_of_model

    model = _small_model()
    rows = joined_rows(model.network.tokens.weight).detach()
    made = vectors_of_model(model)
    (garden,) = model.tokenizer.encode(" garden")
    np.testing.assert_array_equal(made["garden"], rows[garden])
    plain = [id_ for id_ in range(len(model.tokenizer)) if model.tokenizer.decode([id_]) == "a"]
    assert plain, "both forms of the word are tokens"
    (spaced,) = model.tokenizer.encode(" a")
    np.testing.assert_array_equal(made["a"], rows[spaced])
    assert not {"", " ", "<s>", "\ufffd"} & set(made.words)
    model.save(tmp_path / "model")
    (tmp_path / "pairs.txt").write_text("water garden 3\nwater the 1\ngarden the 2\n")
    names = [str(tmp_path / "model"), str(tmp_path / "pairs.txt")]
    result = CliRunner().invoke(app, ["words", "evaluate", *names, "--json"])
    (score,) = json.loads(result.stdout)["models"]["model"]
    assert score["answered"] == 3


def test_sif_weighs_by_rarity_and_removes_the_common_direction(vectors: WordVectors) -> None:
    from idiolect.encoding.encoder import Encoder
    from idiolect.words.word_model import word_model

    share = np.array([9, 8, 7, 6, 5]) / 35
    weights = 1e-3 / (1e-3 + share)
    common = np.linalg.svd(ROWS * np.sqrt(weights * share)[:, None])[2][0]
    rows = ROWS - np.outer(ROWS @ common, common)
    wanted = weights[0] * rows[0] + weights[3] * rows[3]
    made = Encoder(word_model(vectors, sif=True)).encode(["king woman"])[0]
    np.testing.assert_allclose(made, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_agreement_is_the_share_of_common_neighbours() -> None:
    from idiolect.words.word_comparison import compare_neighbours

    angles = np.arange(12) / 4
    line = np.stack([np.cos(angles), np.sin(angles)], 1)
    words = [f"w{place}" for place in range(12)]
    one, same = WordVectors(words, line), WordVectors(words[::-1], line[::-1] * 2)
    (agreement,), examples = compare_neighbours({"one": one, "same": same})
    assert (agreement.queries, agreement.overlap) == (12, {1: 1.0, 5: 1.0})
    assert all(word not in found["one"] for word, found in examples.items())
    moved = WordVectors(words, line[[1, 0, *range(2, 12)]])
    (agreement,), _ = compare_neighbours({"one": one, "moved": moved})
    assert 0.5 < agreement.overlap[5] < 1


def test_a_first_word_like_the_beginning_of_a_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("PKK 0.5 -1\nPK 1 2\n")
    assert holds_vectors(path)
    assert WordVectors.load(path).words == ["PKK", "PK"]
    path.write_text("PKK party 0.5\n")
    assert not holds_vectors(path)
    np.savez(tmp_path / "vectors.npz", np.eye(2))
    with pytest.raises(InputError, match="is a pickle"):
        WordVectors.load(tmp_path / "vectors.npz")
