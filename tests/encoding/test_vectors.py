"""Vectors on disk: the same as in memory, and after being killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.vectors import Vectors
from idiolect.errors import CheckpointError, InputError

TEXTS = ["a b c", "", "d e f g h", "p", "o n m", "c c c c c c", "b a", "l", "k j", "i"]


def test_the_file_holds_what_encode_gives(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    vectors = encoder.encode_to(tmp_path / "deep" / "v.npy", iter(TEXTS), block=3)
    np.testing.assert_allclose(vectors.array, encoder.encode(TEXTS), atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "deep" / "v.npy"), vectors.array)
    assert isinstance(vectors.array, np.memmap)
    assert vectors.record["encoder"] == encoder.fingerprint
    assert vectors.record["counts"]["empty"] == 1
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["v.npy", "v.npy.json"]


def test_no_texts_give_no_rows(tmp_path: Path) -> None:
    assert tiny_encoder().encode_to(tmp_path / "v.npy", []).array.shape == (0, 16)


class _StoppedError(Exception):
    pass


def _stopping(texts: list[str], after: int) -> Iterator[str]:
    yield from texts[:after]
    raise _StoppedError


@pytest.mark.parametrize("after", [0, 2, 3, 7, 9])
def test_a_stopped_run_goes_on_and_encodes_nothing_twice(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder()
    whole = encoder.encode_to(tmp_path / "whole.npy", TEXTS, block=3)
    path = tmp_path / "v.npy"
    with pytest.raises(_StoppedError):
        encoder.encode_to(path, _stopping(TEXTS, after), block=3)
    assert not path.exists()
    if after >= 3:  # a block that was written, and not counted before the end
        with (tmp_path / "v.npy.part").open("ab") as file:
            file.write(b"half a row")
    seen: list[str] = []
    encode = Encoder.encode

    def watched(self: Encoder, texts: list[str], **options: object) -> np.ndarray:
        seen.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode", watched)
    counts = EncodingCounts()
    again = encoder.encode_to(path, iter(TEXTS), block=3, counts=counts)
    assert seen == TEXTS[after // 3 * 3 :]
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert again.record == whole.record
    assert counts.texts == len(TEXTS)
    seen.clear()
    encoder.encode_to(path, TEXTS, block=3)
    assert not seen


def test_other_texts_or_settings_are_refused(tmp_path: Path) -> None:
    encoder, path = tiny_encoder(), tmp_path / "v.npy"
    with pytest.raises(_StoppedError):
        encoder.encode_to(path, _stopping(TEXTS, 7), block=3)
    for texts in (["z", *TEXTS[1:]], TEXTS[:4]):
        with pytest.raises(InputError, match="started with other texts"):
            encoder.encode_to(path, texts, block=3)
    with pytest.raises(InputError, match="started with prompt none, not query"):
        encoder.encode_to(path, TEXTS, prompt_name="query")
    with pytest.raises(InputError, match="started with encoder"):
        tiny_encoder(pooling="first").encode_to(path, TEXTS)
    encoder.encode_to(path, TEXTS, block=3)
    for texts in (TEXTS[:-1], [*TEXTS, "a"]):
        with pytest.raises(InputError, match=r"started with other|holds only"):
            encoder.encode_to(path, texts)


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="was not written by idiolect"):
        tiny_encoder().encode_to(path, TEXTS)
    assert path.read_bytes() == b"precious"


def test_a_damaged_file_is_named_and_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, path = tiny_encoder(), tmp_path / "v.npy"
    with pytest.raises(_StoppedError):
        encoder.encode_to(path, _stopping(TEXTS, 7), block=3)
    os.truncate(tmp_path / "v.npy.part", 200)
    whole = np.array(encoder.encode_to(path, TEXTS).array)
    assert "v.npy.part has 200 bytes instead of" in capsys.readouterr().err
    for name, size in (("v.npy", 300), ("v.npy.json", 40)):
        os.truncate(tmp_path / name, size)
        assert np.array_equal(encoder.encode_to(path, TEXTS).array, whole)
        assert "encoding all texts again" in capsys.readouterr().err


def test_damage_is_told(tmp_path: Path) -> None:
    encoder, path = tiny_encoder(), tmp_path / "v.npy"
    encoder.encode_to(path, TEXTS)
    record = json.loads((tmp_path / "v.npy.json").read_text())
    (tmp_path / "v.npy.json").write_text(json.dumps(record | {"rows": 11}))
    with pytest.raises(CheckpointError, match=r"has the shape \(10, 16\)"):
        Vectors.open(path)
    os.truncate(path, 300)
    with pytest.raises(CheckpointError, match="cannot read"):
        Vectors.open(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        Vectors.open(tmp_path / "none.npy")


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL again and again; every next run goes on, and the end is bit for bit the same."""
    encoder = tiny_encoder()
    encoder.save(tmp_path / "model")
    texts = [
        " ".join("abcdefghijklmnop"[i % 11 : i % 11 + 5]) + " a" * (i % 7) for i in range(4000)
    ]
    expected = Encoder.load(tmp_path / "model").encode_to(tmp_path / "e.npy", texts, block=100)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    code = (
        "import json; from pathlib import Path; from idiolect.encoding.encoder import Encoder; "
        f"root = Path({str(tmp_path)!r}); encoder = Encoder.load(root / 'model'); "
        "texts = json.loads((root / 'texts.json').read_text()); print('ready', flush=True); "
        "encoder.encode_to(root / 'v.npy', texts, block=100)"
    )
    kills = 0
    for delay in (0.02, 0.1, 60):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        end = time.monotonic() + delay
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
    assert kills
    assert (tmp_path / "v.npy").read_bytes() == expected.path.read_bytes()
