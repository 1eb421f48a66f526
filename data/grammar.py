"""A small grammar engine: it turns a page of rules into labelled sentences, the same ones on every machine.

A rule is a symbol, an arrow and alternatives between bars; an indented line continues the line above it:

    route -> 3* from {city:fromloc.city_name} to {city:toloc.city_name} | ~ to {city:toloc.city_name} if possible

    3*                    this alternative is drawn three times as often as one without a number
    ~  and  ~~            this alternative is held out of training (~~ out of validation, too)
    {symbol}              one expansion of that symbol; {symbol}? may be left out, {symbol}?20 stays in 20 % of cases
    {symbol:label}        the same, and its words carry the label: B-label, then I-label
    {"two words":label}   words written on the spot, with a label
    {symbol when=return}  a feature for everything under this symbol; $when is replaced by its value, wherever it stands
    {!symbol}             the features p and n (a review's polarity and its opposite) trade places
    show/list/            one of these words, or (because of the last slash) nothing; _ is a space within a choice

A word list is a symbol, an equals sign and names between commas; after a semicolon come the names that training never
shows, after a second one those that validation does not show either:

    city = lisbon, new delhi; bristol; port elizabeth
"""

import json
import random
import re

SPLITS = ("train", "validation", "test")

RULE = re.compile(r"^(\S+) (->|=) ", re.MULTILINE)
ALTERNATIVE = re.compile(r"(?P<held>~{0,2}) ?(?:(?P<weight>\d+)\* )?(?P<body>.*)", re.DOTALL)
ITEM = re.compile(r"\{[^{}]*\}(?:\?\d*)?|\S+")
REFERENCE = re.compile(r'\{(!?)("[^"]*"|[^\s:{}"]+)(?::(\S+?))?((?: \w+=\S*?)*)\}(\?)?(\d*)')
# Vowel letters that sound like consonants, and the reverse: the exceptions to a/an that the rules can meet.
AN = re.compile(r"(?!(?:one|once|eu|uni[^nm]|use|usu|ukr)\w*)[aeiou]|(?:8|11|18|hour|hon)")


class Grammar:
    """The rules in `text`; `novelty` scales the weights of what is held out of training, so that one number sets how
    unlike training the other splits are."""

    def __init__(self, text, novelty):
        parts = RULE.split("\n".join(line for line in text.splitlines() if not line.startswith("#")))[1:]
        self.rules = {}
        for symbol, sign, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            if symbol in self.rules:
                raise ValueError(f"two rules for {symbol}")
            rules = parse_rule(body) if sign == "->" else parse_list(body)
            self.rules[symbol] = [(weight * (novelty if held else 1), held, items) for weight, held, items in rules]

    def sentence(self, symbol, split, rng, **features):
        """One sentence under `symbol` as two lists: its words and their labels ('O' for most words)."""
        pairs = self.expand(symbol, SPLITS.index(split), rng, features)
        words = [word for word, _ in pairs]
        for i, following in enumerate(words[1:]):
            if words[i] == "a" and AN.match(following):
                words[i] = "an"
        return words, [label for _, label in pairs]

    def expand(self, symbol, level, rng, features):
        alternatives = [rule for rule in self.rules[fill(symbol, features)] if rule[1] <= level]
        items = pick(alternatives, rng, weight=lambda rule: rule[0])[2]
        return [pair for item in items for pair in self.expand_item(item, level, rng, features)]

    def expand_item(self, item, level, rng, features):
        if not item.startswith("{"):
            return [(word, "O") for word in fill(pick(item.split("/"), rng), features).replace("_", " ").split()]
        swap, symbol, label, settings, optional, percent = REFERENCE.fullmatch(item).groups()
        if optional and rng.random() * 100 >= int(percent or 50):
            return []
        if swap:
            features = {**features, "p": features["n"], "n": features["p"]}
        if settings:
            features = features | {name: fill(value, features) for name, value in re.findall(r"(\w+)=(\S*)", settings)}
        if symbol.startswith('"'):
            pairs = [(word, "O") for word in fill(symbol.strip('"'), features).replace("_", " ").split()]
        else:
            pairs = self.expand(symbol, level, rng, features)
        if not label:
            return pairs
        label = fill(label, features)
        return [(word, f"{'I' if i else 'B'}-{label}") for i, (word, _) in enumerate(pairs)]


def parse_rule(text):
    """The alternatives of one rule: (weight, index in SPLITS of the first split that may use it, items)."""
    rules = []
    for alternative in text.split("|"):
        held, weight, body = ALTERNATIVE.fullmatch(alternative.strip()).groups()
        rules.append((int(weight or 1), len(held), ITEM.findall(body)))
    return rules


def parse_list(text):
    """The same for a word list: each name is an alternative, whole (a slash in it offers no choice).

    As in any language, a few words are common and many rare: the ninth name is drawn half as often as the first.
    """
    parts = [" ".join(part.split()).split(", ") for part in text.split(";")]
    names = [(level, name) for level, part in enumerate(parts) for name in part]
    return [(8 / (8 + rank), level, [f'{{"{name}"}}']) for rank, (level, name) in enumerate(names)]


def fill(text, features):
    return re.sub(r"\$([a-z]+)", lambda match: features[match[1]], text)


def pick(options, rng, weight=lambda option: 1):
    """One of the options by weight, through rng.random() alone: the method whose numbers Python promises to keep."""
    point = rng.random() * sum(map(weight, options))
    for option in options:
        point -= weight(option)
        if point < 0:
            return option
    return options[-1]


def make_splits(draw, sizes, seed):
    """Rows by split, from `draw(split, rng) -> (words, row)`; no sentence occurs twice in all splits together."""
    seen, splits = set(), {}
    for split in SPLITS:
        rng = random.Random(f"{seed} {split}")
        rows = []
        while len(rows) < sizes[split]:
            words, row = draw(split, rng)
            if tuple(words) not in seen:
                seen.add(tuple(words))
                rows.append(row)
        splits[split] = rows
    return splits


def write_splits(splits, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
