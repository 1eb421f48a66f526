"""One small random model of each family of transformers, and which steps of this library it refuses, with the reason.

`tests/test_families.py` takes every family through every step of `tests/family_steps.py`. A step works, or it is
refused before anything changes. What is written here is what happens, and `tests/family_page.py` makes
`docs/families.md` of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

VOCABULARY, LENGTH = 101, 7
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    **SPECIAL,
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "num_labels": 3,
}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
GROUPED = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2}  # two query heads share a key
HEADS = {**GROUPED, "head_dim": 8}

EXPORTED = ("BertForSequenceClassification", "BertForMaskedLM", "LlamaForSequenceClassification")  # by `make test`

UNRECORDED = {"distil layers": "cannot be recorded: it does not go through transformers' AttentionInterface"}
OTHER_INPUTS = {"export_onnx": "exported are models that read input_ids alone"}
TWO_STACKS = {
    **dict.fromkeys(("distil layers", "distil logits"), "is an encoder-decoder, which cannot be distilled"),
    **OTHER_INPUTS,
}
XLNET = {
    **UNRECORDED,
    "bfloat16": "is bfloat16, but loading would make it float32: ",  # transformers makes its parameters without a dtype
    "export_onnx": "answers logits, mems",
}
RECURRENT = {**UNRECORDED, "export_onnx": "for texts of one length only"}
MAMBA = {**RECURRENT, "calibration": "none has reached"}  # the weight of dt_proj is read, the layer not called
UNEQUAL = {
    "distil layers": "must be one stack of equal layers with a number config.num_attention_heads",
    **OTHER_INPUTS,
}
ONE_STACK = "must be one stack of equal layers with a number config.num_hidden_layers"
TWO_TOWERS = {**dict.fromkeys(("distil layers", "distil logits"), ONE_STACK), **OTHER_INPUTS}
REASONS = {  # what the page says of a refusal, by the words of its message
    UNRECORDED[
        "distil layers"
    ]: "Its attention does not go through transformers' `AttentionInterface`: no map is recorded.",
    OTHER_INPUTS["export_onnx"]: "Exported are models that read `input_ids` alone.",
    TWO_STACKS["distil layers"]: "Encoder-decoders cannot be distilled.",
    XLNET["bfloat16"]: "transformers makes some of its parameters without a dtype: loading would make them float32.",
    XLNET["export_onnx"]: "Beside its logits it answers its memories, for which a graph has no place.",
    RECURRENT["export_onnx"]: "Its graph would be for texts of one length only.",
    MAMBA["calibration"]: "It reads the weight of a layer and does not call it: calibration sees no outputs.",
    UNEQUAL[
        "distil layers"
    ]: "Layers are matched in one stack of equal layers with a number `config.num_attention_heads`.",
    ONE_STACK: "Only one stack of equal layers, with a number `config.num_hidden_layers`, can be distilled.",
}


@dataclass(frozen=True)
class Family:
    """A family, by one class of transformers and its configuration.

    `refused` tells for each step that is refused why: words of the message that the library gives.
    """

    kind: str  # the class
    sizes: dict
    inputs: Callable[[], dict[str, Tensor]]
    refused: dict[str, str] = field(default_factory=dict)
    note: str = ""  # what tells it from another row of the same class

    @property
    def name(self) -> str:
        return f"{self.kind} {self.note}".strip()

    @property
    def generates(self) -> bool:
        return self.kind.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel"))

    def config(self):
        return getattr(transformers, self.kind).config_class(**self.sizes)

    def build(self) -> nn.Module:
        """The model in eval mode, loud: with weights so large, biases and norms so uneven that an error shows."""
        torch.manual_seed(0)
        model = getattr(transformers, self.kind)(self.config()).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter += 0.05 * torch.randn_like(parameter)
                elif "experts." in name:
                    parameter.normal_(0, 0.15)
            for module in model.modules():
                if isinstance(module, nn.Embedding):  # the row of pad as well, which may be real input
                    module.weight.normal_(0, 0.3)
                elif isinstance(module, nn.Linear | Conv1D):
                    module.weight.normal_(0, 0.15)
        return model


def tokens(length: int = LENGTH) -> dict[str, Tensor]:
    """Two sentences, the second shorter: (2, length)."""
    ids = torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, -2:], mask[1, -2:] = SPECIAL["pad_token_id"], 0
    return {"input_ids": ids, "attention_mask": mask}


def classes() -> dict[str, Tensor]:
    return {**tokens(), "labels": torch.tensor([0, 2])}


def words() -> dict[str, Tensor]:
    """As for a language model or a tagger of words: a label for each token."""
    given = tokens()
    return {**given, "labels": given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)}


def tags() -> dict[str, Tensor]:
    given = tokens()
    return {**given, "labels": (given["input_ids"] % 3).masked_fill(given["attention_mask"] == 0, -100)}


def pairs() -> dict[str, Tensor]:
    """Sentences and their translations."""
    return {**tokens(), "labels": words()["labels"][:, :5].contiguous()}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def pictures() -> dict[str, Tensor]:
    return {"pixel_values": numbers(2, 3, 16, 16), "labels": torch.tensor([0, 2])}


def captions() -> dict[str, Tensor]:
    given = tokens()
    given["input_ids"][:, -3] = VOCABULARY - 1  # where CLIP ends a text: the largest id
    return {**given, "pixel_values": numbers(2, 3, 16, 16), "return_loss": True}


def waves() -> dict[str, Tensor]:
    return {"input_values": numbers(2, 400), "labels": torch.tensor([[3, 4], [5, 6]])}


def speech() -> dict[str, Tensor]:
    return {"input_features": numbers(2, 8, 40), "labels": words()["labels"][:, :5].contiguous()}


def _encoders() -> list[Family]:
    distil = {**SIZES, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    roberta = {**SIZES, "max_position_embeddings": 66}
    electra = {**SIZES, "embedding_size": 16}
    albert = {**SIZES, "embedding_size": 16}
    deberta = {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    xlnet = {**SPECIAL, "vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}
    modern = {**SIZES, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2}
    return [
        Family("BertForSequenceClassification", SIZES, classes),
        Family("BertForTokenClassification", SIZES, tags),
        Family("BertForMaskedLM", SIZES, words),
        Family("BertForMaskedLM", {**SIZES, **UNTIED}, words, note="untied"),
        Family("DistilBertForSequenceClassification", distil, classes),
        Family("DistilBertForMaskedLM", distil, words),
        Family("RobertaForSequenceClassification", roberta, classes),
        Family("RobertaForMaskedLM", roberta, words),
        Family("XLMRobertaForSequenceClassification", roberta, classes),
        Family("CamembertForTokenClassification", roberta, tags),
        Family("ElectraForSequenceClassification", electra, classes),
        Family("ElectraForMaskedLM", electra, words),
        Family("AlbertForSequenceClassification", albert, classes),
        Family("AlbertForMaskedLM", albert, words),
        Family("DebertaV2ForSequenceClassification", deberta, classes, UNRECORDED),
        Family("DebertaV2ForMaskedLM", deberta, words, UNRECORDED),
        Family("MPNetForSequenceClassification", roberta, classes, UNRECORDED),
        Family("MPNetForMaskedLM", roberta, words, UNRECORDED),
        Family("XLNetForSequenceClassification", {**xlnet, "num_labels": 3}, classes, XLNET),
        Family("ModernBertForSequenceClassification", modern, classes),
        Family("ModernBertForMaskedLM", modern, words),
        Family("NomicBertForSequenceClassification", SIZES, classes),
        Family("NomicBertForMaskedLM", SIZES, words),
    ]


def _causal() -> list[Family]:
    gpt2 = {**SPECIAL, "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    opt = {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}
    bloom = {**SPECIAL, "vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 2}
    gemma = {**HEADS, "query_pre_attn_scalar": 8, "sliding_window": 4}
    falcon = {**SPECIAL, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return [
        Family("GPT2LMHeadModel", gpt2, words),
        Family("GPT2ForSequenceClassification", {**gpt2, "num_labels": 3}, classes),
        Family("GPTNeoXForCausalLM", SIZES, words),
        Family("OPTForCausalLM", opt, words),
        Family("BloomForCausalLM", bloom, words, UNRECORDED),
        Family("LlamaForCausalLM", GROUPED, words),
        Family("LlamaForCausalLM", {**GROUPED, **TIED}, words, note="tied"),
        Family("LlamaForSequenceClassification", GROUPED, classes),
        Family("MistralForCausalLM", {**GROUPED, "sliding_window": 4}, words),
        Family("Qwen2ForCausalLM", {**GROUPED, **UNTIED}, words),
        Family("Qwen2ForCausalLM", {**GROUPED, **TIED}, words, note="tied"),
        Family("Qwen3ForCausalLM", {**HEADS, **UNTIED}, words),
        Family("Qwen3ForCausalLM", {**HEADS, **TIED}, words, note="tied"),
        Family("GemmaForCausalLM", HEADS, words),
        Family("Gemma2ForCausalLM", gemma, words),
        Family("Gemma3ForCausalLM", gemma, words),
        Family("PhiForCausalLM", SIZES, words),
        Family("Phi3ForCausalLM", GROUPED, words),
        Family("FalconForCausalLM", falcon, words, UNRECORDED),
        Family("StableLmForCausalLM", GROUPED, words),
        Family("Olmo2ForCausalLM", GROUPED, words),
        Family("MambaForCausalLM", {**SIZES, "state_size": 4}, words, MAMBA),
        Family(
            "Mamba2ForCausalLM",
            {**SIZES, "state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1},
            words,
            RECURRENT,
        ),
    ]


def _mixtures() -> list[Family]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    shared = {"shared_expert_intermediate_size": 32, "decoder_sparse_step": 1}
    return [
        Family("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}, words),
        Family("Qwen2MoeForCausalLM", {**GROUPED, **experts, **shared}, words),
        Family("Qwen3MoeForCausalLM", {**HEADS, **experts, "decoder_sparse_step": 1}, words),
    ]


def _sequence_to_sequence() -> list[Family]:
    t5 = {**SPECIAL, "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    t5 |= {"decoder_start_token_id": 0, "eos_token_id": 1}
    short = {**t5, "num_layers": 1}
    bart = {name: SIZES[name] for name in ("vocab_size", "max_position_embeddings", *SPECIAL)}
    bart |= {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_start_token_id": 2}
    bart |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    pad_starts = {**bart, "decoder_start_token_id": 0}
    whisper = {**pad_starts, "max_source_positions": 20, "max_target_positions": 32, "num_mel_bins": 8}
    return [
        Family("T5ForConditionalGeneration", t5, pairs, TWO_STACKS),
        Family("T5ForConditionalGeneration", {**t5, **UNTIED}, pairs, TWO_STACKS, note="untied"),
        Family("MT5ForConditionalGeneration", short, pairs, TWO_STACKS),
        Family("UMT5ForConditionalGeneration", short, pairs, TWO_STACKS),
        Family("BartForConditionalGeneration", bart, pairs, TWO_STACKS),
        Family("BartForSequenceClassification", {**bart, "num_labels": 3}, ends, TWO_STACKS),
        Family("MBartForConditionalGeneration", {**bart, "scale_embedding": True}, pairs, TWO_STACKS),
        Family("MarianMTModel", pad_starts, pairs, TWO_STACKS),
        Family("PegasusForConditionalGeneration", pad_starts, pairs, TWO_STACKS),
        Family("WhisperForConditionalGeneration", whisper, speech, TWO_STACKS),
    ]


def ends() -> dict[str, Tensor]:
    """BART classifies what it has read by the end of the sentence, one in each."""
    given = classes()
    given["input_ids"][0, -1] = given["input_ids"][1, -3] = SPECIAL["eos_token_id"]
    return given


def _senses() -> list[Family]:
    wave = {**SIZES, "num_feat_extract_layers": 2, "conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 4)}
    wave |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    picture = {**SIZES, "image_size": 16, "patch_size": 4}
    swin = {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "num_labels": 3}
    tower = {**SIZES, "num_hidden_layers": 1}
    clip = {"text_config": tower, "vision_config": {**tower, "image_size": 16, "patch_size": 4}, "projection_dim": 32}
    return [
        Family("ViTForImageClassification", picture, pictures, OTHER_INPUTS),
        Family("DeiTForImageClassification", picture, pictures, OTHER_INPUTS),
        Family("BeitForImageClassification", {**picture, "use_relative_position_bias": True}, pictures, OTHER_INPUTS),
        Family("Dinov2ForImageClassification", {**picture, "mlp_ratio": 2}, pictures, OTHER_INPUTS),
        Family("SwinForImageClassification", {**swin, "window_size": 2}, pictures, UNEQUAL),
        Family("CLIPModel", clip, captions, TWO_TOWERS),
        Family("SiglipModel", clip, captions, TWO_TOWERS),
        Family("Wav2Vec2ForCTC", wave, waves, OTHER_INPUTS),
        Family("HubertForCTC", wave, waves, OTHER_INPUTS),
    ]


GROUPS = {  # as headings of the page
    "Encoders": _encoders(),
    "Causal language models": _causal(),
    "Mixtures of experts": _mixtures(),
    "Encoder–decoders": _sequence_to_sequence(),
    "Vision and audio": _senses(),
}
FAMILIES = {family.name: family for families in GROUPS.values() for family in families}
