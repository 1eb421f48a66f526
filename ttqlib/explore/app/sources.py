"""The models that the app can open: as shapes on the meta device, and as the lines of a program that make them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, BertConfig, BertForSequenceClassification, LlamaConfig, PreTrainedModel

from ...models.intent_slot import IntentSlotModel
from ...models.packaged import minilm_folder
from ...tasks.sources import reach_hub

INTENTS, SLOTS, WORDS = 21, 120, 871  # of ATIS's training sentences
LONGER_NAMES = 1508  # bytes: what the names of ATIS's labels take in config.json beyond those given here
MINILM_BYTES = 90_868_718  # of the dense teachers in data/results/glue.json, with positions for 512 tokens
SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
SMOLLM2 = {  # Ben Allal et al., "SmolLM2", 2025: the config of the model of 135 million parameters
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
ATIS = {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 3072}
ATIS |= {"vocab_size": WORDS, "max_position_embeddings": 64, "type_vocab_size": 1}


@dataclass(frozen=True)
class Source:
    """A model that can be opened. `task` names what was measured of it; None where nothing was.

    `bare` builds it without weights. `lines` make `model`, dense, in a program that has imported torch, transformers
    and ttqlib; `trains` says how such a model is trained. `init` is where its trains start.
    """

    key: str
    label: str
    bare: Callable[[], PreTrainedModel] = field(repr=False, compare=False)
    lines: str = field(repr=False, compare=False)
    trains: str = field(repr=False, compare=False)
    init: str = "svd"
    task: str | None = None
    dense_bytes: int | None = None  # of the model that it is compared with, where that is larger than itself
    loaded: Callable[[], PreTrainedModel] | None = field(default=None, repr=False, compare=False)


def known() -> dict[str, Source]:
    """The models that are offered by name, by their keys; each is built only when it is opened."""
    found = [
        Source("atis", "ATIS transformer", _atis, ATIS_LINES, ATIS_TRAINS, "random", "atis"),
        *(
            Source(f"minilm-{task}", f"MiniLM, {name}", partial(_minilm, length), MINILM_LINES.format(length),
                   DISTILS.format(task=task), "svd", task, MINILM_BYTES)
            for task, name, length in (("sst2", "SST-2", 64), ("rte", "RTE", 256))
        ),
        *(_shape(key, label) for key, label in (("bert-base", "BERT-base shape"), ("bert-large", "BERT-large shape"))),
        Source("smollm2", "SmolLM2 shape", _smollm2, SMOLLM2_LINES, QAT, "random"),
    ]  # fmt: skip
    return {source.key: source for source in found}


def opened(key: str) -> Source:
    """The source of a key: one of `known`, or a folder or a name of the hub with a config.json.

    Raises:
        ValueError: there is no such folder or name, or it holds no model that transformers knows.
    """
    named = known()
    if key in named:
        return named[key]
    config = _config(key)
    kind = next((name for name in config.architectures or () if hasattr(transformers, name)), None)
    if kind is None:
        raise ValueError(f"{key}: its config.json must name one of transformers' models, got {config.architectures}")
    place, made = Path(key), f"transformers.{kind}"
    name = repr(str(place.resolve() if place.is_dir() else key))  # the program may be run elsewhere
    if place.is_dir() and not any(place.glob("*.safetensors")):
        lines = f"config = transformers.AutoConfig.from_pretrained({name})\nmodel = {made}(config)  # no weights"
        start, loaded = "random", None
    else:
        lines = f"model = {made}.from_pretrained({name})"
        start, loaded = "svd", partial(getattr(transformers, kind).from_pretrained, key)
    bare = partial(_on_meta, getattr(transformers, kind), config)
    return Source(str(key), place.name or str(key), bare, lines, QAT, start, loaded=loaded)


def _config(key: str):
    folder = Path(key)
    if not folder.is_dir():
        try:
            reach_hub()
        except OSError as error:
            raise ValueError(f"{key!r} is no folder here, and the hub cannot be reached: {error}") from None
    elif not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json")
    try:
        return AutoConfig.from_pretrained(key)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{key}: {str(error).splitlines()[0][:200]}") from None


def _on_meta(kind: type[PreTrainedModel], config) -> PreTrainedModel:
    with torch.device("meta"):
        return kind._from_config(config, dtype=config.dtype or torch.float32)


def _atis() -> PreTrainedModel:
    labels = {"intents": [f"intent {n}" for n in range(INTENTS)], "slots": [f"slot {n}" for n in range(SLOTS)]}
    labels["slots"][-1] += "x" * LONGER_NAMES  # so that its folder is as large as that of the task
    with torch.device("meta"):
        return IntentSlotModel(BertConfig(**ATIS, **labels))


def _minilm(length: int) -> PreTrainedModel:
    try:
        config = BertConfig.from_pretrained(minilm_folder())
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    config.num_labels, config.max_position_embeddings, config.use_cache = 2, length, False
    with torch.device("meta"):
        return BertForSequenceClassification(config)


def _shape(key: str, label: str) -> Source:
    sizes: Mapping[str, int] = SHAPES[key]
    lines = f"""# A shape with random weights. For trained ones: model =
# transformers.BertForSequenceClassification.from_pretrained("google-bert/{key}-uncased")
config = transformers.BertConfig(
    {told(sizes)},
)
model = transformers.BertForSequenceClassification(config)"""

    def bare() -> PreTrainedModel:
        with torch.device("meta"):
            return BertForSequenceClassification(BertConfig(**sizes))

    return Source(key, label, bare, lines, QAT, "random")


def _smollm2() -> PreTrainedModel:
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(LlamaConfig(**SMOLLM2))


def told(sizes: Mapping[str, object], without: str = "") -> str:
    """Arguments as Python, three a line."""
    words = [f"{name}={value}" for name, value in sizes.items() if name != without]
    return ",\n    ".join(", ".join(words[start : start + 3]) for start in range(0, len(words), 3))


ATIS_LINES = f"""task = ttq.load_task("atis")
tokenizer = ttq.word_tokenizer(task["train"]["tokens"])
intents, slots = (ttq.label_names(task["train"], field) for field in ("intent", "slots"))
config = transformers.BertConfig(
    vocab_size=len(tokenizer), intents=list(intents), slots=list(slots),
    {told(ATIS, without="vocab_size")},
)
model = ttq.IntentSlotModel(config)"""
MINILM_LINES = """encoder = ttq.pretrained_minilm()
config, weights = encoder.config, encoder.state_dict()
config.num_labels, config.max_position_embeddings, config.use_cache = 2, {0}, False
weights["embeddings.position_embeddings.weight"] = weights["embeddings.position_embeddings.weight"][:{0}]
model = transformers.BertForSequenceClassification(config)
model.bert.load_state_dict(weights)"""
SMOLLM2_LINES = f"""# The shape of SmolLM2-135M with random weights. For trained ones: model =
# transformers.AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M")
config = transformers.LlamaConfig(
    {told(SMOLLM2)},
)
model = transformers.LlamaForCausalLM(config)"""
QAT = """# To train it on rows of your own, encoded as the model takes them:
# how = transformers.TrainingArguments("runs/mine")
# trainer = ttq.QATTrainer(model, how, train_dataset=rows)
# trainer.train()"""
ATIS_TRAINS = """# To train it as experiments/atis.py does, take the # away:
# rows = ttq.encode(task["train"], tokenizer, intents, slots)
# collate = ttq.IntentSlotCollator(tokenizer)
# how = transformers.TrainingArguments("runs/mine", learning_rate=1e-3, num_train_epochs=20)
# trainer = ttq.QATTrainer(model, how, train_dataset=rows, data_collator=collate)
# trainer.train()"""
DISTILS = """# Fine-tune `model` on {task} before compress_ and keep a copy as `teacher`; then, on encoded rows:
# how = transformers.TrainingArguments("runs/mine", learning_rate=5e-4)
# trainer = ttq.DistillTrainer(model, how, teacher=teacher, stages=ttq.AllLayers(steps=3000), train_dataset=rows)
# trainer.train()"""
