"""Surgery: `compress_` replaces the layers that a plan names, in place, in any model."""

from torch import nn

from .embeddings import TTMEmbedding
from .layers import TTLinear
from .planning import TT, TTM, TTQConfig


def compress_(model: nn.Module, config: TTQConfig, init: str = "svd") -> nn.Module:
    """Replace every layer that `config` names by its tensor-train form, in place, and return the model.

    `init="svd"` starts from the weights that are there, by TT-SVD; `init="random"` draws cores whose product has the
    standard deviation of those weights. Bias, dtype, device and train/eval mode stay. Nothing is changed unless
    everything can be.

    Raises:
        ValueError: a name that is not in the model, a layer of another type than its recipe is for, a weight that two
            layers share, or an unknown `init`.
    """
    if init not in ("svd", "random"):
        raise ValueError(f"init must be 'svd' or 'random', got {init!r}")
    modules = dict(model.named_modules())
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name, recipe in config.layers.items():
        wanted = nn.Linear if isinstance(recipe, TT) else nn.Embedding
        if name not in modules:
            raise ValueError(f"the plan names {name!r}, which is no layer of this {type(model).__name__}")
        if type(modules[name]) is not wanted:
            found = type(modules[name]).__name__
            raise ValueError(f"{type(recipe).__name__} is for {wanted.__name__}, but {name} is of type {found}")
        shared = owners[id(modules[name].weight)]
        if len(shared) > 1:
            raise ValueError(f"{' and '.join(shared)} are one tied weight: untie it first or leave {name} out")
    replacements = {name: _replacement(modules[name], recipe, init) for name, recipe in config.layers.items()}
    for name, layer in replacements.items():
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, layer)
    return model


def _replacement(module: nn.Module, recipe: TT | TTM, init: str) -> nn.Module:
    if isinstance(recipe, TT):
        modes = {"in_modes": recipe.in_modes, "out_modes": recipe.out_modes}
        build = TTLinear.from_linear
    else:
        modes = {"vocabulary_modes": recipe.vocabulary_modes, "hidden_modes": recipe.hidden_modes}
        build = TTMEmbedding.from_embedding
    if init == "svd":
        return build(module, recipe.rank, **modes)
    return _random(module, recipe.rank, modes)


def _random(module: nn.Linear | nn.Embedding, rank: int, modes: dict) -> nn.Module:
    like = {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        has_bias = module.bias is not None
        layer = TTLinear(module.in_features, module.out_features, rank, bias=has_bias, **modes, **like)
    else:
        size = (module.num_embeddings, module.embedding_dim)
        layer = TTMEmbedding(*size, rank, padding_idx=module.padding_idx, **modes, **like)
    layer.reset_parameters(std=float(module.weight.detach().float().std()))
    return layer.train(module.training)
