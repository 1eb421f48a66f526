"""Hundreds of broken checkpoints: every one ends in one clear error, none loads wrongly, none executes anything.

What an accident does to files is one half. The other half is forged: whoever breaks a plan or a tensor on purpose
writes fitting digests, too.
"""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import logging

import ttqlib as ttq
from ttqlib.storage import reading, stored
from ttqlib.storage.files import DIGEST

IDS = torch.tensor([[2, 7, 6, 3], [2, 9, 3, 0]])
QUERY, KEY = "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.attention.self.key"
VALUE, NORM = "bert.encoder.layer.0.attention.self.value", "bert.embeddings.LayerNorm"
WORDS, FLOAT = "bert.embeddings.word_embeddings", "bert.encoder.layer.0.intermediate.dense"
DOORS = {"load": ttq.load, "from_pretrained": BertForSequenceClassification.from_pretrained}
Break = Callable[[Path], None]


def model(seed: int = 0, rank: int = 2, rest: int = 8) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    bert = BertForSequenceClassification(BertConfig(**sizes, vocab_size=11, max_position_embeddings=6))
    rules = {"query": ttq.LayerPlan(ttq.TT(rank), ttq.LSQ(3)), "key": ttq.Ternary(), "intermediate": ttq.TT(rank)}
    rules |= {"word": ttq.LayerPlan(ttq.TTM(rank), ttq.LSQ(3))}
    rules |= {"value": ttq.LayerPlan(None, ttq.GroupRTN(3, per=4, symmetric=False), ttq.StaticActivation())}
    ttq.compress_(bert, ttq.plan(bert, rules=rules, rest=rest))
    bert.train()(IDS)
    return bert.eval()


@pytest.fixture(scope="module")
def saves(tmp_path_factory) -> dict[str, Path]:
    """A whole save, others to mix it with, and what it must compute."""
    folder = tmp_path_factory.mktemp("saves")
    variants = {"good": model(), "seed": model(1), "rank": model(rank=1), "rest": model(rest=16)}
    for name, variant in variants.items():
        ttq.save(variant, folder / name)
    return {name: folder / name for name in variants} | {"logits": variants["good"](IDS).logits.detach()}


@pytest.fixture(autouse=True)
def quiet():
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def forged(monkeypatch):
    """Digests that fit to whatever the files hold, so that all other checks have to hold by themselves."""
    for module in (stored, reading):
        monkeypatch.setattr(module, "digest", lambda plan, tensors: "forged")


# ------------------------------------------------------------------------------------------------- how to break it


def read_all(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def forge(folder: Path, config: dict, tensors: dict[str, torch.Tensor], tie: bool = True) -> None:
    """Write both files with a digest that the fixture `forged` makes the right one."""
    config["quantization_config"]["digest"] = "forged" if tie else "another"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", {DIGEST: "forged", "format": "pt"})


def tensors(change: Callable[[dict], None], tie: bool = True) -> Break:
    def apply(folder: Path) -> None:
        config, found = read_all(folder)
        change(found)
        forge(folder, config, found, tie)

    return apply


def config(change: Callable[[dict], None]) -> Break:
    def apply(folder: Path) -> None:
        found, _ = read_all(folder)
        change(found)
        (folder / "config.json").write_text(json.dumps(found))

    return apply


def plan(*path, value) -> Break:
    """Put `value` at a place of the plan (a field is dropped where it is ...), with digests that fit."""

    def apply(folder: Path) -> None:
        found, weights = read_all(folder)
        place = found["quantization_config"]
        for step in path[:-1]:
            place = place[step]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        forge(folder, found, weights)

    return apply


def data(change: Callable[[bytes], bytes], file: str = "model.safetensors") -> Break:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def flip(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


class Touch:
    """Unpickled, it would leave a trace."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def accidents(saves: dict) -> Iterator[tuple[str, Break]]:
    rng = random.Random(0)
    size = os.stat(saves["good"] / "model.safetensors").st_size
    for cut in {0, 1, 7, 8, 9, size - 1, *rng.sample(range(size), 34)}:
        yield f"truncated to {cut}", data(lambda content, cut=cut: content[:cut])
    for position in {0, 7, 8, size - 1, *rng.sample(range(size), 36)}:
        bit = rng.randrange(8)
        yield f"bit {bit} of byte {position}", data(lambda content, p=position, b=bit: flip(content, p, b))
    for extra in (b"\0", b"more", bytes(1000)):
        yield f"{len(extra)} bytes more", data(lambda content, extra=extra: content + extra)
    size = os.stat(saves["good"] / "config.json").st_size
    for cut in {0, 1, size - 3, *rng.sample(range(size - 3), 17)}:
        yield f"config truncated to {cut}", data(lambda content, cut=cut: content[:cut], "config.json")
    for name in ("seed", "rank", "rest"):
        for file in ("config.json", "model.safetensors"):
            yield f"{file} of the save {name}", lambda f, n=name, file=file: shutil.copy(saves[n] / file, f / file)
    for file in ("config.json", "model.safetensors"):
        yield f"no {file}", lambda folder, file=file: (folder / file).unlink()
    for content in (b"", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"architectures": 3}'):
        yield f"config {content[:9]}", data(lambda _, content=content: content, "config.json")


def forged_tensors(saves: dict) -> Iterator[tuple[str, Break]]:
    names = sorted(load_file(saves["good"] / "model.safetensors"))
    some = [name for name in names if name.startswith((QUERY, VALUE, FLOAT + ".core0"))]
    for name in names[::3]:
        yield f"without {name}", tensors(lambda t, name=name: t.pop(name))
    for name in some:

        def put(make, name=name):
            return tensors(lambda t: t.update({name: make(t[name])}))

        yield f"{name} longer", put(lambda x: torch.cat([x.reshape(-1), x.reshape(-1)[:1], x.new_zeros(1)]))
        yield f"{name} in another shape", put(lambda x: x.reshape(1, *x.shape))
        yield f"{name} as int16", put(lambda x: x.to(torch.int16))
        yield f"{name} as float64", put(lambda x: x.to(torch.float64))
    for name in (name for name in some if name.endswith(("scale", "scales", "core0"))):
        for bad in (torch.nan, torch.inf, -torch.inf, *([-1.0] if name.endswith("scales") else [])):

            def poison(t, name=name, bad=bad):
                t[name] = t[name].clone()
                t[name].view(-1)[-1] = bad

            yield f"{bad} in {name}", tensors(poison)
    yield "a ternary code 0", tensors(lambda t: t[f"{KEY}.codes"].zero_())
    yield "bits after the last code", tensors(lambda t: t[f"{WORDS}.codes"][-1:].bitwise_or_(128))  # 108 of 112
    for name in ("../../evil", "/etc/passwd", "a\nb", "", "__class__", f"{QUERY}.__dict__", "x" * 5000, "☃.codes"):
        yield f"extra {name[:20]!r}", tensors(lambda t, name=name: t.update({name: torch.zeros(2)}))
        yield f"renamed {name[:20]!r}", tensors(lambda t, name=name: t.update({name: t.pop(f"{QUERY}.codes")}))
    yield "another digest in the header", tensors(lambda t: t[f"{QUERY}.scales"].mul_(2), tie=False)


def forged_plans(saves: dict) -> Iterator[tuple[str, Break]]:
    bad_numbers = (-1, 0, 9, 10**12, 4.5, "4", None, True, [3], {}, float("nan"))
    for bits in bad_numbers:
        yield f"bits {bits}", plan("layers", QUERY, "quantize", "bits", value=bits)
    for rank in (-1, 0, 10**12, 10**400, 1.5, "2", None, True, {}, float("inf"), [1, 2]):
        yield f"rank {str(rank)[:9]}", plan("layers", QUERY, "format", "rank", value=rank)
    huge = (10**12, 10**12, 10**12)
    for modes in ([8, 1], [3, 3], [0, 8], [-2, -4], huge, [10**300] * 3, "8", 8, [2.0, 4], [[2], [4]], [2] * 3000):
        yield f"modes {str(modes)[:20]}", plan("layers", QUERY, "format", "in_modes", value=modes)
        yield (
            f"words {str(modes)[:20]}",
            plan("layers", WORDS, "format", "vocabulary_modes", value=modes),
        )
    for per in ("row", 0, -1, 1.5, None, [], 3):
        yield f"group {per}", plan("layers", VALUE, "quantize", "per", value=per)
    for kind in ("Evil", "", None, 3, "os.system", "WeightRecipe", "Float16"):
        yield f"type {kind}", plan("layers", KEY, "quantize", "type", value=kind)
    for field in ("type", "bits"):
        yield f"no {field}", plan("layers", QUERY, "quantize", field, value=...)
    for name in (QUERY, KEY, VALUE, WORDS):
        yield f"layer {name} left out", plan("layers", name, value=...)
        yield f"layer {name} empty", plan("layers", name, value={})
        yield f"layer {name} no object", plan("layers", name, value=[1])
    for name in ("", "nowhere", "bert", "../bert", "__class__", f"{QUERY}.weight", "classifier"):
        yield f"layer {name!r}", plan("layers", name, value={"format": {"type": "TT", "rank": 2, "in_modes": None}})
        binary = {"quantize": {"type": "Binary", "per": "tensor", "learnable": False}}
        if name not in ("", "bert"):  # those have no weight to quantize, so that nothing would be wrong
            yield f"quantized {name!r}", plan("layers", name, value=binary)
    for rest in (32, 16, 7, -8, "8", None, [8], 8.5):
        yield f"rest {rest}", plan("rest", value=rest)
    for path in ("layers", "rest"):
        yield f"no {path}", plan(path, value=...)
    for path in ("layers", "rest", "unmatched", "format"):
        yield f"{path} no such thing", plan(path, value=3)
    yield "another field", plan("evil", value=1)


def forged_configs(saves: dict) -> Iterator[tuple[str, Break]]:
    for field in ("quantization_config", "hidden_size"):
        yield f"no {field}", config(lambda c, field=field: c.pop(field))
    for value in (None, "", "0" * 64, 3, [], {}):
        yield f"digest {value}", config(lambda c, value=value: c["quantization_config"].update(digest=value))
    yield "no digest", config(lambda c: c["quantization_config"].pop("digest"))
    for field, value in [("hidden_size", 16), ("num_hidden_layers", 2), ("num_hidden_layers", 0), ("vocab_size", 12)]:
        yield f"{field} {value}", config(lambda c, f=field, v=value: c.update({f: v}))
    for field, value in [("intermediate_size", 10**9), ("hidden_size", 10**8), ("vocab_size", -1), ("vocab_size", "a")]:
        yield f"{field} {value}", config(lambda c, f=field, v=value: c.update({f: v}))
    yield "more labels", config(lambda c: c.update(id2label={"0": "a", "1": "b", "2": "c"}, label2id={}))
    for name in ("../model.safetensors", "/etc/passwd", "other.safetensors", "model.bin"):
        yield f"weights in {name}", config(lambda c, name=name: c.update(transformers_weights=name))


def disguises(saves: dict, trace: Path) -> Iterator[tuple[str, Break]]:
    content = pickle.dumps(Touch(trace))

    def lone(name: str) -> Break:
        def apply(folder: Path) -> None:
            (folder / "model.safetensors").unlink()
            (folder / name).write_bytes(content)

        return apply

    for name in ("model.safetensors", "pytorch_model.bin", "model.bin", "adapter_model.bin", "model.pt"):
        yield f"a pickle as {name}", lone(name)
    yield "a pickle as config.json", lambda folder: (folder / "config.json").write_bytes(content)
    length = len(content).to_bytes(8, "little")
    yield "a pickle as header", data(lambda _: length + content)
    index = json.dumps({"metadata": {}, "weight_map": {"classifier.bias": "../../evil.safetensors"}}).encode()
    yield (
        "an index",
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors"),
            (folder / "model.safetensors.index.json").write_bytes(index),
        ),
    )
    yield "a header of 2^60 bytes", data(lambda content: (2**60).to_bytes(8, "little") + content[8:])


# ------------------------------------------------------------------------------------------------------ the tests


def outcome(door: Callable, folder: Path) -> Exception | None:
    try:
        door(folder)
    except Exception as error:
        return error
    return None


ALLOWED = {  # what is wrong with a config.json alone, transformers may notice first and say in its own ways
    "load": (ValueError, FileNotFoundError),
    "from_pretrained": (ValueError, OSError, RuntimeError, TypeError, AttributeError, StrictDataclassError),
}


def check(saves: dict, cases: Iterator[tuple[str, Break]], folder: Path, least: int, doors=tuple(DOORS)) -> None:
    count, wrong = 0, []
    for name, apply in cases:
        for door in doors:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(saves["good"], folder)
            apply(folder)
            error = outcome(DOORS[door], folder)
            one_line = door != "load" or "\n" not in str(error)
            if not (isinstance(error, ALLOWED[door]) and one_line and 0 < len(str(error)) < 2000):
                wrong.append(f"{door}: {name}: {'loaded' if error is None else repr(error)[:200]}")
        count += 1
    assert not wrong, "\n".join(wrong)
    assert count >= least


def test_the_unbroken_one_loads(saves, tmp_path):
    shutil.copytree(saves["good"], tmp_path / "copy")
    for door in DOORS.values():
        assert torch.equal(door(tmp_path / "copy")(IDS).logits, saves["logits"])


def test_a_forged_one_in_which_nothing_is_wrong_loads(saves, forged, tmp_path):
    shutil.copytree(saves["good"], tmp_path / "copy")
    forge(tmp_path / "copy", *read_all(tmp_path / "copy"))
    for door in DOORS.values():
        assert torch.equal(door(tmp_path / "copy")(IDS).logits, saves["logits"])


def test_accidents(saves, tmp_path):
    check(saves, accidents(saves), tmp_path / "broken", least=100)


def test_forged_tensors(saves, forged, tmp_path):
    check(saves, forged_tensors(saves), tmp_path / "broken", least=60)


def test_forged_plans(saves, forged, tmp_path):
    check(saves, forged_plans(saves), tmp_path / "broken", least=60)


def test_forged_configs(saves, tmp_path):
    check(saves, forged_configs(saves), tmp_path / "broken", least=15)


def test_disguises_execute_nothing(saves, tmp_path):
    trace = tmp_path / "trace"
    check(saves, disguises(saves, trace), tmp_path / "broken", least=9)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists()  # the control: unpickled, it does


@pytest.mark.parametrize("name", ["os.system", "BertConfig", "torch.nn.Linear", "../x", "", 3, None, [], ["a", "b"]])
def test_a_class_is_found_by_name_among_known_ones_only(saves, tmp_path, name):
    shutil.copytree(saves["good"], tmp_path / "broken")
    config(lambda c: c.update(architectures=name if isinstance(name, list) else [name]))(tmp_path / "broken")
    assert "no model of transformers or ttqlib" in str(outcome(ttq.load, tmp_path / "broken"))


def test_errors_name_what_is_wrong(saves, forged, tmp_path):
    says = {
        "without": (tensors(lambda t: t.pop(f"{QUERY}.codes")), f"lacks '{QUERY}.codes'"),
        "extra": (tensors(lambda t: t.update({"a\nb": torch.zeros(1)})), r"holds 'a\nb'"),
        "NaN": (tensors(lambda t: t[f"{NORM}.scales"].fill_(torch.nan)), f"{NORM}.scales holds NaN"),
        "negative": (tensors(lambda t: t[f"{NORM}.scales"].neg_()), f"{NORM}.scales must not be negative"),
        "ternary": (tensors(lambda t: t[f"{KEY}.codes"].zero_()), "stands for no ternary weight"),
        "bits": (plan("layers", QUERY, "quantize", "bits", value=-3), "whole number from 2 to 8, got -3"),
        "layer": (plan("layers", "nowhere", value={}), "'nowhere', which is no layer"),
        "mixed": (lambda folder: shutil.copy(saves["seed"] / "config.json", folder), "not of one save"),
        "cut": (data(lambda content: content[:-1]), "is no whole safetensors file"),
    }
    for name, (apply, part) in says.items():
        for door in DOORS.values():
            shutil.rmtree(tmp_path / "broken", ignore_errors=True)
            shutil.copytree(saves["good"], tmp_path / "broken")
            apply(tmp_path / "broken")
            assert part in str(outcome(door, tmp_path / "broken")), name
