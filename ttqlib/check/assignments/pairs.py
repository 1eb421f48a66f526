"""The small pair of assignment 4: a teacher of four layers that learns `flights` while one waits, and its students."""

import copy
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig

from ...models.intent_slot import IntentSlotModel
from ...surgery.calibration import eval_mode
from ...tasks.encoding import IntentSlotCollator, encode, label_names, word_tokenizer
from ...tasks.sources import load_task
from ..verdict import call, fail
from .seeds import generator
from .tiny import same_numbers

LAYERS, WIDTH, SENTENCES, EPOCHS, RATE = 4, 64, 2400, 3, 5e-3  # of the teacher
STUDENT, STEPS, BATCH, UNSEEN = 2, 64, 32, 240  # layers of the student, what it learns from, what it is judged on
FARTHEST, LEAST = 0.45, 65.0  # how far off its last layer may be, and on how many percent of intents it must agree
Batch = dict[str, Tensor]


def flights_pair() -> tuple[IntentSlotModel, list[Batch]]:
    """A teacher of four layers, 64 wide, in eval mode, and 64 batches of 32 sentences without labels to learn from.

    The teacher is trained at the first call, in about ten seconds of CPU time; each call gives a copy of it.
    """
    teacher, batches, _ = _made()
    return copy.deepcopy(teacher), [dict(batch) for batch in batches]


def check_distilled(function: Callable, seed: int) -> None:
    """The student that `function(teacher, batches)` returns must be near its teacher on unseen sentences."""
    (teacher, batches), original = flights_pair(), _made()[0]
    student = call(function, teacher, batches)
    if type(student) is not IntentSlotModel or student.config.num_hidden_layers != STUDENT:
        fail(function, f"expected an IntentSlotModel of {STUDENT} layers, got {_described(student)}")
    if len(student.bert.encoder.layer) != STUDENT:
        fail(function, f"expected {STUDENT} layers, as its config says, got {len(student.bert.encoder.layer)}")
    if not same_numbers(teacher, original):
        fail(function, "the teacher must stay as it was")
    off, agreement = closeness(student, seed)
    where = f"on {UNSEEN} sentences that it has not seen"
    if not off <= FARTHEST:
        fail(function, f"{where} its last layer is off by {off:.0%} of the teacher's, at most {FARTHEST:.0%} is wanted")
    if not agreement >= LEAST:
        fail(function, f"{where} it says the teacher's intent on {agreement:.0f} %, at least {LEAST:.0f} % is wanted")
    print(f"{where}: off by {off:.0%}, the teacher's intent on {agreement:.0f} %")


@torch.no_grad()
def closeness(student: nn.Module, seed: int = 0) -> tuple[float, float]:
    """How far the last hidden states are off, 1 for the mean of all tokens; agreement on intents in percent."""
    teacher, states, goals, agreed = _made()[0], [], [], []
    with eval_mode(student, teacher):
        for batch in _unseen(seed):
            real = batch["attention_mask"].bool()
            seen, goal = (model(**batch, output_hidden_states=True) for model in (student, teacher))
            states.append(seen.hidden_states[-1][real])
            goals.append(goal.hidden_states[-1][real])
            agreed.append(seen.intent_logits.argmax(-1) == goal.intent_logits.argmax(-1))
    h, g = torch.cat(states), torch.cat(goals)  # (tokens, hidden)
    off = (h - g).norm() / (g - g.mean(0)).norm()
    return off.item(), 100 * torch.cat(agreed).float().mean().item()


def _described(student: object) -> str:
    layers = getattr(getattr(student, "config", None), "num_hidden_layers", None)
    return type(student).__name__ + ("" if layers is None else f" of {layers}")


@cache
def _made() -> tuple[IntentSlotModel, list[Batch], Mapping]:
    """The trained teacher, the batches for students, and the encoded test split."""
    splits = load_task("flights")
    train = splits["train"].select(range(SENTENCES))
    tokenizer = word_tokenizer(train["tokens"])
    labels = {"intents": label_names(train, "intent"), "slots": label_names(train, "slots")}
    rows, collate = encode(train, tokenizer, **labels), IntentSlotCollator(tokenizer)
    teacher = _teacher(len(tokenizer), labels)
    _train(teacher, rows, collate)
    few = DataLoader(rows.select(range(STEPS * BATCH)), batch_size=BATCH, collate_fn=collate)
    return teacher, [_inputs(batch) for batch in few], {"rows": encode(splits["test"], tokenizer), "collate": collate}


def _unseen(seed: int) -> list[Batch]:
    """Sentences of the test split, drawn by a seed."""
    rows, collate = _made()[2].values()
    drawn = torch.randperm(len(rows), generator=generator(seed, "unseen"))[:UNSEEN].tolist()
    return [_inputs(batch) for batch in DataLoader(rows.select(drawn), batch_size=80, collate_fn=collate)]


def _inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def _teacher(words: int, labels: Mapping) -> IntentSlotModel:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "vocab_size": words}
    sizes |= {"intermediate_size": 2 * WIDTH, "max_position_embeddings": 40, "type_vocab_size": 1}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": WIDTH**-0.5}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = IntentSlotModel(BertConfig(**sizes, **still, **labels))
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.mul_(2)  # slots hang on the order of words
        for layer in model.bert.encoder.layer:  # four layers learn soon only if each begins as a small change
            layer.attention.output.dense.weight.mul_(0.25)
            layer.output.dense.weight.mul_(0.25)
    return model


def _train(model: IntentSlotModel, rows, collate: IntentSlotCollator) -> None:
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collate, generator=order)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(loader), pct_start=0.2)
    for _ in range(EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            model.train()(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
