"""Models in torch's wrappers, and with tensors that share memory: saved as what they are."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from minift import (
    Accelerator,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)
from minift.errors import ArgumentError, ModelError
from minift.models.weights import model_tensors, save_weights, unwrap
from minift.testing import tiny


def names(file):
    with safe_open(file, framework="pt") as opened:
        return set(opened.keys())


def trainer(model, folder, **settings):
    settings = {"max_steps": 4, "save_steps": 2, "device": "cpu", "precision": "fp32", **settings}
    args = TrainingArguments(folder, logging_strategy="no", disable_tqdm=True, **settings)
    return Trainer(model, args, data_collator=tiny.collate, train_dataset=tiny.rows(22))


def flat(model):
    return torch.cat([p.detach().flatten() for p in unwrap(model).parameters()])


class Small(nn.Module):
    """Words, their mean, a layer: small enough to be compiled in a moment."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.out = nn.Embedding(80, 8), nn.Linear(8, 2)
        self.register_buffer("scale", torch.ones(8))

    def forward(self, input_ids, labels=None):
        logits = self.out(self.words(input_ids).mean(1) * self.scale)
        if labels is None:
            return SimpleNamespace(logits=logits)
        loss_sum = nn.functional.cross_entropy(logits, labels, reduction="sum")
        count = torch.tensor(len(labels))
        return SimpleNamespace(
            logits=logits, loss=loss_sum / count, loss_sum=loss_sum, num_items=count
        )


def compiled(model):
    return torch.compile(model, backend="eager")


PLAIN = set(Small().state_dict())


# --------------------------------------------------------------------------------- torch.compile


def test_a_compiled_model_is_saved_and_resumed_by_plain_names(tmp_path):
    """To the bit, and a run that began compiled can end uncompiled, and the other way round."""
    plain = trainer(Small(), tmp_path / "plain")
    plain.train()
    model = compiled(Small())
    run = trainer(model, tmp_path / "compiled")
    run.train()
    run.save_model()
    assert torch.equal(flat(model), flat(plain.model))
    for folder in (tmp_path / "compiled", tmp_path / "compiled" / "checkpoint-2"):
        assert names(folder / "model.safetensors") == PLAIN
    state = names(tmp_path / "compiled" / "checkpoint-2" / "optimizer.safetensors")
    assert {name.rpartition(":")[0] for name in state} == PLAIN - {"scale"}
    for wrap, other in ((compiled, "plain"), (lambda model: model, "compiled")):
        again = trainer(wrap(Small()), tmp_path / other)
        again.train(resume_from_checkpoint=tmp_path / other / "checkpoint-2")
        assert torch.equal(flat(again.model), flat(plain.model))


def test_the_best_of_a_compiled_model_is_loaded(tmp_path):
    model = compiled(Small())
    run = trainer(model, tmp_path, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True)
    run.eval_dataset = tiny.rows(22)
    run.train()
    best = load_file(f"{run.state.best_model_checkpoint}/model.safetensors")
    assert set(best) == PLAIN
    assert all(torch.equal(best[name], tensor) for name, tensor in model_tensors(model).items())


def test_a_compiled_model_in_a_loop_of_ones_own(tmp_path):
    def run(wrap, stop=None, load=None):
        set_seed(3)
        model, accelerator = wrap(Small()), Accelerator(cpu=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        loader = DataLoader(tiny.rows(20), batch_size=4, collate_fn=tiny.collate, shuffle=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        if load:
            accelerator.load_state(load)
        rest = accelerator.skip_first_batches(loader, 2) if load else loader
        for i, batch in enumerate(rest):
            if i == stop:
                accelerator.save_state(tmp_path / "state")
                break
            outputs = model(input_ids=batch["input_ids"], labels=batch["labels"])
            accelerator.backward(outputs.loss)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.save_model(model, tmp_path / "model")
        assert names(tmp_path / "model" / "model.safetensors") == PLAIN
        assert type(accelerator.unwrap_model(model)) is Small
        return flat(model)

    whole = run(lambda model: model)
    assert torch.equal(run(compiled), whole)
    run(compiled, stop=2)
    assert torch.equal(run(lambda model: model, load=tmp_path / "state"), whole)


def test_a_part_that_is_compiled(tmp_path):
    model = tiny.model()
    before = set(model.state_dict())
    model.bert.encoder.layer[0] = compiled(model.bert.encoder.layer[0])
    assert any("_orig_mod" in name for name in model.state_dict())
    model.save_pretrained(tmp_path)
    assert names(tmp_path / "model.safetensors") == before
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).load_report.unused == []


def test_a_compiled_model_has_its_own_forward_and_configuration(tmp_path):
    run = trainer(compiled(tiny.model()), tmp_path)
    assert run.run.forward_args == trainer(tiny.model(), tmp_path).run.forward_args
    assert run.run.train_dataset.column_names == ["input_ids", "labels"]
    assert run.recorder.describe()["model"]["class"] == "BertForSequenceClassification"
    run.save_model()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_bert_that_is_compiled_trains_as_any_other(tmp_path, backend):
    """A compiler that does not know the number of rows took every label for one that fits none."""
    torch._dynamo.reset()
    model, plain = torch.compile(tiny.model(), backend=backend), tiny.model()
    for one, folder in ((model, "compiled"), (plain, "plain")):
        run = trainer(one, tmp_path / folder, max_steps=6)
        run.train()
        run.save_model()
    torch.testing.assert_close(flat(model), flat(plain), rtol=0, atol=1e-6)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "compiled")


# ------------------------------------------------------------------------- several devices at once


def test_models_wrapped_for_several_devices_are_refused_before_the_first_step(tmp_path):
    for wrapped in (nn.DataParallel(tiny.model()), compiled(nn.DataParallel(tiny.model()))):
        with pytest.raises(ArgumentError, match=r"wrapped(.|\n)*\.module"):
            trainer(wrapped, tmp_path)
        with pytest.raises(ArgumentError, match="wrapped"):
            Accelerator(cpu=True).prepare(wrapped)
    with pytest.raises(ArgumentError, match="wrapped"):
        pipeline("text-classification", nn.DataParallel(tiny.model()), object(), device="cpu")


def test_a_wrapped_model_is_saved_without_its_wrapper(tmp_path):
    model = tiny.model()
    for wrapped in (nn.DataParallel(model), compiled(model), compiled(nn.DataParallel(model))):
        assert Accelerator(cpu=True).unwrap_model(wrapped) is model
        Accelerator(cpu=True).save_model(wrapped, tmp_path)
        assert names(tmp_path / "model.safetensors") == set(model.state_dict())
        assert AutoModelForSequenceClassification.from_pretrained(tmp_path)


# ------------------------------------------------------------------- tensors with names in common


class Tied(Small):
    """Two tensors that are one parameter, share memory, or are a view."""

    def __init__(self, how):
        super().__init__()
        self.mix = nn.Linear(8, 80, bias=False)
        if how == "parameter":
            self.mix.weight = self.words.weight
        elif how == "data":
            self.mix.weight.data = self.words.weight.data
        elif how == "view":
            self.register_buffer("first", self.words.weight.detach()[:4])
        elif how == "layer":
            self.again = self.mix

    def forward(self, input_ids, labels=None):
        ids = self.mix(self.words(input_ids)).argmax(-1)
        return super().forward(ids, labels)


@pytest.mark.parametrize("how", ["parameter", "data", "view", "layer"])
def test_shared_weights_are_saved_and_resumed(tmp_path, how):
    whole = trainer(Tied(how), tmp_path / "whole")
    whole.train()
    again = trainer(Tied(how), tmp_path / "whole")
    again.train(resume_from_checkpoint=tmp_path / "whole" / "checkpoint-2")
    assert torch.equal(flat(again.model), flat(whole.model))
    saved = load_file(tmp_path / "whole" / "checkpoint-4" / "model.safetensors")
    both = {"data": {"mix.weight", "words.weight"}, "view": {"first"}}.get(how, set())
    assert both <= set(saved)
    for name, tensor in model_tensors(again.model).items():
        assert torch.equal(saved[name], tensor)


def test_tensors_that_share_memory_become_copies(tmp_path):
    base = torch.arange(10.0)
    save_weights({"all": base, "some": base[2:5], "same": base.view(2, 5)}, tmp_path / "x")
    saved = load_file(tmp_path / "x")
    assert torch.equal(saved["all"], base) and torch.equal(saved["some"], base[2:5])
    assert torch.equal(saved["same"], base.view(2, 5))


# ---------------------------------------------------------------------- what could not be saved


class Counter(Small):
    """Keeps something beside its tensors, which copying tensors back would not restore."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


@pytest.mark.parametrize("state", [{"calls": 3}, torch.ones(2)], ids=["dict", "tensor"])
def test_extra_state_is_refused_before_the_first_step(tmp_path, state):
    run = trainer(Counter(state), tmp_path)
    with pytest.raises(ModelError, match="_extra_state"):
        run.train()
    assert run.state.global_step == 0 and not list(tmp_path.iterdir())
    trainer(Counter(state), None).train()  # where nothing is saved, nothing is refused


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2, dtype=torch.complex128), torch.eye(2).to_sparse()],
    ids=["complex128", "sparse"],
)
def test_a_buffer_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path, tensor):
    model = Small()
    model.register_buffer("odd", tensor)
    run = trainer(model, tmp_path)
    with pytest.raises(ModelError, match=r"odd(.|\n)*persistent=False"):
        run.train()
    assert run.state.global_step == 0
    model = Small()
    model.register_buffer("odd", tensor, persistent=False)
    trainer(model, tmp_path).train()


def test_other_buffers_are_saved_and_resumed(tmp_path):
    def model():
        one = Small()
        one.register_buffer("turns", torch.ones(3, dtype=torch.complex64))
        one.register_buffer("count", torch.tensor(7))
        one.register_buffer("wide", torch.arange(4.0).expand(1, -1))
        return one

    trainer(model(), tmp_path).train()
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert saved["count"] == 7 and saved["turns"].dtype == torch.complex64
    trainer(model(), tmp_path).train(resume_from_checkpoint=tmp_path / "checkpoint-2")
