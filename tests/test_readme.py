"""What the README tells a reader to type in Python does what it says, for BERT and GPT-2, on a task of one's own."""

import copy
import json
import random
import re
import subprocess
import sys

import headline
import pytest
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

import ttqlib as ttq
from tests.chapters import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = 300  # of the task's language; the first three are padding, what stands for a sentence, and its end
GOOD, BAD = range(3, 23), range(23, 43)
BERT = BertConfig(
    vocab_size=WORDS, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, pad_token_id=0
)
GPT2 = GPT2Config(vocab_size=WORDS, n_embd=128, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
FAMILIES = {"BERT": (BertForSequenceClassification, BERT), "GPT-2": (GPT2ForSequenceClassification, GPT2)}


def sentences(count: int, seed: int) -> Dataset:
    """Rows of a task: has a sentence more good words than bad ones? `not` (43) turns the word behind it round."""
    draw, rows = random.Random(seed), []
    while len(rows) < count:
        words = [draw.choice([*GOOD, *BAD, 43, *range(44, 84)]) for _ in range(draw.randint(8, 20))]
        signs = [(word in GOOD) - (word in BAD) for word in words]
        worth = sum(sign * (1 if before != 43 else -1) for sign, before in zip(signs, [0, *words]))
        if worth:
            rows.append({"input_ids": [1, *words, 2], "labels": int(worth > 0)})
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, models

    vocabulary = {"[PAD]": 0} | {f"w{number}": number for number in range(1, WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")


def accuracy(model, rows: Dataset, tokenizer) -> float:
    batch = DataCollatorWithPadding(tokenizer)(list(rows))
    labels = batch.pop("labels")
    with torch.no_grad():
        return 100 * (model.eval()(**batch).logits.argmax(-1) == labels).double().mean().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readmes_recipe_makes_a_good_small_model(family, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    kind, config = FAMILIES[family]
    teacher, rows, unseen = kind(config), sentences(1000, 0), sentences(400, 1)
    args = TrainingArguments(
        "teacher",
        learning_rate=1e-3,
        per_device_train_batch_size=32,
        max_steps=120,
        save_strategy="no",
        report_to="none",
    )
    Trainer(teacher, args, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer)).train()
    names = {"teacher": teacher.eval(), "rows": rows, "tokenizer": tokenizer}
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    for said, here in {"rank=24": "rank=6", "steps=100": "steps=60"}.items():  # the task is small, so that it is quick
        assert said in block
        block = block.replace(said, here)
    exec(block, names)
    alone = ttq.compress_(copy.deepcopy(teacher), names["student"].ttq_config)
    best, cut, learned = (accuracy(model, unseen, tokenizer) for model in (teacher, alone, names["student"]))
    batch = DataCollatorWithPadding(tokenizer)(list(unseen.select(range(8))))
    assert torch.equal(names["again"].eval()(**batch).logits, names["student"].eval()(**batch).logits)
    stored = (tmp_path / "small" / "model.safetensors").stat().st_size
    assert f"{stored:,}" in capsys.readouterr().out
    assert best > 93 and cut < best - 7 and learned > max(88, cut + 4), (best, cut, learned)


def test_without_the_import_transformers_says_what_the_page_says(tmp_path):
    small = BertForSequenceClassification(BERT)
    ttq.save(ttq.compress_(small, ttq.plan(small, rank=6)), tmp_path / "small")
    code = "from transformers import BertForSequenceClassification as Model; Model.from_pretrained('small')"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    page = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
    for words in ("Unknown quantization type, got ttq", "ignore_mismatched_sizes"):
        assert words in run.stderr and words in page and words in README


def test_the_page_on_own_models_quotes_the_rows():
    rows = json.loads((ROOT / "data" / "results" / "glue.json").read_text(encoding="utf-8"))["rows"]
    quick = {"task": "sst2", "split": "validation", "bits": 4, "rank": 34, "steps": 500, "learning_rate": 5e-4}
    long = {**quick, "steps": 3000, "start": "rotated"}

    def percent(settings: dict, **said) -> float:
        return headline.pick(rows, **settings | said)["metrics"]["accuracy"]["mean"]

    teacher = percent(headline.STUDENT, method="dense", inputs=None)
    starts = [percent(quick, start=start, schedule="all_layers") for start in ("calibrated", "svd", "random")]
    names = ("all_layers", "relations", "layer_by_layer", "logits", "task")
    schedules = [percent(quick, start="calibrated", schedule=name) for name in names]
    crossed = [percent(long, rank=rank, bits=bits, inputs="crossed") for rank, bits in ((48, 3), (36, 2), (112, 3))]
    plain = percent(long, rank=48, bits=3, inputs="sentences")
    low_rank = percent(headline.STUDENT, bits=3, sides=1)
    page = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
    for words in (
        "{:.1f} % calibrated, {:.1f} % from the weights alone, {:.1f} % from random cores".format(*starts),
        "all layers {:.1f} %, relations {:.1f} %, layer by layer {:.1f} %, logits {:.1f} %".format(*schedules[:-1]),
        f"labels alone {schedules[-1]:.1f} %",
        f"rank 48: 46×, {teacher - crossed[0]:.1f} points behind",
        f"88×, {teacher - crossed[1]:.1f} points behind",
        f"one core a\nside, do as well at 50×, {low_rank:.1f} % over three seeds",
        f"{crossed[0]:.1f} % with crossed copies of the sentences (three seeds), {plain:.1f} % without (one seed)",
    ):
        assert words in page, words
    assert crossed[2] >= teacher  # "not behind"


def test_the_plan_on_that_page_is_the_rows_and_as_small_as_it_says():
    rows = json.loads((ROOT / "data" / "results" / "glue.json").read_text(encoding="utf-8"))["rows"]
    row = headline.pick(rows, **headline.STUDENT, rank=48, bits=3)
    page = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    with torch.device("meta"):
        names = {"ttq": ttq, "model": BertForSequenceClassification(BertConfig(**sizes))}
    exec(block, names)
    assert names["config"].layers == ttq.TTQConfig.from_dict(row["plan"]).layers and names["config"].rest == 8
    dense = ttq.report(names["model"]).total.stored_bytes
    small = ttq.report(ttq.compress_(names["model"], names["config"])).total.stored_bytes
    assert f"this plan gives {dense / small:.0f}×" in page
