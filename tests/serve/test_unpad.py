"""Without padding, every encoder answers as transformers runs it with padding."""

import copy

import pytest
import torch
import transformers

from serve_app.encoders.onednn import LinearGelu, LinearPlus, has_kernels, use_kernels
from serve_app.encoders.unpad import can_unpad, script, unpad
from tests.serve import tiny_models

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "num_labels": 3,
}
DISTILBERT = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "num_labels": 3}
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES),
    "bert with another activation": transformers.BertConfig(**SIZES, hidden_act="relu"),
    "camembert": transformers.CamembertConfig(**SIZES),
    "distilbert": transformers.DistilBertConfig(**DISTILBERT),
    "electra": transformers.ElectraConfig(**SIZES, embedding_size=16),
    "roberta": transformers.RobertaConfig(**SIZES),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES),
}
AUTO_CLASSES = [
    transformers.AutoModel,
    transformers.AutoModelForSequenceClassification,
    transformers.AutoModelForTokenClassification,
    transformers.AutoModelForMaskedLM,
]
# Their sum is no multiple of what a long batch is filled up to.
LENGTHS = [7, 1, 31, 7, 21]


def batch() -> dict[str, torch.Tensor]:
    """Return sequences of several lengths, padded."""
    mask = torch.tensor([[int(at < length) for at in range(max(LENGTHS))] for length in LENGTHS])
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask}


def unpadded_output(model, inputs) -> list[torch.Tensor]:
    """Return the same of a model that runs unpadded."""
    return output(model, input_ids=inputs["input_ids"], attention_mask_2d=inputs["attention_mask"].bool())


def output(model, **inputs) -> list[torch.Tensor]:
    """Return what the model says of the tokens that are there, or of each sequence."""
    with torch.inference_mode():
        answer = model(**inputs)
    tensor = answer.logits if "logits" in answer else answer.last_hidden_state
    return list(tensor) if tensor.dim() == 2 else [row[:n] for row, n in zip(tensor, LENGTHS, strict=True)]


@pytest.mark.parametrize("scripted", [False, True], ids=["Python", "TorchScript"])
@pytest.mark.parametrize("auto_class", AUTO_CLASSES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_answers_as_with_padding(name, auto_class, scripted):
    torch.manual_seed(7)
    model = auto_class.from_config(copy.deepcopy(CONFIGS[name])).eval()
    assert can_unpad(model)
    expected = output(model, **batch())
    unpad(model, fills=True)
    if scripted:
        script(model)
    assert any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()) == scripted
    got = unpadded_output(model, batch())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


class Unheard(torch.nn.Module):
    """An activation that TorchScript does not understand."""

    def forward(self, inputs, **options):
        return torch.relu(inputs)


def test_layers_that_torchscript_does_not_understand_stay_in_python(caplog):
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).eval()
    for layer in model.encoder.layer:
        layer.intermediate.intermediate_act_fn = Unheard()
    unpad(model, fills=True)
    before = unpadded_output(model, batch())
    with caplog.at_level("INFO", logger="ray.serve"):
        script(model)
    assert "stay in Python" in caplog.text
    after = unpadded_output(model, batch())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_the_others_in_a_batch_say_makes_no_difference():
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).eval()
    unpad(model, fills=True)
    inputs = batch()
    before = unpadded_output(model, inputs)
    inputs["input_ids"][0, 0] += 1
    after = unpadded_output(model, inputs)
    assert not torch.equal(before[0], after[0])
    assert all(torch.equal(one, other) for one, other in zip(before[1:], after[1:], strict=True))


@pytest.mark.parametrize(
    "model",
    [
        transformers.BertLMHeadModel(tiny_models.bert_config(is_decoder=True)),
        transformers.T5EncoderModel(transformers.T5Config(vocab_size=60, d_model=32, num_layers=1)),
    ],
    ids=["looks only back", "positions in its layers"],
)
def test_what_needs_its_padding_keeps_it(model):
    assert not can_unpad(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_onednns_kernels_compute_the_same(dtype, bias):
    if not has_kernels(dtype):
        pytest.skip(f"this machine has no kernels for {dtype}")
    torch.manual_seed(7)
    layers = torch.nn.Sequential(torch.nn.Linear(40, 24, bias=bias), torch.nn.ReLU()).to(dtype)
    inputs = torch.randn(2, 5, 40).to(dtype)
    with torch.inference_mode():
        expected = layers(inputs)
        use_kernels(layers)
        got = layers(inputs)
    assert not any(isinstance(layer, torch.nn.Linear) for layer in layers)
    torch.testing.assert_close(got, expected, atol=0.02 if dtype is torch.bfloat16 else 1e-5, rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_onednns_kernels_compute_what_follows_a_layer(dtype):
    if not has_kernels(dtype):
        pytest.skip(f"this machine has no kernels for {dtype}")
    torch.manual_seed(7)
    layers = torch.nn.ModuleDict(
        {"gelu": LinearGelu(torch.nn.Linear(40, 24)), "plus": LinearPlus(torch.nn.Linear(40, 24))}
    ).to(dtype)
    inputs, others = torch.randn(5, 40).to(dtype), torch.randn(5, 24).to(dtype)
    with torch.inference_mode():
        expected = [layers["gelu"](inputs), layers["plus"](inputs, others)]
        use_kernels(layers)
        got = [layers["gelu"](inputs), layers["plus"](inputs, others)]
    assert not any(isinstance(layer, torch.nn.Linear) for layer in layers.modules())
    torch.testing.assert_close(got, expected, atol=0.02 if dtype is torch.bfloat16 else 1e-5, rtol=1e-2)


def test_an_unpadded_model_answers_the_same_with_onednns_kernels():
    if not has_kernels(torch.float32):
        pytest.skip("this machine has no kernels for float32")
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).eval()
    expected = output(model, **batch())
    unpad(model, fills=True)
    use_kernels(model)
    script(model)
    for one, other in zip(unpadded_output(model, batch()), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
