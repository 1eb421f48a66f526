"""ttqlib: tensor-train compression, quantization and distillation of transformers, as the TTQ notebooks teach it.

Every name is loaded on first use, so that `import ttqlib` costs little more than torch and transformers' registry of
quantizers, in which it registers: from then on plain `from_pretrained` reads compressed models.
"""

import lazy_loader

try:
    from .storage import registration as _registration  # noqa: F401
except ModuleNotFoundError as error:  # a machine that only runs `Predictor` has neither, and nothing to register with
    if error.name not in ("torch", "transformers"):
        raise

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["plots", "explore", "check"],
    submod_attrs={
        "catalog": ["register"],
        "tensors.shapes": ["clip_ranks", "factorize", "largest_rank", "tt_parameters"],
        "tensors.tensor_train": [
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
        "tensors.rounding": ["tt_round"],
        "tensors.gauge": ["balance_norms", "canonical_form", "rotate_bonds"],
        "quantizers.mean_scales": ["Binary", "Ternary"],
        "quantizers.recipes": ["GroupRTN", "LSQ", "WeightQuantizer", "WeightRecipe"],
        "quantizers.parametrizing": ["fake_quantize_"],
        "quantizers.activations": ["ActivationRecipe", "DynamicActivation", "StaticActivation", "fake_quantize_input_"],
        "layers.linear": ["TTLinear"],
        "layers.embedding": ["TTMEmbedding", "TTMHead"],
        "layers.thin": ["HalfMergedEmbedding"],
        "layers.together": ["merged_together"],
        "tasks.sources": ["load_task"],
        "tasks.encoding": ["IntentSlotCollator", "encode", "label_names", "predict_intent_slots", "word_tokenizer"],
        "tasks.metrics": ["accuracy", "score", "score_intent_slots", "slot_f1"],
        "models.intent_slot": ["IntentSlotModel"],
        "models.packaged": ["minilm_tokenizer", "pretrained_minilm"],
        "environment": ["check_setup"],
        "plans.configs": ["LayerPlan", "TT", "TTM", "TTQConfig"],
        "plans.planning": ["plan"],
        "surgery.compress": ["compress_"],
        "surgery.requantize": ["requantized"],
        "surgery.rotate": ["rotate_"],
        "surgery.kept": ["kept_layers", "layer_map"],
        "surgery.reduce": ["reduce_layers"],
        "surgery.fuse": ["fuse_"],
        "surgery.attention": ["LatentAttention"],
        "storage.checkpoint": ["load", "save", "stored_sizes"],
        "measures.costs": ["count_parameters", "flops", "parameter_bytes", "relative_error"],
        "measures.report": ["report"],
        "measures.clock": ["interleaved_medians", "peak_bytes"],
        "measures.memory": ["keep_freed_memory"],
        "measures.results": ["Results"],
        "training.qat": ["QATTrainer"],
        "training.dropout": ["QuickDropout", "quick_dropout_"],
        "training.losses": [
            "attention_kl",
            "attention_mse",
            "bernoulli_kl",
            "hidden_cosine",
            "hidden_mse",
            "info_nce",
            "logits_kl",
            "logits_mse",
            "relation_scores",
            "sentence_vectors",
        ],
        "training.observation": ["observe", "recorded_attention"],
        "training.layer_worth": ["layer_costs", "layer_similarity"],
        "training.matching": ["Match"],
        "training.schedules": [
            "AllLayers",
            "AttentionRelations",
            "Contrastive",
            "LayerByLayer",
            "LogitsOnly",
            "Schedule",
            "SingleStage",
            "TaskOnly",
        ],
        "training.stages": ["Stage"],
        "training.distill": ["DistillTrainer"],
        "deployment.predictor": ["Predictor"],
        "deployment.export": ["THIN_SIDE", "export_onnx"],
    },
)
