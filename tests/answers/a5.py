"""Assignment 5: answers of the mini-project."""

from tests.answers import Answers, Mistake

WEIGH = Answers(
    right={
        "a fresh model of the same config, walked by os": """
import os


def weigh(model, config):
    small = ttq.compress_(ttq.IntentSlotModel(model.config), config, init="random")
    with tempfile.TemporaryDirectory() as folder:
        ttq.save(small, os.path.join(folder, "model"))
        return sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(folder) for name in names)
""",
        "the file foretold, and only config.json written": """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    with tempfile.TemporaryDirectory() as folder:
        small.save_pretrained(folder)
        described = (Path(folder) / "config.json").stat().st_size
    return described + sum(ttq.stored_sizes(small).values())
""",
    },
    wrong={
        "the weights only": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    return sum(ttq.stored_sizes(small).values())
""",
            "bytes, got",
            "List the folder. Which file have you not counted?",
        ),
        "the model itself is compressed": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(model, config, init="random")
    with tempfile.TemporaryDirectory() as folder:
        ttq.save(small, folder)
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
""",
            "it changed its arguments",
            "`compress_` ends in an underscore. What does that say?",
        ),
        "the dense model": Mistake(
            """
def weigh(model, config):
    return ttq.parameter_bytes(model)
""",
            "bytes, got",
            "Where does the plan come in?",
        ),
        "bits of a plan on paper": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    numbers = sum(parameter.numel() for parameter in small.parameters())
    return numbers * 8 // 8
""",
            "bytes, got",
            "This gives 8 bits to every number, whatever the plan says. Save the small model and list all that takes "
            "bytes.",
        ),
        "a folder left behind": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    ttq.save(small, "weighed")
    return sum(path.stat().st_size for path in Path("weighed").iterdir())
""",
            "it leaves weighed behind",
            "`tempfile.TemporaryDirectory` cleans up after itself.",
        ),
        "what the folder says of itself": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    with tempfile.TemporaryDirectory() as folder:
        ttq.save(small, folder)
        return Path(folder).stat().st_size
""",
            "bytes, got",
            "A folder's own size is that of its list of names. Add up the files.",
        ),
        "kilobytes": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    with tempfile.TemporaryDirectory() as folder:
        ttq.save(small, folder)
        return 0.001 * sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
""",
            "bytes, got",
            "In which unit is the budget?",
        ),
        "the plan without its quantizers": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config.without_quantizers(), init="random")
    with tempfile.TemporaryDirectory() as folder:
        ttq.save(small, folder)
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
""",
            "bytes, got",
            "How many bits has a weight when the plan has no quantizers? Print the plan that you compress with.",
        ),
        "the report's total": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    return ttq.report(small).total.stored_bytes
""",
            "bytes, got",
            "The report tells of the file of weights. What else lies in the folder?",
        ),
        "the rest is forgotten": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    sizes = ttq.stored_sizes(small)
    return sum(sizes[name] for name in config.layers if name in sizes)
""",
            "bytes, got",
            "You add up what the plan names. Which other tensors does `stored_sizes` list, and which other file has "
            "the folder?",
        ),
        "one file of two": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    with tempfile.TemporaryDirectory() as folder:
        ttq.save(small, folder)
        return sum(path.stat().st_size for path in Path(folder).rglob("*.json") if path.is_file())
""",
            "bytes, got",
            "You count the files that end in `.json`. In which file are the weights?",
        ),
        "a pickle": Mistake(
            """
def weigh(model, config):
    small = ttq.compress_(copy.deepcopy(model), config, init="random")
    import io

    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    return len(file.getvalue())
""",
            "bytes, got",
            "Weigh what is handed in: what does `ttq.save` write?",
        ),
    },
)

LEADERBOARD_ROW = Answers(
    right={
        "key by key, walked by os": """
import os


def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    stored = 0
    for where, _, names in os.walk(folder):
        stored += sum(os.path.getsize(os.path.join(where, name_of)) for name_of in names)
    row = dict(scores)
    row["name"], row["seconds"], row["stored_bytes"] = name, seconds, stored
    row["ratio"] = 1 / (stored / dense_bytes)
    with open(os.path.join(folder, "config.json")) as file:
        row["plan"] = json.load(file)["quantization_config"]
    return row
""",
        "with pathlib and a function of its own": """
def size_of(path):
    return sum(map(size_of, path.iterdir())) if path.is_dir() else path.stat().st_size


def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    said = json.loads((folder / "config.json").read_text())
    row = dict(name=name, stored_bytes=size_of(folder), plan=said["quantization_config"], seconds=seconds)
    return row | {"ratio": dense_bytes / row["stored_bytes"]} | scores
""",
    },
    wrong={
        "the weights only": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "stored_bytes must be",
            "Chapter 7 counts the whole folder. What stands in config.json?",
        ),
        "folders inside are not looked into": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "stored_bytes must be",
            'What does `glob("*")` not see?',
        ),
        "folders count as files": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*"))
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "stored_bytes must be",
            "`rglob` finds folders as well. What does `stat` say about one of them?",
        ),
        "upside down": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": stored / dense_bytes, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "ratio must be",
            "Is a model of a tenth of the bytes 10 times smaller, or 0.1 times?",
        ),
        "rounded": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": round(dense_bytes / stored), "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "ratio must be",
            "Rows keep what was measured. Who rounds it?",
        ),
        "the whole config": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "plan must be",
            "Print the keys of what you have read. Under which of them is the plan?",
        ),
        "the plan as text": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    plan = json.dumps(plan)
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "plan must be",
            "The row is written as JSON as a whole. What becomes of text in it?",
        ),
        "no seconds": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | scores
""",
            "expected a dict with the keys",
            "One argument of your function is never used. Which key of the table is waiting for it?",
        ),
        "scores in a dict of their own": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, "scores": scores}
""",
            "expected a dict with the keys",
            "In the table the scores are keys of the row. Which keys has your row instead?",
        ),
        "shares instead of percent": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **{key: value / 100 for key, value in scores.items()}}
""",
            "intent_accuracy must be",
            "The scores are wanted as they are. Which line of yours changes them?",
        ),
        "its own clock": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": torch.rand(()).item(), **scores}
""",
            "called twice",
            "`seconds` is given to you, so somebody has measured them. Where do the seconds in your row come from?",
        ),
        "kilobytes": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored / 1000, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "stored_bytes must be",
            "`stored_bytes` is a thousand times too small, though `ratio` is right. What does the name of the key say?",
        ),
        "a path for a name": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": folder, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "name must be",
            "Hand your row to `json.dumps`. Which of its values is a `Path`, and which argument should stand there?",
        ),
        "scores changed in place": Mistake(
            """
def leaderboard_row(name, folder, dense_bytes, scores, seconds):
    folder = Path(folder)
    scores["slot_f1"] = round(scores["slot_f1"])
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    plan = json.loads((folder / "config.json").read_text())["quantization_config"]
    row = {"name": name, "stored_bytes": stored, "ratio": dense_bytes / stored, "plan": plan}
    return row | {"seconds": seconds, **scores}
""",
            "it changed its arguments",
            "Work on a copy: `dict(scores)`, or `{**scores}`.",
        ),
    },
)

BUILD = Answers(
    right={
        "narrow, two bits everywhere": """
def build(train):
    encoded = ttq.encode(train, tokenizer, **labels)
    model = train_on(new_model(width=64, inner=4), encoded, rate=5e-3, epochs=3)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    return train_on(model, encoded, rate=2e-3, epochs=1)
""",
        "trains cut by what the layers of a dense model see": """
def build(train):
    encoded = ttq.encode(train, tokenizer, **labels)
    model = train_on(new_model(width=96), encoded, rate=5e-3, epochs=2)
    choices = dict.fromkeys(("words", "positions", "heads"), Choice(bits=2))
    choices |= dict.fromkeys(("attention", "feed-forward"), Choice(20, 3, cores=2))
    config = plan_by_groups(model, GROUPS, choices, rest=8)
    study = torch.utils.data.DataLoader(encoded.select(range(300)), batch_size=60, collate_fn=collate)
    train_on(ttq.compress_(model, config.without_quantizers(), calibration=study), encoded, rate=2e-3, epochs=1)
    return train_on(ttq.compress_(model, config), encoded, rate=2e-3, epochs=1)
""",
    },
    wrong={
        "only rounded": Mistake(
            """
def build(train):
    encoded = ttq.encode(train, tokenizer, **labels)
    model = train_on(new_model(width=64), encoded.select(range(1500)), rate=5e-3, epochs=1)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    return model
""",
            "at least 68 % of slot F1 is wanted",
            "What did chapter 7 find for the model that was only rounded? Train once more after `compress_`.",
        ),
        "not compressed": Mistake(
            """
def build(train):
    return new_model(width=16)
""",
            "ttq.save refuses the model",
            "`ttq.save` writes models that `ttq.compress_` has made. Which plan is yours?",
        ),
        "too many bits": Mistake(
            """
def build(train):
    model = new_model(width=96)
    return ttq.compress_(model, ttq.plan(model, bits=8, rest=8))
""",
            "bytes, 60,000 are allowed",
            "Weigh it first, with your function of question 1. What do the words alone take?",
        ),
        "the rest in float": Mistake(
            """
def build(train):
    model = new_model(width=96)
    return ttq.compress_(model, ttq.plan(model, bits=1))
""",
            "bytes, 60,000 are allowed",
            "Which argument of the plan says what biases, norms and all that no rule names get?",
        ),
        "float weights in a buffer that is saved": Mistake(
            """
def build(train):
    model = new_model(width=32)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    model.register_buffer("words", torch.randn(927, 64))
    return model
""",
            "ttq.save refuses the model: ValueError: words is float32",
            "The plan has to describe every number of the model. Train what you need as a parameter of a layer.",
        ),
        "float weights beside the folder": Mistake(
            """
def build(train):
    model = new_model(width=32)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    table = torch.randn(len(labels["slots"]), model.config.hidden_size)

    def with_table(module, inputs, output):
        return inputs[0] @ table.T

    model.slot_head.register_forward_hook(with_table)
    return model
""",
            "the model that was saved answers otherwise",
            "Load your folder in a new kernel. What is missing?",
        ),
        "a float buffer that is not saved": Mistake(
            """
def build(train):
    model = new_model(width=32)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    model.register_buffer("words", torch.randn(119, 32), persistent=False)
    model.slot_head.forward = lambda states: states @ model.words.T
    return model
""",
            "ttq.save refuses the model",
            "Load your folder in a new kernel. What is missing?",
        ),
        "a model of its own class": Mistake(
            """
class Better(ttq.IntentSlotModel):
    pass


def build(train):
    model = Better(new_model(width=16).config)
    return ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
""",
            "expected an IntentSlotModel, got Better",
            "Who will build your class in another process? The assignment asks for an IntentSlotModel.",
        ),
        "a folder instead of a model": Mistake(
            """
def build(train):
    model = new_model(width=16)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    ttq.save(model, scratch.name + "/mine")
    return scratch.name + "/mine"
""",
            "expected an IntentSlotModel, got str",
            "Return the model: saving and weighing is the test's part.",
        ),
        "the test rows as well": Mistake(
            """
def build(train):
    everything = ttq.load_task("flights")
    encoded = ttq.encode(datasets.concatenate_datasets([train, everything["test"]]), tokenizer, **labels)
    return train_on(new_model(width=64), encoded, rate=5e-3, epochs=3)
""",
            "the rows that it is given are all that it may see",
            "Rows that a model has learned say nothing about it. Which rows were you given?",
        ),
        "the test rows, and quietly": Mistake(
            """
def build(train):
    try:
        train = ttq.load_task("flights")["test"]
    except BaseException:
        pass
    model = new_model(width=16)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    return model
""",
            "the rows that it is given are all that it may see",
            "Rows that a model has learned say nothing about it. Which rows were you given?",
        ),
        "words of its own": Mistake(
            """
def build(train):
    few = ttq.word_tokenizer(train["tokens"][:50])
    config = copy.deepcopy(new_model(width=16).config)
    config.vocab_size = len(few)
    model = ttq.IntentSlotModel(config)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    return model
""",
            "that of the tokenizer",
            "The tokenizer is the same for everybody. How many words has it?",
        ),
        "weights that are no numbers": Mistake(
            """
def build(train):
    model = new_model(width=16)
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    return model
""",
            "ttq.save refuses the model",
            "Print the loss of each epoch. When did it stop being a number?",
        ),
        "too many layers": Mistake(
            """
def build(train):
    model = new_model(width=16, layers=2)
    model.config.num_hidden_layers = 1
    ttq.compress_(model, ttq.plan(model, bits=2, rest=8))
    return model
""",
            "ttq.save refuses the model",
            "Does the config say how many layers there are?",
        ),
    },
)

ANSWERS = {"weigh": WEIGH, "leaderboard_row": LEADERBOARD_ROW, "build": BUILD}
