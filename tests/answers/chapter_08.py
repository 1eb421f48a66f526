"""Answers to the exercises of chapter 8: a loss for attention maps, and which layers belong together."""

from tests.answers import Answers, Wrong

ATTENTION_LOSS = Answers(
    right={
        "zeros where the teacher does not look": """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    return terms.sum(-1).mean(1)[mask].mean()
""",
        "xlogy, and the rows picked first": """
def attention_loss(student, teacher, mask):
    p, q = (maps.transpose(1, 2)[mask] for maps in (teacher, student))  # (real queries, heads, keys)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1).mean()
""",
        "sentence by sentence, as a plain number": """
def attention_loss(student, teacher, mask):
    total, rows = 0.0, 0
    for q, p, real in zip(student, teacher, mask):
        p, q = p[:, real][:, :, real], q[:, real][:, :, real]
        total += (p * (p.log() - q.log())).sum().item()
        rows += p.shape[0] * p.shape[1]
    return total / rows
""",
    },
    wrong={
        "0 · log(0 / 0)": Wrong(
            """
def attention_loss(student, teacher, mask):
    rows = (teacher * (teacher / student).log()).sum(-1)
    return rows.mean(1)[mask].mean()
""",
            "not a number",
        ),
        "padded queries count": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    return terms.sum(-1).mean()
""",
            "for sentences of 3, 1, 5 tokens and 3 heads the values are off by",
        ),
        "a sum over heads": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    return terms.sum(-1).sum(1)[mask].mean()
""",
            "for sentences of 4, 4 tokens and 2 heads the values are off by",
        ),
        "a mean over keys as well": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    return terms.mean(-1).mean(1)[mask].mean()
""",
            "for sentences of 4, 4 tokens and 2 heads the values are off by",
        ),
        "a sum over the wrong axis": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    return terms.sum(2).mean(1)[mask].mean()
""",
            "for sentences of 3, 1, 5 tokens and 3 heads the values are off by",
        ),
        "divided by sentences, as batchmean does": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    return terms.sum(-1).mean(1)[mask].sum() / len(mask)
""",
            "for sentences of 4, 4 tokens and 2 heads the values are off by",
        ),
        "each sentence weighs the same": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    rows = terms.sum(-1).mean(1) * mask
    return (rows.sum(1) / mask.sum(1)).mean()
""",
            "for sentences of 3, 1, 5 tokens and 3 heads the values are off by",
        ),
        "KL(student ‖ teacher)": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(student > 0, student * (student / teacher).log(), 0)
    return terms.sum(-1).mean(1)[mask].mean()
""",
            "for sentences of 4, 4 tokens and 2 heads the values are off by",
        ),
        "padding is at the end of every sentence": Wrong(
            """
def attention_loss(student, teacher, mask):
    total, rows = 0, 0
    for q, p, length in zip(student, teacher, mask.sum(1)):
        p, q = p[:, :length, :length], q[:, :length, :length]
        terms = torch.where(p > 0, p * (p / q).log(), 0)
        total, rows = total + terms.sum(), rows + p.shape[0] * p.shape[1]
    return total / rows
""",
            "padded in front",
        ),
        "a value for each sentence": Wrong(
            """
def attention_loss(student, teacher, mask):
    terms = torch.where(teacher > 0, teacher * (teacher / student).log(), 0)
    rows = terms.sum(-1).mean(1) * mask
    return rows.sum(1) / mask.sum(1)
""",
            "expected shape (), got (2,)",
        ),
        "a small number added, in place": Wrong(
            """
def attention_loss(student, teacher, mask):
    student += 1e-12
    teacher += 1e-12
    rows = (teacher * (teacher / student).log()).sum(-1)
    return rows.mean(1)[mask].mean()
""",
            "must stay as",
        ),
    },
)

EVEN_MAP = Answers(
    right={
        "Python's round": """
def even_map(layers, teacher_layers):
    return {layer: round(layer * teacher_layers / layers) for layer in range(layers + 1)}
""",
        "whole numbers alone, halves rounded up": """
def even_map(layers, teacher_layers):
    found = {}
    for layer in range(layers + 1):
        found[layer] = (2 * layer * teacher_layers + layers) // (2 * layers)
    return found
""",
        "halves rounded down": """
def even_map(layers, teacher_layers):
    places = range(layers + 1)
    return dict(zip(places, [math.ceil(place * teacher_layers / layers - 0.5) for place in places]))
""",
    },
    wrong={
        "the first layers": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: layer for layer in range(layers + 1)}
""",
            "layer 1 could be nearer to 2",
        ),
        "rounded down": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: layer * teacher_layers // layers for layer in range(layers + 1)}
""",
            "could be nearer to",
        ),
        "layers counted from 0, so each is one below": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: max(0, round(layer * teacher_layers / layers) - 1) for layer in range(layers + 1)}
""",
            "layer 1 could be nearer to 2",
        ),
        "no embeddings": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: round(layer * teacher_layers / layers) for layer in range(1, layers + 1)}
""",
            "expected a dict with the keys 0 … 3",
        ),
        "no last layer": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: round(layer * teacher_layers / layers) for layer in range(layers)}
""",
            "expected a dict with the keys 0 … 3",
        ),
        "embeddings to a layer": Wrong(
            """
def even_map(layers, teacher_layers):
    step = teacher_layers / layers
    return {layer: max(1, round(layer * step)) for layer in range(layers + 1)}
""",
            "embeddings, 0, belong to embeddings",
        ),
        "fractions": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: layer * teacher_layers / layers for layer in range(layers + 1)}
""",
            "expected whole numbers",
        ),
        "a step that is rounded once": Wrong(
            """
def even_map(layers, teacher_layers):
    step = round(teacher_layers / layers)
    return {layer: layer * step for layer in range(layers + 1)}
""",
            "could be nearer to",
        ),
        "the last layers": Wrong(
            """
def even_map(layers, teacher_layers):
    skipped = teacher_layers - layers
    return {layer: layer + skipped if layer else 0 for layer in range(layers + 1)}
""",
            "layer 1 could be nearer to 2",
        ),
        "a list": Wrong(
            """
def even_map(layers, teacher_layers):
    return [round(layer * teacher_layers / layers) for layer in range(layers + 1)]
""",
            "expected a dict with the keys 0 … 3",
        ),
        "the teacher's layers to the student's": Wrong(
            """
def even_map(layers, teacher_layers):
    return {round(layer * teacher_layers / layers): layer for layer in range(layers + 1)}
""",
            "expected a dict with the keys 0 … 3",
        ),
        "right for MiniLM, six layers to three": Wrong(
            """
def even_map(layers, teacher_layers):
    return {layer: 2 * layer for layer in range(layers + 1)}
""",
            "for 4 layers of a student and 12 of its teacher layer 1 could be nearer to 3",
        ),
    },
)

ANSWERS = {"attention_loss": ATTENTION_LOSS, "even_map": EVEN_MAP}
