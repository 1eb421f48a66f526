"""Measure how hard the embedded data sets are; write difficulty.json and the tables in README.md.

    python data/measure_difficulty.py            # both sets, about a quarter of an hour on one core
    python data/measure_difficulty.py reviews    # one of them; the other keeps its stored numbers

Each set is given to models that see words one by one, without their order, and to a small transformer trained from
scratch. The distance between the two is what word order and context are worth; most of what the transformer lacks to
100 % is what training never showed it. Settings were chosen on validation.
"""

import hashlib
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from seqeval.metrics import f1_score
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn

HERE = Path(__file__).parent
SPLITS = ("train", "validation", "test")
SEEDS = (0, 1, 2)
# Epochs by number of training sentences. A few thousand is what a chapter can afford while its reader waits.
EPOCHS = {"flights": {4500: 12, 1500: 25}, "reviews": {10000: 10, 3000: 20, 1500: 25}}
SETTINGS = {
    "flights": {"batch": 16, "rate": 1e-3, "dropout": 0.1, "word_dropout": 0.08},
    "reviews": {"batch": 32, "rate": 7e-4, "dropout": 0.2, "word_dropout": 0.08},
}
PAD, UNK, CLS = 0, 1, 2


def load(task):
    """Each split as rows with `words` and the two targets `slots` and `label`; reviews have no slots."""
    splits = {}
    for split in SPLITS:
        rows = [json.loads(line) for line in (HERE / task / f"{split}.jsonl").open(encoding="utf-8")]
        splits[split] = [
            {
                "words": row["tokens"] if task == "flights" else row["sentence"].split(),
                "slots": row.get("slots"),
                "label": row["intent"] if task == "flights" else row["label"],
            }
            for row in rows
        ]
    return splits


def scores(rows, labels, slots=None):
    """Accuracy of the sentence labels and F1 of the slot spans (seqeval's default, as conlleval counts), in percent."""
    result = {
        "accuracy": 100 * float(np.mean([row["label"] == label for row, label in zip(rows, labels, strict=True)]))
    }
    if slots is not None:
        result["slot_f1"] = 100 * float(f1_score([row["slots"] for row in rows], slots))
    return result


# ---- models that do not see the order of words ---------------------------------------------------------------------


def majority(splits):
    label = Counter(row["label"] for row in splits["train"]).most_common(1)[0][0]
    return {split: scores(splits[split], [label] * len(splits[split])) for split in SPLITS[1:]}


def bag_of_words(splits):
    """Logistic regression on word counts, its strength of regularization chosen on validation."""
    vectorizer = CountVectorizer(analyzer=str.split)
    inputs = {split: [" ".join(row["words"]) for row in splits[split]] for split in SPLITS}
    train = vectorizer.fit_transform(inputs["train"])
    labels = [row["label"] for row in splits["train"]]
    found = []
    for strength in (0.03, 0.1, 0.3, 1, 3, 10):
        model = LogisticRegression(C=strength, max_iter=2000).fit(train, labels)
        found.append(
            {
                split: scores(splits[split], model.predict(vectorizer.transform(inputs[split])).tolist())
                for split in SPLITS[1:]
            }
        )
    return max(found, key=lambda result: result["validation"]["accuracy"])


def word_alone(splits):
    """Logistic regression from one word to its slot label. Equal (word, label) pairs are one weighted example."""
    pairs = Counter(
        (word, slot) for row in splits["train"] for word, slot in zip(row["words"], row["slots"], strict=True)
    )
    vectorizer = CountVectorizer(analyzer=lambda word: [word])
    inputs = vectorizer.fit_transform([word for word, _ in pairs])
    found = []
    for strength in (1, 10, 100):
        model = LogisticRegression(C=strength, max_iter=2000)
        model.fit(inputs, [slot for _, slot in pairs], sample_weight=list(pairs.values()))
        result = {}
        for split in SPLITS[1:]:
            words = sorted({word for row in splits[split] for word in row["words"]})
            slot = dict(zip(words, model.predict(vectorizer.transform(words)).tolist(), strict=True))
            slots = [[slot[word] for word in row["words"]] for row in splits[split]]
            result[split] = {"slot_f1": scores(splits[split], [None] * len(slots), slots)["slot_f1"]}
        found.append(result)
    return max(found, key=lambda result: result["validation"]["slot_f1"])


# ---- a small transformer -------------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """Two layers, 128 wide, four heads; position 0 holds a sentence token, from which the sentence's label is read."""

    def __init__(self, words, labels, slots, dropout, width=128):
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=PAD)
        self.positions = nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.label_head = nn.Linear(width, labels)
        self.slot_head = nn.Linear(width, slots)
        for embedding in (self.words, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)  # torch's own 1.0 drowns what attention adds

    def forward(self, ids):  # (batch, length), the first of each row CLS
        hidden = self.words(ids) + self.positions.weight[: ids.shape[1]]
        hidden = self.encoder(hidden, src_key_padding_mask=ids == PAD)  # (batch, length, width)
        return self.label_head(hidden[:, 0]), self.slot_head(hidden[:, 1:])


def index(names):
    return {name: i for i, name in enumerate(sorted(set(names)))}


def padded(rows, value):
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def batches(rows, batch, shuffler):
    """One epoch in random order; rows of about equal length go together, which halves the padding."""
    order = sorted(shuffler.sample(rows, len(rows)), key=lambda row: len(row["words"]) // 3)
    groups = [order[start : start + batch] for start in range(0, len(order), batch)]
    return shuffler.sample(groups, len(groups))


def train_transformer(splits, epochs, seed, batch, rate, dropout, word_dropout):
    """Scores on validation and test after training. Labels that training lacks are never found, so count as errors."""
    torch.manual_seed(seed)
    shuffler = random.Random(seed)
    rows = splits["train"]
    words = {word: i + 3 for word, i in index(word for row in rows for word in row["words"]).items()}
    labels = index(row["label"] for row in rows)
    slots = index(slot for row in rows for slot in row["slots"] or ["O"])
    model = Transformer(len(words) + 3, len(labels), len(slots), dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * -(-len(rows) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)

    def encode(batch):
        return padded([[CLS] + [words.get(word, UNK) for word in row["words"]] for row in batch], PAD)

    for _ in range(epochs):
        for some in batches(rows, batch, shuffler):
            ids = encode(some)
            # Now and then a known word is hidden, so that the model has met unknown ones before the test.
            ids[(torch.rand(ids.shape) < word_dropout) & (ids > CLS)] = UNK
            label_scores, slot_scores = model(ids)
            loss = nn.functional.cross_entropy(label_scores, torch.tensor([labels[row["label"]] for row in some]))
            if some[0]["slots"]:
                target = padded([[slots[slot] for slot in row["slots"]] for row in some], -100)
                loss = loss + nn.functional.cross_entropy(slot_scores.flatten(0, 1), target.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    model.eval()
    label_names, slot_names = list(labels), list(slots)
    result = {}
    for split in SPLITS[1:]:
        found_labels, found_slots = [], []
        for start in range(0, len(splits[split]), 100):
            some = splits[split][start : start + 100]
            with torch.no_grad():
                label_scores, slot_scores = model(encode(some))
            found_labels += [label_names[i] for i in label_scores.argmax(1).tolist()]
            for row, best in zip(some, slot_scores.argmax(2).tolist(), strict=True):
                found_slots.append([slot_names[i] for i in best[: len(row["words"])]])
        result[split] = scores(splits[split], found_labels, found_slots if splits[split][0]["slots"] else None)
    return result


# ---- the table -----------------------------------------------------------------------------------------------------


def row(task, model, sentences, results, seconds=None):
    """One row: the mean and, over several seeds, the standard deviation of each score, in percent."""
    metrics = {}
    for split in SPLITS[1:]:
        for name in results[0][split]:
            values = [result[split][name] for result in results]
            sd = round(float(np.std(values, ddof=1)), 2) if len(values) > 1 else None
            metrics[f"{split}_{name}"] = {"mean": round(float(np.mean(values)), 2), "sd": sd}
    return {"task": task, "model": model, "sentences": sentences, "metrics": metrics, "seconds": seconds}


def measure(task):
    whole = load(task)
    rows = []
    for sentences, epochs in EPOCHS[task].items():
        splits = whole | {"train": whole["train"][:sentences]}
        rows.append(row(task, "majority", sentences, [majority(splits)]))
        rows.append(row(task, "bag of words", sentences, [bag_of_words(splits)]))
        if task == "flights":
            rows.append(row(task, "word alone", sentences, [word_alone(splits)]))
        start = time.perf_counter()
        results = [train_transformer(splits, epochs, seed, **SETTINGS[task]) for seed in SEEDS]
        seconds = round((time.perf_counter() - start) / len(SEEDS))
        rows.append(row(task, f"transformer, {epochs} epochs", sentences, results, seconds))
    return {"data_sha256": digest(task), "seeds": list(SEEDS), "rows": rows}


def digest(task):
    """One SHA-256 over the files of a set: stored numbers belong to exactly these bytes."""
    return hashlib.sha256(b"".join((HERE / task / f"{split}.jsonl").read_bytes() for split in SPLITS)).hexdigest()


def sizes(task):
    """What the files hold, as a Markdown table."""
    splits = load(task)
    lines = ["| | " + " | ".join(SPLITS) + " |", "|---|---|---|---|"]

    def line(name, value):
        lines.append(f"| {name} | " + " | ".join(value(splits[split]) for split in SPLITS) + " |")

    known = {word for row in splits["train"] for word in row["words"]}
    line("sentences", lambda rows: str(len(rows)))
    line("different words", lambda rows: str(len({word for row in rows for word in row["words"]})))
    line("words a sentence (mean)", lambda rows: f"{np.mean([len(row['words']) for row in rows]):.1f}")
    line(
        "words that training lacks",
        lambda rows: f"{100 * np.mean([w not in known for r in rows for w in r['words']]):.1f} %",
    )
    if task == "flights":
        line("slot labels, with O", lambda rows: str(len({slot for row in rows for slot in row["slots"]})))
    for label, _ in Counter(row["label"] for rows in splits.values() for row in rows).most_common():
        name = f"`{label}`" if task == "flights" else f"label {label}"
        line(name, lambda rows, label=label: str(sum(row["label"] == label for row in rows)))
    if task == "flights":
        names = {split: {slot[2:] for row in splits[split] for slot in row["slots"]} - {""} for split in SPLITS}
        late = (names["validation"] | names["test"]) - names["train"]
        lines.append("")
        lines.append("Slots: " + ", ".join(f"`{name}`" for name in sorted(names["train"])) + ".")
        lines.append("")
        lines.append("Slots without a training sentence: " + ", ".join(f"`{name}`" for name in sorted(late)) + ".")
    return "\n".join(lines)


def table(rows, task):
    """The rows of one task as a Markdown table."""
    columns = {"accuracy": "intent accuracy", "slot_f1": "slot F1"} if task == "flights" else {"accuracy": "accuracy"}
    heads = [f"{split} {text}" for split in SPLITS[1:] for text in columns.values()]
    lines = ["| model | training sentences | " + " | ".join(heads) + " | seconds a run |"]
    lines.append("|---" * (len(heads) + 3) + "|")
    for entry in rows:
        cells = [entry["model"], str(entry["sentences"])]
        for split in SPLITS[1:]:
            for name in columns:
                score = entry["metrics"].get(f"{split}_{name}")
                spread = f" ± {score['sd']:.1f}" if score and score["sd"] is not None else ""
                cells.append(f"{score['mean']:.1f}{spread}" if score else "—")
        cells.append("—" if entry["seconds"] is None else str(entry["seconds"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paste(text, name, content):
    """The text with everything between the two markers called `name` replaced."""
    start, end = f"<!-- {name}: written by measure_difficulty.py -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(start)
    return before + start + content + "\n" + end + rest.split(end)[1]


def fill_readme(text, stored):
    for task in EPOCHS:
        text = paste(text, f"{task} sizes", sizes(task))
        text = paste(text, f"{task} difficulty", table(stored[task]["rows"], task))
    return text


def main(tasks):
    torch.set_num_threads(1)  # the same sums in the same order everywhere
    path, readme = HERE / "difficulty.json", HERE / "README.md"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for task in tasks or EPOCHS:
        stored[task] = measure(task)
        print(table(stored[task]["rows"], task))
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    readme.write_text(fill_readme(readme.read_text(encoding="utf-8"), stored), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
