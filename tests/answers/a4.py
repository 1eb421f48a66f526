"""Assignment 4: answers about a student of fewer layers."""

from tests.answers import Answers, Mistake

LAYER_MAP = Answers(
    right={
        "one place after the other": """
def layer_map(places, height):
    layers, last = {0: 0}, -1
    for layer, place in enumerate(places):
        if not last < place < height:
            raise ValueError(f"place {place} is not between {last} and {height}")
        layers[layer + 1], last = place + 1, place
    if last < 0:
        raise ValueError("no places")
    return layers
""",
        "zip of two ranges": """
def layer_map(places, height):
    ok = len(places) > 0 and all(p in range(height) for p in places)
    if not ok or any(a >= b for a, b in zip(places, places[1:])):
        raise ValueError("places must rise, from 0 to height - 1")
    return dict(zip(range(len(places) + 1), [0, *(place + 1 for place in places)]))
""",
    },
    wrong={
        "the map of the library": Mistake(
            """
def layer_map(places, height):
    if not places or places[-1] >= height:
        raise ValueError("bad places")
    return ttq.layer_map(places)
""",
            "write it yourself: layer_map was called",
            "The library has this function. What would you write if it had not? It is one line.",
        ),
        "places taken for hidden states": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return {0: 0} | {layer: place for layer, place in enumerate(places, 1)}
""",
            "expected {0: 0, 1: 2, 2: 4}, got {0: 0, 1: 1, 2: 3}",
            "How many hidden states has a model of four layers? What is the first of them?",
        ),
        "no embeddings": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "expected {0: 0, 1: 2, 2: 4}, got {1: 2, 2: 4}",
            "What comes before the first layer, and has a hidden state too?",
        ),
        "the student counted from 0": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return {layer: place + 1 for layer, place in enumerate(places)}
""",
            "expected {0: 0, 1: 2, 2: 4}, got {0: 2, 1: 4}",
            "Which hidden state of the student is number 0?",
        ),
        "the even map of chapter 8": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    n = len(places)
    return {layer: round(layer * height / n) for layer in range(n + 1)}
""",
            "layers expected {0: 0, 1: ",
            "Try places [0, 3]. A map follows from what was copied, not from counts.",
        ),
        "from the teacher to the student": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return {0: 0} | {place + 1: layer for layer, place in enumerate(places, 1)}
""",
            "got {0: 0, 2: 1, 4: 2}",
            "The training asks for a layer of the student: by which key does it look?",
        ),
        "a list": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return [0, *(place + 1 for place in places)]
""",
            "got [0, 2, 4]",
            "The teacher's numbers are right. A map holds pairs: to which number of the student does each of them "
            "belong?",
        ),
        "nothing is refused": Mistake(
            """
def layer_map(places, height):
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "expected a ValueError, for layers must keep their order",
            "What would your map mean for places [3, 1]? Would anybody notice?",
        ),
        "sorted without a word": Mistake(
            """
def layer_map(places, height):
    places = sorted(places)
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "expected a ValueError, for layers must keep their order",
            "Whoever typed [3, 1] meant something. Do not guess what: refuse.",
        ),
        "an assertion": Mistake(
            """
def layer_map(places, height):
    assert places and places[0] >= 0 and places[-1] < height
    assert all(a < b for a, b in zip(places, places[1:]))
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "expected a ValueError, got AssertionError",
            "`python -O` leaves assertions out. Bad input deserves a ValueError that says what is wrong with it.",
        ),
        "a place may come twice": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(places) or places[0] < 0 or places[-1] >= height:
        raise ValueError
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "no layer can be copied twice",
            "Try places [1, 1]. Is this list sorted, and do its places rise?",
        ),
        "places counted from the end": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[-1] >= height:
        raise ValueError
    return {0: 0} | {layer: place % height + 1 for layer, place in enumerate(places, 1)}
""",
            "places are counted from 0",
            "What does `layers[-1]` give, and would you notice?",
        ),
        "one place too many": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] > height:
        raise ValueError("bad places")
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "layers stands at place",
            "At which place stands the last of four layers?",
        ),
        "a student without layers": Mistake(
            """
def layer_map(places, height):
    if list(places) != sorted(set(places)) or any(not 0 <= place < height for place in places):
        raise ValueError
    return {0: 0} | {layer: place + 1 for layer, place in enumerate(places, 1)}
""",
            "a student needs a layer",
            "Try an empty list of places. Which of your conditions finds fault with it?",
        ),
        "a map that remembers": Mistake(
            """
def layer_map(places, height, layers={0: 0}):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    layers |= {layer: place + 1 for layer, place in enumerate(places, 1)}
    return layers
""",
            "layers expected {0: 0",
            "When is the default value of an argument made: at each call, or once?",
        ),
        "floats": Mistake(
            """
def layer_map(places, height):
    if not places or list(places) != sorted(set(places)) or places[0] < 0 or places[-1] >= height:
        raise ValueError("bad places")
    return {0: 0} | {layer: float(place + 1) for layer, place in enumerate(places, 1)}
""",
            "got {0: 0, 1: 2.0",
            "Use your map to look something up in a tuple of hidden states. Can it be asked for number 2.0?",
        ),
    },
)

SHORTER = Answers(
    right={
        "a new model that loads renamed weights": """
def shorter(teacher, places):
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(places)
    student = type(teacher)(config).to(teacher.dtype)
    student.load_state_dict(teacher.state_dict(), strict=False)
    for layer, place in zip(student.bert.encoder.layer, places):
        layer.load_state_dict(teacher.bert.encoder.layer[place].state_dict())
    return student
""",
        "layers taken out of a copy, from the top": """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    for place in reversed(range(teacher.config.num_hidden_layers)):
        if place not in places:
            del student.bert.encoder.layer[place]
    student.config.num_hidden_layers = len(student.bert.encoder.layer)
    return student
""",
    },
    wrong={
        "the model of the library": Mistake(
            """
def shorter(teacher, places):
    return ttq.reduce_layers(teacher, places)
""",
            "write it yourself: reduce_layers was called",
            "The library can do this. Here you are to learn what it has to copy: begin with the config.",
        ),
        "the teacher is cut": Mistake(
            """
def shorter(teacher, places):
    student = teacher
    student.bert.encoder.layer = nn.ModuleList([teacher.bert.encoder.layer[p] for p in places])
    student.config.num_hidden_layers = len(places)
    return student
""",
            "the teacher must stay as it was",
            "Two names, one model. What else calls the list that you changed its own?",
        ),
        "a shallow copy": Mistake(
            """
def shorter(teacher, places):
    student = copy.copy(teacher)
    student.config = copy.copy(teacher.config)
    student.bert.encoder.layer = nn.ModuleList([copy.deepcopy(teacher.bert.encoder.layer[p]) for p in places])
    student.config.num_hidden_layers = len(places)
    return student
""",
            "the teacher must stay as it was",
            "`copy.copy` makes a new outside with the old inside. Which `bert` has your student?",
        ),
        "the config is forgotten": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = nn.ModuleList([student.bert.encoder.layer[p] for p in places])
    return student
""",
            "student.config still says 3 layers",
            "What does `from_pretrained` build before it has any weights?",
        ),
        "one config for both": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.config = teacher.config
    student.bert.encoder.layer = nn.ModuleList([student.bert.encoder.layer[p] for p in places])
    student.config.num_hidden_layers = len(places)
    return student
""",
            "the teacher must stay as it was",
            "Print `teacher.config.num_hidden_layers` after your function.",
        ),
        "the first layers": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = student.bert.encoder.layer[: len(places)]
    student.config.num_hidden_layers = len(places)
    return student
""",
            "is not what the teacher has in its place",
            "Which layers are these, and which were asked for?",
        ),
        "layers that both have": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = nn.ModuleList([teacher.bert.encoder.layer[p] for p in places])
    student.config.num_hidden_layers = len(places)
    return student
""",
            "student and teacher share parameters",
            "Train the student one step. Does the teacher answer as before?",
        ),
        "embeddings that both have": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = nn.ModuleList([student.bert.encoder.layer[p] for p in places])
    student.bert.embeddings = teacher.bert.embeddings
    student.config.num_hidden_layers = len(places)
    return student
""",
            "student and teacher share parameters",
            "Train the student one step. Does the teacher answer as before?",
        ),
        "only the layers are copied": Mistake(
            """
def shorter(teacher, places):
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(places)
    student = type(teacher)(config).to(teacher.dtype)
    for layer, place in zip(student.bert.encoder.layer, places):
        layer.load_state_dict(teacher.bert.encoder.layer[place].state_dict())
    return student
""",
            "embeddings.weight is not what the teacher has",
            "What did the layers learn to read? Compare the embeddings of both models.",
        ),
        "a new head": Mistake(
            """
def shorter(teacher, places):
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(places)
    student = type(teacher)(config).to(teacher.dtype)
    student.bert.load_state_dict(teacher.bert.state_dict(), strict=False)
    for layer, place in zip(student.bert.encoder.layer, places):
        layer.load_state_dict(teacher.bert.encoder.layer[place].state_dict())
    return student
""",
            "classifier.weight is not what the teacher has",
            "The teacher's head knows what its last hidden states mean. What does yours know?",
        ),
        "always float32": Mistake(
            """
def shorter(teacher, places):
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(places)
    student = type(teacher)(config)
    student.load_state_dict(teacher.state_dict(), strict=False)
    for layer, place in zip(student.bert.encoder.layer, places):
        layer.load_state_dict(teacher.bert.encoder.layer[place].state_dict())
    return student
""",
            "is not what the teacher has in its place",
            "In which dtype does a new model come, and in which was the teacher?",
        ),
        "places counted from 1": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = nn.ModuleList([student.bert.encoder.layer[p - 1] for p in places])
    student.config.num_hidden_layers = len(places)
    return student
""",
            "is not what the teacher has in its place",
            "Places are those of the list. Which is its first?",
        ),
        "a list of layers": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = [student.bert.encoder.layer[p] for p in places]
    student.config.num_hidden_layers = len(places)
    return student
""",
            "raised TypeError",
            "PyTorch finds parameters in modules only. Which kind of list is a module?",
        ),
        "without its head": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher).bert
    student.encoder.layer = nn.ModuleList([student.encoder.layer[p] for p in places])
    student.config.num_hidden_layers = len(places)
    return student
""",
            "expected a BertForSequenceClassification, got BertModel",
            "Print the classes of teacher and student. What has the teacher above its `bert`?",
        ),
        "weights of another layer's attention": Mistake(
            """
def shorter(teacher, places):
    student = copy.deepcopy(teacher)
    layers = student.bert.encoder.layer
    student.bert.encoder.layer = nn.ModuleList([layers[p] for p in places])
    layers[places[0]].attention = copy.deepcopy(layers[1].attention)
    student.config.num_hidden_layers = len(places)
    return student
""",
            "is not what the teacher has in its place",
            "Compare the first copied layer with the teacher's, tensor by tensor. From which layer does its attention "
            "come?",
        ),
    },
)

HIDDEN_LOSS = Answers(
    right={
        "products with the mask": """
def hidden_loss(student, teacher, mask, layers):
    total, tokens = 0, mask.sum()
    for layer, goal in layers.items():
        h, g = student[layer], teacher[goal]
        cosine = (h * g).sum(-1) / (h.norm(dim=-1) * g.norm(dim=-1))
        total = total + ((((h - g) ** 2).mean(-1) + 1 - cosine) * mask).sum() / tokens
    return total
""",
        "all layers stacked": """
def hidden_loss(student, teacher, mask, layers):
    real = mask > 0
    h = torch.stack([student[layer] for layer in layers])[:, real]
    g = torch.stack([teacher[goal] for goal in layers.values()])[:, real]
    turned = 1 - nn.functional.cosine_similarity(h, g, dim=-1)
    return ((h - g).pow(2).mean(-1) + turned).mean(1).sum()
""",
    },
    wrong={
        "padding counts": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer], teacher[goal]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the values are off by",
            "Add a token of padding to the batch. May the loss change? Does yours?",
        ),
        "a mask of whole numbers as an index": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask, 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the values are off by",
            "Print the shape of `states[mask]`. Whose states are these?",
        ),
        "padding is 0 but counted": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer] * mask[..., None], teacher[goal] * mask[..., None]
        total = total + (h - g).square().mean() + ((1 - torch.cosine_similarity(h, g, dim=-1)) * mask).mean()
    return total
""",
            "the values are off by",
            "By how many tokens do you divide, and how many are real?",
        ),
        "a sum over tokens": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().sum() + (1 - torch.cosine_similarity(h, g, dim=-1)).sum()
    return total
""",
            "the values are off by",
            "Repeat the batch. May the loss change?",
        ),
        "no cosine": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean()
    return total
""",
            "the values are off by",
            "Your loss of the visible case is 0.75, not 0.77. Which term of the formula is worth 0.02 there?",
        ),
        "the map is not used": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in zip(student, teacher):
        h, g = layer[real], goal[real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the values are off by",
            "Which layer of the teacher does the student's second one imitate in your loop?",
        ),
        "off by one below": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[max(goal - 1, 0)][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the values are off by",
            "The map holds numbers of hidden states. Do you count hidden states here, or layers?",
        ),
        "no embeddings": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        if layer == 0:
            continue
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the values are off by",
            "Is layer 0 in the map? Then it is in the loss.",
        ),
        "a mean over layers": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total / len(layers)
""",
            "the values are off by",
            "In the visible case your loss is half of what is expected, and the map has two pairs. What does the "
            "formula do with the layers?",
        ),
        "a number": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total.item()
""",
            "the loss has no gradient",
            "What does `backward` need, and what does `.item()` leave of it?",
        ),
        "the student without its gradient": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real].detach(), teacher[goal][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the loss has no gradient",
            "Which of the two is to learn? Look for `detach`.",
        ),
        "the gradient of the cosine only": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h.detach() - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the gradient is wrong",
            "The loss is right. Follow each part of it back to the student.",
        ),
        "the library": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real = mask.bool()
    pairs = [(student[layer], teacher[goal], real) for layer, goal in layers.items()]
    return sum(ttq.hidden_mse(*pair) + ttq.hidden_cosine(*pair) for pair in pairs)
""",
            "write it yourself: hidden_mse was called",
            "`hidden_mse` and `hidden_cosine` are the two terms of the formula. Write each of them for the states of "
            "one token.",
        ),
        "one cosine for all tokens": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean() + 1 - torch.cosine_similarity(h.flatten(), g.flatten(), dim=0)
    return total
""",
            "the values are off by",
            "How many cosines are there for a sentence of five tokens?",
        ),
        "sentence by sentence": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    total = 0.0
    for layer, goal in layers.items():
        means = []
        for h, g, real in zip(student[layer], teacher[goal], mask.bool()):
            h, g = h[real], g[real]
            means.append((h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean())
        total = total + torch.stack(means).mean()
    return total
""",
            "the values are off by",
            "A mean of means: which tokens count more, those of short sentences or of long ones?",
        ),
        "padding erased in place": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        teacher[goal][~real] = 0.0
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "it changed its arguments",
            "Whoever calls you needs these states once more. Choose the real tokens, change none.",
        ),
        "squares not divided by columns": Mistake(
            """
def hidden_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in layers.items():
        h, g = student[layer][real], teacher[goal][real]
        total = total + (h - g).square().sum(-1).mean() + (1 - torch.cosine_similarity(h, g, dim=-1)).mean()
    return total
""",
            "the values are off by",
            "Write every column twice. The cosine stays as it is: what do your squares do, and what does the "
            "formula's 1/d say?",
        ),
    },
)

ATTENTION_LOSS = Answers(
    right={
        "kl_div by hand over rows": """
def attention_loss(student, teacher, mask, layers):
    keys, losses = mask[:, None, None, :] == 0, []
    for layer in range(1, len(layers)):
        own = torch.where(keys, -1e30, student[layer - 1]).log_softmax(-1)
        theirs = torch.where(keys, -1e30, teacher[layers[layer] - 1]).log_softmax(-1)
        kl = nn.functional.kl_div(own, theirs, reduction="none", log_target=True).sum(-1)
        losses.append(kl.transpose(1, 2)[mask.bool()].mean())
    return torch.stack(losses).sum()
""",
        "sentence by sentence, cut to its length": """
def attention_loss(student, teacher, mask, layers):
    total = 0
    for layer, goal in list(layers.items())[1:]:
        rows = []
        for q, p, n in zip(student[layer - 1], teacher[goal - 1], mask.sum(1)):
            q, p = (scores[:, :n, :n] - scores[:, :n, :n].logsumexp(-1, keepdim=True) for scores in (q, p))
            rows.append((p.exp() * (p - q)).sum(-1).flatten())
        total = total + torch.cat(rows).mean()
    return total
""",
    },
    wrong={
        "scores counted as hidden states": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer], teacher[goal]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "raised IndexError",
            "Have embeddings attention? How long is the tuple, then?",
        ),
        "the teacher's next layer": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal % len(teacher)]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "At which place stands the attention that leads to hidden state 2?",
        ),
        "the student's numbers for both": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[layer - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "Where does the map come in?",
        ),
        "padded keys get attention": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        q, p = q.log_softmax(-1), p.log_softmax(-1)
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "Print a row of the softmax for a short sentence. How much goes to padding?",
        ),
        "padded queries count": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean()
    return total
""",
            "the values are off by",
            "Padding stands on two sides. Who asks, and who is asked?",
        ),
        "the other way round": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (q.exp() * (q - p)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "Which of the two distributions weighs the logarithms? Chapter 8 writes KL(teacher ‖ student).",
        ),
        "batchmean": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        total = total + nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
    return total
""",
            "the values are off by",
            "A mean over what? Count the rows of one sentence: queries times heads.",
        ),
        "a mean over keys too": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).mean(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "A row's divergence is a sum over its keys. What is averaged then?",
        ),
        "minus infinity": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = float("-inf")
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by up to nan",
            "What is 0 · (−∞ + ∞)?",
        ),
        "scores taken for probabilities": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        q, p = q.abs().log(), p.abs().log()
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "Scores are any real numbers, also negative ones. What do the entries of one row add up to in your p?",
        ),
        "a sum over heads": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.sum(1)[real].mean()
    return total
""",
            "the values are off by",
            "A teacher with twice as many heads: shall its attention count twice?",
        ),
        "the library": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    return sum(ttq.attention_kl(student[a - 1], teacher[b - 1], mask.bool()) for a, b in layers.items() if a)
""",
            "write it yourself: attention_kl was called",
            "`attention_kl` takes care of both traps for you. Begin with one query of one head: which keys may it see?",
        ),
        "logarithms of probabilities": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        hidden = ~real[:, None, None, :]
        q, p = (scores.masked_fill(hidden, float("-inf")).softmax(-1) for scores in (q, p))
        rows = torch.where(p > 0, p * (p / q).log(), 0).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the gradient is wrong, or not a number",
            "The loss is right. What is the derivative of the branch that `where` leaves out?",
        ),
        "only the last layer": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return rows.mean(1)[real].mean()
""",
            "the values are off by",
            "Print what you add up and what you return. How many layers are in each of them?",
        ),
        "an additive mask for the student only": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        q = (q + (1.0 - mask[:, None, None, :]) * -1e30).log_softmax(-1)
        p = p.log_softmax(-1)
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return total
""",
            "the values are off by",
            "Print a row of both softmaxes for a short sentence. Whose attention still goes to padding?",
        ),
        "a number": Mistake(
            """
def attention_loss(student, teacher, mask, layers):
    real, total = mask.bool(), 0.0
    for layer, goal in list(layers.items())[1:]:
        q, p = student[layer - 1], teacher[goal - 1]
        lowest = torch.finfo(q.dtype).min
        q, p = (scores.masked_fill(~real[:, None, None, :], lowest).log_softmax(-1) for scores in (q, p))
        rows = (p.exp() * (p - q)).sum(-1)
        total = total + rows.mean(1)[real].mean()
    return float(total)
""",
            "the loss has no gradient",
            "`float(…)` keeps the value of the loss. What does it keep of the way back to the student?",
        ),
    },
)

STAGE = Answers(
    right={
        "teacher first, in a generator of pairs": """
def stage(student, teacher, batches, loss, rate):
    teacher.eval()
    optimizer = torch.optim.Adam(student.train().parameters(), lr=rate)

    def step(batch):
        with torch.inference_mode(False), torch.no_grad():
            goal = ttq.observe(teacher, batch)
        value = loss(ttq.observe(student, batch), goal)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value.detach())

    with ttq.recorded_attention(student, teacher):
        return [step(batch) for batch in batches]
""",
        "gradients taken by hand": """
def stage(student, teacher, batches, loss, rate):
    parameters, losses = list(student.parameters()), []
    optimizer = torch.optim.Adam(parameters, lr=rate)
    was = teacher.training
    student.train(), teacher.eval()
    for batch in batches:
        with ttq.recorded_attention(student, teacher):
            seen = ttq.observe(student, batch)
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(seen, goal)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        optimizer.step()
        losses.append(value.item())
    teacher.train(was)
    return losses
""",
    },
    wrong={
        "gradients add up": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "Which gradients does the second step use?",
        ),
        "no step": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "Compare a weight before and after. What moves it?",
        ),
        "a teacher with dropout": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses: the values are off by",
            "Ask the teacher the same thing twice. Does it say the same?",
        ),
        "a teacher with gradients": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the teacher was observed with gradients",
            "The teacher learns nothing. What are its gradients for?",
        ),
        "attention is not recorded": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    if True:
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the observations hold no attention",
            "In which block did you call `observe`?",
        ),
        "the teacher first": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(goal, ttq.observe(student, batch))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the student's observation first",
            "Which of the two does `loss` call `seen`?",
        ),
        "tensors that hold their graphs": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value)
    return losses
""",
            "of type Tensor",
            "What does a loss tensor keep alive? After a thousand batches?",
        ),
        "another optimizer": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.SGD(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "The first loss agrees, the second does not. Which rule makes the step, and which one does the question "
            "name?",
        ),
        "weights decay": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0.5), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "Take one step with gradients of zero. Which of your settings moves the weights all the same?",
        ),
        "a new optimizer for every step": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer = torch.optim.Adam(student.parameters(), lr=rate)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "Adam remembers earlier gradients. Where does it keep them?",
        ),
        "losses after the step": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            with torch.no_grad():
                losses.append(loss(ttq.observe(student, batch), goal).item())
    return losses
""",
            "the losses: the values are off by",
            "Which loss has the gradient that made the step?",
        ),
        "the mean loss only": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return sum(losses) / len(losses)
""",
            "expected a list of",
            "Ten batches give ten losses. How many numbers does the caller get from you?",
        ),
        "uphill": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            (-value).backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "Print the losses. Of what do you call `backward`, and which direction does Adam go in?",
        ),
        "batches from the end": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in reversed(batches):
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses: the values are off by",
            "In turn: the first batch first.",
        ),
        "the library": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    from transformers import TrainingArguments

    ttq.DistillTrainer(student, TrainingArguments("."), teacher=teacher, stages=ttq.AllLayers(len(batches)))
""",
            "write it yourself: DistillTrainer was called",
            "`DistillTrainer` runs the loop. What has to happen, and in which order, for one batch?",
        ),
        "the head stays as it was": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.bert.embeddings.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses
""",
            "the losses",
            "List the parameters that have moved after one step. Which ones did you hand to the optimizer?",
        ),
        "every batch twice": Mistake(
            """
def stage(student, teacher, batches, loss, rate):
    optimizer, losses = torch.optim.Adam(student.parameters(), lr=rate), []
    student.train()
    teacher.eval()
    with ttq.recorded_attention(student, teacher):
        for batch in batches:
            with torch.no_grad():
                goal = ttq.observe(teacher, batch)
            value = loss(ttq.observe(student, batch), goal)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses + losses
""",
            "expected a list of",
            "Compare the length of your list with the number of batches. What does `+` do with two lists?",
        ),
    },
)

DISTILLED = Answers(
    right={
        "hidden states alone, from the second and the last": """
def distilled(teacher, batches):
    places = [1, 3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        return hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)

    stage(student, teacher, batches[:32], loss, 3e-3)
    return student
""",
        "the library's trainer": """
def distilled(teacher, batches):
    import tempfile

    from transformers import PrinterCallback, TrainingArguments

    student = copy.deepcopy(teacher)
    student.bert.encoder.layer = student.bert.encoder.layer[::3]
    student.config.num_hidden_layers = 2
    rows = [{name: column[k] for name, column in batch.items()} for batch in batches[:32] for k in range(32)]
    longest = max(len(row["input_ids"]) for row in rows)

    def collate(rows):
        def padded(tensor):
            return nn.functional.pad(tensor, (0, longest - len(tensor)))

        return {name: torch.stack([padded(row[name]) for row in rows]) for name in rows[0]}

    with tempfile.TemporaryDirectory() as folder:
        settings = {"per_device_train_batch_size": 32, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
        settings |= {"save_strategy": "no", "logging_strategy": "no", "learning_rate": 3e-3}
        settings |= {"remove_unused_columns": False}
        trainer = ttq.DistillTrainer(
            student,
            TrainingArguments(folder, **settings),
            teacher=teacher,
            stages=ttq.AllLayers(32, task=0),
            layer_map={0: 0, 1: 1, 2: 4},
            train_dataset=rows,
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return student
""",
    },
    wrong={
        "copies without training": Mistake(
            """
def distilled(teacher, batches):
    return shorter(teacher, [0, 3])
""",
            "its last layer is off by",
            "What goes into the second copy, and what did the original get there?",
        ),
        "a map that is off by one": Mistake(
            """
def distilled(teacher, batches):
    places = [1, 3]
    student, layers = shorter(teacher, places), {0: 0, 1: 1, 2: 3}

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:16], loss, 3e-3)
    return student
""",
            "its last layer is off by",
            "What does the teacher's head see, and what does yours see now?",
        ),
        "random layers": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = ttq.IntentSlotModel(shorter(teacher, places).config), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:16], loss, 3e-3)
    return student
""",
            "its last layer is off by",
            "64 batches do not make a BERT. What did the copies know already?",
        ),
        "the teacher itself": Mistake(
            """
def distilled(teacher, batches):
    return teacher
""",
            "expected an IntentSlotModel of 2 layers, got IntentSlotModel of 4",
            "Count its layers.",
        ),
        "nothing is returned": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:1], loss, 3e-3)
""",
            "got NoneType",
            "The student has been trained. What does a function give back that has no `return`?",
        ),
        "one layer": Mistake(
            """
def distilled(teacher, batches):
    places = [3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:1], loss, 3e-3)
    return student
""",
            "got IntentSlotModel of 1",
            "Count the places that you copy. How many layers was the student to have?",
        ),
        "a head of random numbers": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:32], loss, 3e-3)
    nn.init.normal_(student.intent_head.weight)
    return student
""",
            "it says the teacher's intent on",
            "The hidden states are near. Who turns them into an intent?",
        ),
        "steps too small": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:16], loss, 1e-7)
    return student
""",
            "its last layer is off by",
            "Print the first loss and the last.",
        ),
        "steps too large": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:8], loss, 10.0)
    return student
""",
            "its last layer is off by",
            "Print the losses. Chapter 8 has a section about runs that blow up.",
        ),
        "the teacher is cut": Mistake(
            """
def distilled(teacher, batches):
    teacher.bert.encoder.layer = teacher.bert.encoder.layer[::3]
    teacher.config.num_hidden_layers = 2
    return teacher
""",
            "the teacher must stay as it was",
            "Cut a copy. From whom shall the student learn?",
        ),
        "only the words are matched": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = shorter(teacher, places), {0: 0}

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:16], loss, 3e-3)
    return student
""",
            "its last layer is off by",
            "Your map has one pair, that of the embeddings. Which loss tells the last layer what to give?",
        ),
        "the lower half": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 1]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:16], loss, 3e-3)
    return student
""",
            "its last layer is off by",
            "To which hidden state does your map send the last layer, and which does the head need?",
        ),
        "the losses instead of the student": Mistake(
            """
def distilled(teacher, batches):
    places = [0, 3]
    student, layers = shorter(teacher, places), layer_map(places, 4)

    def loss(seen, goal):
        scores = ([attention.scores() for attention in side.attentions] for side in (seen, goal))
        states = hidden_loss(seen.hidden_states, goal.hidden_states, seen.mask, layers)
        return states + attention_loss(*scores, seen.mask, layers)

    stage(student, teacher, batches[:1], loss, 3e-3)
    return [0.0]
""",
            "got list",
            "Losses have no layers and name no intent. Who was to be returned?",
        ),
    },
)

ANSWERS = {
    "layer_map": LAYER_MAP,
    "shorter": SHORTER,
    "hidden_loss": HIDDEN_LOSS,
    "attention_loss": ATTENTION_LOSS,
    "stage": STAGE,
    "distilled": DISTILLED,
}
