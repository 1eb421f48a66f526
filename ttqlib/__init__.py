"""ttqlib: tensor-train compression, quantization and distillation of transformers, as the TTQ notebooks teach it.

Every name is loaded on first use, so that `import ttqlib` costs little more than torch and transformers' registry of
quantizers, in which it registers: from then on plain `from_pretrained` reads compressed models.
"""

import lazy_loader

try:
    from . import pretrained as _registration  # noqa: F401
except ModuleNotFoundError as error:  # a machine that only runs `Predictor` has neither, and nothing to register with
    if error.name not in ("torch", "transformers"):
        raise

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["plots", "explore", "check"],
    submod_attrs={
        "shapes": ["clip_ranks", "factorize", "largest_rank", "tt_parameters"],
        "quantizers": ["Binary", "GroupRTN", "LSQ", "Ternary", "WeightQuantizer"],
        "parametrizing": ["quantize_"],
        "activations": ["DynamicActivation", "StaticActivation", "quantize_input_"],
        "tasks": ["load_task"],
        "encoding": ["IntentSlotCollator", "encode", "label_names", "predict_intent_slots", "word_tokenizer"],
        "metrics": ["accuracy", "score", "score_intent_slots", "slot_f1"],
        "models": ["IntentSlotModel", "minilm_tokenizer", "pretrained_minilm"],
        "environment": ["check_setup"],
        "tensor_train": [
            "balance_norms",
            "core_ranks",
            "singular_values",
            "tt_error_bound",
            "tt_matrix",
            "tt_matrix_to_matrix",
            "tt_ranks",
            "tt_svd",
            "tt_to_tensor",
            "unfolding",
        ],
        "layers": ["TTLinear"],
        "embeddings": ["TTMEmbedding", "TTMHead"],
        "rotation": ["canonical_form", "rotate_", "rotate_bonds"],
        "configs": ["LayerPlan", "TT", "TTM", "TTQConfig"],
        "planning": ["plan"],
        "compress": ["compress_"],
        "attention": ["LatentAttention"],
        "fusion": ["HalfMergedEmbedding", "fuse_"],
        "allocator": ["keep_freed_memory"],
        "checkpoint": ["load", "save", "stored_sizes"],
        "training": ["QATTrainer"],
        "predictor": ["Predictor"],
        "deploy": ["export_onnx"],
        "benchmark": ["interleaved_medians", "peak_bytes"],
        "measure": [
            "count_parameters",
            "flops",
            "parameter_bytes",
            "relative_error",
            "report",
        ],
        "losses": [
            "attention_kl",
            "bernoulli_kl",
            "hidden_cosine",
            "hidden_mse",
            "info_nce",
            "logits_kl",
            "logits_mse",
            "relation_scores",
            "sentence_vectors",
        ],
        "schedules": [
            "AllLayers",
            "AttentionRelations",
            "Contrastive",
            "LayerByLayer",
            "LogitsOnly",
            "TaskOnly",
            "schedule_from_dict",
        ],
        "distill": ["DistillTrainer"],
    },
)
