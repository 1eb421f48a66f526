"""The steps that a family is taken through, each a function that raises where something is wrong, and their outcomes.

A step tells `Trial.watch` which model it is about to hand to the library. Where the library then refuses, that model
must be as it was.
"""

import copy
import gc
import itertools
import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from transformers import PreTrainedModel, TrainingArguments
from transformers.pytorch_utils import Conv1D

import ttqlib as ttq
from tests.families import FAMILIES, Family
from ttqlib.inventory.kinds import linear_sizes
from ttqlib.layers.base import TTLayer
from ttqlib.surgery.sharing import shared_cores
from ttqlib.training.observation import observe, recorded_attention

LIBRARY = Path(ttq.__file__).parent
PLAN = {"rank": 4, "bits": 4, "rest": 8}  # the one line
FULL = 10**6  # a rank above every bond
CLOSE = 2e-4  # of the largest number: what two ways to compute the same may differ by in float32


class NotForThisFamily(Exception):
    """The step asks for what the family has not, such as `generate`."""


@dataclass
class Trial:
    """What one step is tried with."""

    family: Family
    folder: Path
    watched: dict[nn.Module, Callable[[], bool]] = field(default_factory=dict)  # whether a model is as it was

    def dense(self) -> PreTrainedModel:
        return copy.deepcopy(_dense(self.family.name))

    def compressed(self) -> PreTrainedModel:
        try:
            return copy.deepcopy(_compressed(self.family.name))
        except Exception as error:
            raise RuntimeError(f"compress_ fails: {_line(error)}") from None

    def inputs(self) -> dict[str, Tensor]:
        return self.family.inputs()

    def watch(self, model: PreTrainedModel) -> PreTrainedModel:
        """Remember the model as it is now, and what lies in the folder."""
        before, files = _state(model, self.inputs()), sorted(self.folder.rglob("*"))
        self.watched[model] = lambda: (
            _same(before, _state(model, self.inputs())) and files == sorted(self.folder.rglob("*"))
        )
        return model


@lru_cache(maxsize=2)
def _dense(name: str) -> PreTrainedModel:
    model = FAMILIES[name].build()
    gc.freeze()  # a Trainer looks for garbage several times, and transformers' modules are much to look through
    return model


@lru_cache(maxsize=2)
def _compressed(name: str) -> PreTrainedModel:
    model = copy.deepcopy(_dense(name))
    return ttq.compress_(model, ttq.plan(model, **PLAN))


# ------------------------------------------------------------------------------------------------- what comes of a step


def outcome(family: Family, step: str, folder: Path) -> str:
    """ "works", "does not apply", "refuses: …" with the library's line, or "fails: …"."""
    trial = Trial(family, folder)
    try:
        STEPS[step](trial)
    except NotForThisFamily:
        return "does not apply"
    except (ValueError, TypeError) as error:
        if problem := _not_a_refusal(error, trial):
            return f"fails: {problem}: {_line(error)}"
        return f"refuses: {error}"
    except Exception as error:
        return str(error) if str(error).startswith("compress_ fails") else f"fails: {_line(error)}"
    return "works"


def expected(family: Family, step: str) -> str:
    """What `outcome` must give, by the table of families; of a refusal some words of its line."""
    if step in family.refused:
        return f"refuses: {family.refused[step]}"
    return "works" if step != "generate" or family.generates else "does not apply"


def fits(found: str, wanted: str) -> bool:
    """Whether an outcome is the one that is expected."""
    refusal = "refuses: "
    if wanted.startswith(refusal):
        return found.startswith(refusal) and wanted.removeprefix(refusal) in found
    return found == wanted


def _not_a_refusal(error: Exception, trial: Trial) -> str | None:
    """Why an error is no clear refusal: it must be one line of ours, and nothing may have changed."""
    if LIBRARY not in Path(_frame(error).filename).parents:
        return "not an error of ours"
    if "\n" in str(error):
        return "more than one line"
    if not trial.watched:
        return "nothing was watched"
    if not all(unchanged() for unchanged in trial.watched.values()):
        return "refused, but not before something changed"
    return None


def _frame(error: Exception) -> traceback.FrameSummary:
    return traceback.extract_tb(error.__traceback__)[-1]


def _line(error: Exception) -> str:
    frame, text = _frame(error), str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]} [{Path(frame.filename).name}:{frame.lineno}]"


def _state(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, object]:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state |= {f"answer {name}": tensor for name, tensor in answers(model, inputs).items() if not tensor.is_meta}
    kinds = {f"kind of {name}": (type(module), module.training) for name, module in model.named_modules()}
    return {**state, **kinds, "config": model.config.to_dict(), "attention": model.config._attn_implementation}


def _same(before: Mapping, after: Mapping) -> bool:
    def equal(one, other) -> bool:
        return torch.equal(one, other) if isinstance(one, Tensor) else one == other

    return before.keys() == after.keys() and all(equal(before[name], after[name]) for name in before)


# ---------------------------------------------------------------------------------------------------------- the steps


def plan(trial: Trial) -> None:
    """The one line plans layers and words, no untied head, and says of every layer what it gets or that it is left."""
    model = trial.watch(trial.dense())
    config = ttq.plan(model, **PLAN)
    formats = [layer.format for layer in config.layers.values()]
    assert sum(isinstance(form, ttq.TT) for form in formats) >= 2, f"only {len(formats)} layers are planned"
    modules = dict(model.named_modules())
    assert config.layers.keys() <= modules.keys()
    head = model.get_output_embeddings()
    alone = head is not None and head.weight is not getattr(words_of(model), "weight", None)
    assert not (alone and head in [modules[name] for name in config.layers]), "an untied head is in the plan"
    told = {id(weight) for name in (*config.layers, *config.unmatched) for weight in modules[name].parameters(False)}
    untold = [name for name, module in modules.items() if not told.issuperset(map(id, _matrices(module)))]
    assert not untold, f"neither planned nor listed: {', '.join(untold[:3])}"
    assert ttq.TTQConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def compress(trial: Trial) -> None:
    """compress_ in full rank, in float: the model answers as before."""
    model = trial.watch(trial.dense())
    expected = answers(model, trial.inputs())
    config = ttq.plan(model, rank=PLAN["rank"])
    full = ttq.TTQConfig({name: type(layer.format)(FULL) for name, layer in config.layers.items()})
    assert ttq.compress_(model, full) is model
    assert_close(answers(model, trial.inputs()), expected)
    assert sum(isinstance(module, TTLayer) for module in model.modules()) >= len(full.layers)


def forward(trial: Trial) -> None:
    """The compressed model answers in the same shapes, with other numbers; every core has few values."""
    trial.watch(trial.dense())
    model = trial.compressed()
    before, after = answers(trial.dense(), trial.inputs()), answers(model, trial.inputs())
    assert before.keys() == after.keys()
    assert all(values.shape == after[name].shape for name, values in before.items())
    assert all(values.isfinite().all() for values in after.values())
    assert any(not torch.allclose(values, after[name], atol=1e-3) for name, values in before.items())
    for layer in model.modules():
        if isinstance(layer, TTLayer):
            assert all(core.unique().numel() <= 2 ** PLAN["bits"] for core in layer.cores)
    assert_tied(model, trial.dense())


def training(trial: Trial) -> None:
    """QAT: the loss falls, every core and latent weight that a step reaches has a gradient, ties stay."""
    model = trial.watch(trial.compressed())
    reached = _reached(trial.dense(), trial.inputs()) | model.ttq_config.layers.keys()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(model, trial.inputs())
        losses.append(loss.item())
        loss.backward()
        missing = [name for name, p in model.named_parameters() if _layer_of(name) in reached and p.grad is None]
        assert not missing, f"no gradient at {', '.join(missing[:3])}"
        optimizer.step()
    assert min(losses) < losses[0], f"the loss does not fall: {losses}"
    assert_tied(model, trial.dense())


def report(trial: Trial) -> None:
    """report: the bytes of the file, to the byte."""
    model = trial.watch(trial.compressed())
    total = ttq.report(model).total
    model.save_pretrained(trial.folder)
    size = (trial.folder / "model.safetensors").stat().st_size
    assert total.stored_bytes == size, f"{total.stored_bytes} reported, {size} on disk"
    dense = 4 * sum(parameter.numel() for parameter in trial.dense().parameters())
    assert total.dense_bytes == dense, f"{total.dense_bytes} dense bytes reported, {dense} are right"


def save(trial: Trial) -> None:
    """ttq.save and save_pretrained write the same files."""
    model = trial.watch(trial.compressed())
    before = answers(model, trial.inputs())
    ttq.save(model, trial.folder / "saved")
    model.save_pretrained(trial.folder / "pretrained")
    weights = [(trial.folder / name / "model.safetensors").read_bytes() for name in ("saved", "pretrained")]
    assert weights[0] == weights[1], "ttq.save and save_pretrained wrote different weights"
    assert_equal(answers(model, trial.inputs()), before)


def load(trial: Trial) -> None:
    """from_pretrained gives a model with the same answers, to the bit, and so does ttq.load with packed=True."""
    model = trial.watch(trial.compressed())
    model.save_pretrained(trial.folder)
    loaded = type(model).from_pretrained(trial.folder)  # as README says, also where a tensor of its own is quantized
    assert not loaded.training
    assert_equal(answers(loaded, trial.inputs()), answers(model, trial.inputs()))
    assert_tied(loaded, trial.dense())
    assert_equal(answers(ttq.load(trial.folder, packed=True), trial.inputs()), answers(model, trial.inputs()))


def generate(trial: Trial) -> None:
    """generate: the same tokens before and after loading, with pad = eos, which users of causal models set."""
    model = trial.watch(trial.compressed())
    if not model.can_generate():
        raise NotForThisFamily
    pad = model.config.pad_token_id = model.generation_config.pad_token_id = model.config.eos_token_id
    model.save_pretrained(trial.folder)
    loaded = type_of(model).from_pretrained(trial.folder)
    assert loaded.config.pad_token_id == pad
    assert torch.equal(_generated(loaded, trial.inputs()), _generated(model, trial.inputs())), "other tokens"


def fuse(trial: Trial) -> None:
    """fuse_: plain PyTorch that answers the same."""
    model = trial.watch(trial.compressed())
    expected = answers(model, trial.inputs())
    ttq.fuse_(model)
    assert_close(answers(model, trial.inputs()), expected)
    ours = [name for name, part in model.named_modules() if isinstance(part, TTLayer | ParametrizationList)]
    own = [name for name in ours if not name.endswith("parametrizations.weight")]  # not a weight norm of the model's
    assert not [name for name, part in model.named_modules() if isinstance(part, TTLayer)], f"{own[0]} is left"


def share(trial: Trial) -> None:
    """Shared: layers of one shape share a side or both. Counted and stored once, trained, loaded and fused."""
    model = trial.watch(trial.dense())
    config = _sharing(model)
    ttq.compress_(model, config)
    groups = [layer.format.group for layer in config.layers.values()]
    ties = {group: groups.count(group) for group in groups}
    found = shared_cores(model)
    assert found and sum(map(len, found)) == sum(
        len(layer.format.cores) for layer in config.layers.values() if ties[layer.format.group] > 1
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    before = loss_of(model, trial.inputs())
    before.backward()
    optimizer.step()
    assert loss_of(model, trial.inputs()) != before
    assert shared_cores(model) == found
    trial.watch(model).save_pretrained(trial.folder)
    assert ttq.report(model).total.stored_bytes == (trial.folder / "model.safetensors").stat().st_size
    loaded = type_of(model).from_pretrained(trial.folder)
    assert shared_cores(loaded) == found, "other layers share after loading"
    expected = answers(model, trial.inputs())
    assert_equal(answers(loaded, trial.inputs()), expected)
    assert_close(answers(ttq.fuse_(loaded), trial.inputs()), expected)


def _sharing(model: PreTrainedModel) -> ttq.TTQConfig:
    """A plan in which layers of one shape share, the first shape an input side, the next an output side, and so on."""
    modules, shapes, layers = dict(model.named_modules()), {}, {}
    for name, layer in ttq.plan(model, **PLAN).layers.items():
        if isinstance(layer.format, ttq.TT):
            shapes.setdefault(linear_sizes(modules[name]), []).append(name)
    for (shape, names), side in zip(shapes.items(), itertools.cycle(("input", "output", "both"))):
        layers |= dict.fromkeys(names, ttq.LayerPlan(ttq.Shared(PLAN["rank"], side, f"{shape}"), ttq.LSQ(PLAN["bits"])))
    return ttq.TTQConfig(layers, PLAN["rest"])


def calibrate(trial: Trial) -> None:
    """Calibration: on its batch the layers' outputs lose less than without."""
    model = trial.watch(trial.dense())
    config = ttq.plan(model, rank=PLAN["rank"])
    batch = trial.inputs()
    plain, calibrated = trial.dense(), trial.dense()
    ttq.compress_(plain, config)
    ttq.compress_(calibrated, config, calibration=[batch])
    lost, kept = (_output_error(model, other, config, batch) for other in (plain, calibrated))
    assert kept < lost, f"the outputs of the layers lose {kept:.3g} with calibration, {lost:.3g} without"


def allocation(trial: Trial) -> None:
    """allocate: a plan for a budget between the smallest and the dense model; compress_ takes it, and it trains."""
    model = trial.watch(trial.dense())
    before = _state(model, trial.inputs())
    found = ttq.measure_candidates(model, trial.inputs(), kinds=("dense", "low rank"), bits=(4,), ranks=(1, 4))
    assert _same(before, _state(model, trial.inputs())), "measuring has changed the model"
    least, most = found.range
    budget = int((least * most) ** 0.5)
    config = ttq.allocate(model, budget, candidates=found)
    assert ttq.TTQConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    ttq.compress_(model, config, calibration=[trial.inputs()])
    ttq.save(model, trial.folder)
    size = sum(path.stat().st_size for path in trial.folder.iterdir())
    assert size == found.weigh(config) <= budget, f"{size} on disk, {found.weigh(config)} weighed, of {budget}"
    loss_of(model, trial.inputs()).backward()


def distil_layers(trial: Trial) -> None:
    """DistillTrainer: one step on all layers, hidden states and attention; the maps are those the model computes."""
    _distil(trial, ttq.AllLayers(1, task=0))
    model, inputs = trial.dense(), trial.inputs()
    with torch.no_grad(), recorded_attention(model):
        seen = observe(model, inputs)
        model.set_attn_implementation("eager")  # the only one that gives its maps
        own = model(**inputs, output_attentions=True).attentions
    for attention, maps in zip(seen.attentions, own, strict=True):
        rows = seen.mask[:, None, :, None].expand_as(maps)  # what padding looks at nobody reads
        found = attention.scores().softmax(-1)
        error = float((found - maps)[rows].abs().max())
        assert error < CLOSE, f"maps of attention are not the model's, by {error:.1e}"


def distil_logits(trial: Trial) -> None:
    """DistillTrainer: one step on the teacher's logits."""
    _distil(trial, ttq.LogitsOnly(1))


def bfloat16(trial: Trial) -> None:
    """A model in bfloat16: planned, compressed, saved, and read by ttq.load to the bit."""
    trial.dense().save_pretrained(trial.folder)
    model = type_of(trial.dense()).from_pretrained(trial.folder, dtype=torch.bfloat16)
    for parameter in model.parameters():  # transformers leaves some of XLNet's in float32, with which it cannot run
        parameter.data = parameter.data.to(torch.bfloat16)
    ttq.compress_(trial.watch(model), ttq.plan(model, **PLAN))
    expected = answers(model, trial.inputs())
    assert all(values.isfinite().all() for values in expected.values())
    trial.watch(model).save_pretrained(trial.folder)
    loaded = ttq.load(trial.folder)
    assert loaded.dtype == torch.bfloat16, f"loaded in {loaded.dtype}"
    assert_equal(answers(loaded, trial.inputs()), expected)


def meta(trial: Trial) -> None:
    """On the meta device: the same plan, and the report of the real model."""
    trial.watch(trial.dense())
    with torch.device("meta"):
        model = type_of(trial.dense())(trial.family.config())
    model.to("meta")  # where XLNet's parameters are not by themselves
    config = ttq.plan(model, **PLAN)
    assert config == ttq.plan(trial.dense(), **PLAN), "another plan than that of the real model"
    ttq.compress_(model, config)
    found, expected = (ttq.report(one).total for one in (model, trial.compressed()))
    assert found == expected, f"reported {found}, of the real model {expected}"


def export(trial: Trial) -> None:
    """export_onnx, which itself compares the graph's answers with the model's."""
    model = trial.watch(trial.compressed())
    ttq.export_onnx(model, trial.folder / "deployed", max_length=16)
    assert (trial.folder / "deployed" / "model.onnx").is_file()


STEPS = {
    "plan": plan,
    "compress_": compress,
    "forward": forward,
    "QAT": training,
    "report": report,
    "save": save,
    "load": load,
    "generate": generate,
    "fuse_": fuse,
    "Shared": share,
    "calibration": calibrate,
    "allocate": allocation,
    "distil layers": distil_layers,
    "distil logits": distil_logits,
    "bfloat16": bfloat16,
    "meta": meta,
    "export_onnx": export,
}


# ---------------------------------------------------------------------------------------------- what the steps share


def type_of(model: PreTrainedModel) -> type[PreTrainedModel]:
    """The class that the model is of, also where one of its own tensors is under a quantizer."""
    return type(model).__mro__[1] if is_parametrized(model) else type(model)


def answers(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of floating-point numbers that the model gives."""
    with torch.no_grad():
        output = model(**_cast(inputs, model.dtype))
    return {name: value for name, value in output.items() if isinstance(value, Tensor) and value.is_floating_point()}


def _cast(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Pictures and sounds in the dtype of the model; ids stay ids."""
    floats = {name for name, value in inputs.items() if isinstance(value, Tensor) and value.is_floating_point()}
    return {name: value.to(dtype) if name in floats else value for name, value in inputs.items()}


def loss_of(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(**inputs).loss


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        error = float((found[name] - values).abs().max() / values.abs().max())
        assert error < CLOSE, f"{name} differs by {error:.1e}"


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        difference = float((found[name] - values).abs().max())
        assert torch.equal(found[name], values), (
            f"{name} differs by {difference:.1e}, of {float(values.abs().max()):.1e}"
        )


def _matrices(module: nn.Module) -> list[Tensor]:
    """The weight of a linear layer or a table, and those of the experts of a mixture."""
    if type(module).forward in (nn.Linear.forward, Conv1D.forward, nn.Embedding.forward):
        return [module.weight]
    experts = "Experts" in type(module).__name__
    return [weight for weight in module.parameters(recurse=False) if experts and weight.ndim == 3]


def words_of(model: PreTrainedModel) -> nn.Module | None:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:  # what hears or sees has none
        return None


def assert_tied(model: PreTrainedModel, dense: PreTrainedModel) -> None:
    """Where the dense model reads and writes words with one table, so must this one: its head is its look-up table."""
    head, table = dense.get_output_embeddings(), words_of(dense)
    if head is None or table is None or getattr(head, "weight", None) is not table.weight:
        return
    head, table = model.get_output_embeddings(), words_of(model)
    vectors = torch.randn(5, dense.get_output_embeddings().weight.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = table(torch.arange(dense.get_input_embeddings().weight.shape[0]))
        scores, expected = head(vectors) - head(torch.zeros_like(vectors)), vectors @ rows.T  # without the bias
        factor = (scores * expected).sum() / expected.square().sum()  # of a scaled embedding
        error = float((scores - factor * expected).norm() / scores.norm())
    assert error < 1e-3, f"the head is no longer the table of words: {error:.1e}"


def _layer_of(name: str) -> str:
    """The layer that a parameter belongs to, be it under a quantizer."""
    return name.split(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def _reached(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> set[str]:
    """The linear layers and embeddings of the dense model to which its own loss gives a gradient."""
    loss_of(model, inputs).backward()
    kinds = nn.Linear | Conv1D | nn.Embedding
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, kinds)}
    return {name for name, module in layers.items() if module.weight.grad is not None}


def _generated(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    given = {name: value for name, value in inputs.items() if name != "labels"}
    return model.generate(**given, max_new_tokens=6, min_new_tokens=6, do_sample=False)


def _output_error(model: PreTrainedModel, other: PreTrainedModel, config: ttq.TTQConfig, batch: Mapping) -> float:
    """How much the planned linear layers of `other` lose of what those of `model` give, for the inputs of `model`."""
    lost = []

    def compare(name: str, inputs: tuple[Tensor], output: Tensor) -> None:
        lost.append(float((other.get_submodule(name)(inputs[0]) - output).square().sum()))

    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: compare(name, x, y))
        for name, layer in config.layers.items()
        if isinstance(layer.format, ttq.TT)
    ]
    answers(model, batch)
    for hook in hooks:
        hook.remove()
    return sum(lost)


def _distil(trial: Trial, stages) -> None:
    student, teacher = trial.watch(trial.compressed()), trial.watch(trial.dense())
    inputs = {name: value for name, value in trial.inputs().items() if isinstance(value, Tensor)}
    if hasattr(teacher, "prepare_decoder_input_ids_from_labels"):  # as DataCollatorForSeq2Seq gives them
        inputs["decoder_input_ids"] = teacher.prepare_decoder_input_ids_from_labels(labels=inputs["labels"])
    rows = [{name: values[row] for name, values in inputs.items()} for row in range(2)]
    args = TrainingArguments(
        str(trial.folder), per_device_train_batch_size=2, learning_rate=1e-3, save_strategy="no", report_to=[],
        logging_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    before, expected = answers(student, trial.inputs()), answers(teacher, trial.inputs())
    with redirect_stdout(None):  # where the Trainer prints its speed
        ttq.DistillTrainer(model=student, args=args, teacher=teacher, stages=stages, train_dataset=rows).train()
    assert_equal(answers(teacher, trial.inputs()), expected)
    after = answers(student.eval(), trial.inputs())
    assert any(not torch.equal(values, after[name]) for name, values in before.items()), "nothing was trained"
