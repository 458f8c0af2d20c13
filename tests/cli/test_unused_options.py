"""Options without effect beside the others of a command are refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.program import idiolect_program

_REFUSED = [
    ("tune m p.jsonl -o r --lora-r 4", "--lora-r", "--train all trains no adapters"),
    ("tune m p.jsonl -o r --lora-target-modules up", "--lora-target-modules", "--train all"),
    ("tune m p.jsonl -o r --steps 5 --epochs 2", "--epochs", "--steps replaces it"),
    ("tune m p.jsonl -o r --field text", "--field", "pairs have --query and --document"),
    ("tune m t.txt -o r --objective titles --negatives 2", "--negatives", "objective titles"),
    ("tune m t.txt -o r --objective titles --dimensions 8", "--dimensions", "objective titles"),
    ("tune cross-encoder m -o r --split dev", "--split", "--data"),
    ("tune two-tower m -o r --split dev", "--split", "--data"),
    ("tune two-tower m -o r --data d --temperature 2", "--temperature", "--teacher"),
    ("tune lambdamart -o r --split dev", "--split", "--data"),
    ("pretrain m t.txt -o r --steps 5 --lora-r 4", "--lora-r", "--train rows trains"),
    ("pretrain m t.txt -o r --steps 5 --train all --use-dora", "--use-dora", "--train all"),
    ("pretrain m t.txt -o r --steps 5 --replay-share 0.5", "--replay-share", "no --replay"),
    ("pretrain m t.txt -o r --steps 5 --sampling-cap 9", "--sampling-cap", "--languages"),
    (
        "pretrain m t.de t.en -o r --steps 5 --objective translation_masked --field a",
        "--field",
        "the lines of two files",
    ),
    ("align sft m c.jsonl -o r --lora-r 4", "--lora-r", "--train all trains no adapters"),
    ("align sft m c.jsonl -o r --steps 5 --epochs 3", "--epochs", "--steps replaces it"),
    ("align dpo m c.jsonl -o r --lora-r 4", "--lora-r", "--train all trains no adapters"),
    ("align grpo m c.jsonl --reward answer -o r --lora-r 4", "--lora-r", "--train all"),
    ("align reward m c.jsonl -o r --steps 5 --epochs 3", "--epochs", "--steps replaces it"),
    ("tasks classify train f.csv --encoder m -o r --lora-r 4", "--lora-r", "--adaptation full"),
    ("tasks tag train f.conll --encoder m -o r --lora-r 4", "--lora-r", "--adaptation full"),
    ("tasks tag train f.jsonl --encoder m -o r --tag-column 1", "--tag-column", ".jsonl files"),
    ("tasks tag predict m f.csv -o p.jsonl --token-column 1", "--token-column", ".csv files"),
    ("tasks tag evaluate m f.jsonl --file-scheme iob1", "--file-scheme", ".jsonl files"),
    ("tasks tag convert f.conll f.jsonl --to bioes", "--to", "offsets instead of tags"),
    ("tasks answer-span train f.json --encoder m -o r --lora-r 4", "--lora-r", "--adaptation"),
    ("tasks summarise train f.csv --model m -o r --lora-r 4", "--lora-r", "--adaptation full"),
    ("prompt tune m f.csv -o r --lora-r 4", "--lora-r", "--method prompt trains no adapters"),
    ("prompt tune m f.csv -o r --method full --num-virtual-tokens 4", "--num-virtual", "full"),
    ("prompt evaluate m f.csv --num-fewshot 2", "--num-fewshot", "--pool"),
    ("prompt evaluate m f.csv --pool g.csv --encoder e", "--encoder", "--demonstrations nearest"),
    (
        "prompt evaluate m f.csv --pool g.csv --encoder e --demonstrations nearest --seeds 3",
        "--seeds",
        "do not depend on a seed",
    ),
    ("evaluate tasks m q.jsonl --pool p.jsonl", "--pool", "--num-fewshot is 0"),
    ("evaluate search --documents d --qrels q --split dev", "--split", "--data"),
    ("evaluate search --data d --dimensions 8", "--dimensions", "there is no MODEL"),
    ("evaluate search --data d --curve c.svg", "--curve", "there is no MODEL"),
    ("words train t.txt -o w.txt --x-max 50", "--x-max", "--model glove"),
    ("words train t.txt -o w.txt --model glove --negative 9", "--negative", "word2vec"),
    ("words train t.txt -o w.txt --buckets 9", "--buckets", "--min-n"),
    ("words train t.txt -o w.txt --negative 0 --shared-negatives", "--shared-neg", "--negative"),
    ("search ix --vectors v.npy --mode lexical", "--mode", "--vectors"),
    ("search ix --vectors v.npy --mmr-diversity 0.5", "--mmr-diversity", "--vectors"),
    ("index build ix i.jsonl --vectors v --precision bf16", "--precision", "--encoder"),
    ("index build ix i.jsonl --vectors v --memory 2GB", "--memory", "--on-disk"),
    ("index export ix --to milvus -o f.jsonl", "--out", "writes no file"),
    ("index export ix --to jsonl -o f.jsonl --collection c", "--collection", "writes a file"),
    ("export hub r me/name --dry-run card --public", "--public", "uploads nothing"),
    ("answer ix question --max-new-tokens 9", "--max-new-tokens", "--model"),
    ("evaluate answers ix q.jsonl --instructions Short.", "--instructions", "--model"),
    ("generate-queries m t.txt -o p --filter-top-k 0 --filter-encoder e", "--filter-enc", "0"),
    ("chat m --temperature 0 --top-p 0.5", "--top-p", "greedy"),
    ("probe m --report p.html --field title", "--field", "--texts"),
    ("translate train a b -o r --model m --vocab-size 900", "--vocab-size", "--model"),
    ("translate train a b -o r --tokenizer t --vocab-size 900", "--vocab-size", "--tokenizer"),
    ("generate m text --length-penalty 2", "--length-penalty", "--num-beams is 1"),
    ("translate run m f --num-beams 1 --length-penalty 2", "--length-penalty", "--num-beams is 1"),
    ("tasks summarise predict m f.csv -o o --length-penalty 2", "--length-penalty", "--num-beams"),
    ("translate run m f.txt --text hello", "--text", "f.txt"),
]


@pytest.mark.parametrize(("words", "option", "reason"), _REFUSED, ids=lambda part: part[:40])
def test_an_option_without_effect_is_refused(
    words: str, option: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "ix").mkdir()
    ended = idiolect_program(*words.split(), folder=tmp_path)
    assert ended.returncode == 2, ended.stdout
    assert ended.stderr.count("\n") == 1
    assert option in ended.stderr
    assert reason in ended.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["ix"]


def test_defaults_are_accepted_beside_any_choice(tmp_path: Path) -> None:
    words = ("tune", "no-model", "pairs.jsonl", "-o", "run")
    adapters = ("--train", "rows+lora", "--lora-r", "4")
    for options in ((), adapters):
        ended = idiolect_program(*words, *options, folder=tmp_path)
        assert "no-model" in ended.stderr
        assert "no effect" not in ended.stderr
