"""Observers of gradients, and flags of plugins: minift_on_gradients, minift_add_options."""

import json
import subprocess
import sys

import pytest
import torch
from test_plugin_docs import PLUGINS
from tiny import make_model, make_rows, write_csv

from minift import AdamW, cli, hookimpl
from minift.testing import tiny


class Watch:
    """Keep the gradients, the weights and the norm of each update."""

    def __init__(self):
        self.steps, self.grads, self.norms, self.weights = [], [], [], []

    @hookimpl
    def minift_on_gradients(self, run):
        named = dict(run.model.named_parameters())
        self.steps.append(run.state.global_step)
        self.grads.append({n: p.grad.clone() for n, p in named.items() if p.grad is not None})
        self.weights.append({n: p.detach().clone() for n, p in named.items()})
        self.norms.append(float(run.losses.grad_norm))


def norm_of(grads):
    return float(torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt())


def watched(**settings):
    watch = Watch()
    trained = tiny.trainer("cpu", callbacks=[watch], **settings)
    trained.train()
    return watch, trained


def test_once_an_update_with_the_gradient_that_the_step_is_made_of():
    """Two micro-batches an update; compared with plain torch at the weights of that moment."""
    watch, _ = watched(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=0.0
    )
    assert watch.steps == [0, 1, 2, 3, 4, 5], "before the step is counted"
    for grads, norm in zip(watch.grads, watch.norms, strict=True):
        assert norm_of(grads) == pytest.approx(norm, rel=1e-5)
    whole, _ = watched(per_device_train_batch_size=4, max_grad_norm=0.0)
    for name, grad in watch.grads[0].items():
        torch.testing.assert_close(grad, whole.grads[0][name], rtol=1e-4, atol=1e-6)


def test_clipped():
    watch, _ = watched(max_grad_norm=0.01)
    assert all(norm > 0.01 for norm in watch.norms)
    for grads in watch.grads:
        assert norm_of(grads) == pytest.approx(0.01, rel=1e-3)


OPTIMIZERS = {
    "fused": lambda parameters: AdamW(parameters, lr=1e-3),
    "own": lambda parameters: AdamW(parameters, lr=1e-3, fused=False),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_the_same_to_the_bit_with_and_without(optimizer):
    results = []
    for callbacks in ([], [Watch()]):
        trained = tiny.trainer("cpu", dropout=0.1, callbacks=callbacks, max_grad_norm=0.5)
        trained.optimizer = OPTIMIZERS[optimizer](trained.model.parameters())
        trained.train()
        results.append(tiny.weights(trained))
    without, with_watch = results
    assert all(torch.equal(value, with_watch[name]) for name, value in without.items())


def test_the_step_is_made_of_what_was_seen():
    """AdamW's first step moves each weight by the learning rate against its gradient's sign."""
    watch, _ = watched(max_steps=2, lr_scheduler_type="constant", weight_decay=0.0)
    for name, grad in watch.grads[0].items():
        moved = watch.weights[1][name] - watch.weights[0][name]
        clear = grad.abs() > 1e-5
        torch.testing.assert_close(
            moved[clear], -1e-3 * grad[clear].sign(), rtol=2e-3, atol=1e-6, msg=name
        )


def test_fp16_without_its_factor():
    """The first updates overflow, and are left out; the others have gradients as in fp32."""
    watch, _ = watched(precision="fp16", max_grad_norm=0.0)
    seen = [(g, n) for g, n in zip(watch.grads, watch.norms, strict=True) if n < float("inf")]
    assert seen
    for grads, norm in seen:
        assert norm < 10 and norm_of(grads) == pytest.approx(norm, rel=1e-3)


def test_one_that_fails_is_unplugged_and_training_goes_on(capsys):
    class Broken:
        @hookimpl
        def minift_on_gradients(self, run):
            raise ValueError("a curve that does not plot")

    trained = tiny.trainer("cpu", callbacks=[Broken()])
    trained.train()
    assert trained.state.global_step == 6
    assert capsys.readouterr().err.count("a curve that does not plot") == 1


TWO = """
import json, sys
import minift

def work(path):
    from minift import hookimpl
    from minift.testing import tiny

    class Watch:
        @hookimpl
        def minift_on_gradients(self, run):
            norms.append(float(sum(p.grad.square().sum() for p in run.model.parameters()
                                   if p.grad is not None)) ** 0.5)

    norms = []
    n = minift.distributed.world_size()
    tiny.trainer("cpu", callbacks=[Watch()], per_device_train_batch_size=4 // n).train()
    with open(f"{path}/{n}-{minift.distributed.rank()}.json", "w") as file:
        json.dump(norms, file)

for n in (1, 2):
    minift.notebook_launcher(work, (sys.argv[1],), num_processes=n)
"""


@pytest.mark.slow
def test_two_processes_see_the_sum_of_both_and_process_0_alone_is_told(tmp_path):
    code = TWO.replace("import minift\n", "import minift, minift.distributed\n", 1)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    one, first, second = (
        json.loads((tmp_path / name).read_text()) for name in ("1-0.json", "2-0.json", "2-1.json")
    )
    assert len(one) == 6 and not second
    assert first == pytest.approx(one, rel=1e-4)


# ------------------------------------------------------------------------------------------ flags


@pytest.fixture
def words(tmp_path):
    """`minift train` on a few rows, as a list of words."""
    write_csv(tmp_path / "train.csv", make_rows(24))
    given = {"model": make_model(tmp_path / "model"), "train-file": tmp_path / "train.csv"}
    given |= {
        "output-dir": tmp_path / "run",
        "max-steps": 4,
        "device": "cpu",
        "save-strategy": "no",
    }
    return ["train", *(str(w) for name, value in given.items() for w in (f"--{name}", value))]


def test_the_plugin_of_the_page_prints_gradients_by_layer(tmp_path, words, capsys):
    path = tmp_path / "gradients.py"
    path.write_text(PLUGINS["gradients.py"])
    assert cli.main(["--plugin", str(path), *words, "--gradients-every", "2"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "embeddings " in line]
    assert len(lines) == 2 and " 1 " in lines[0], "updates 0 and 2, each layer by its number"
    assert cli.main(["--plugin", str(path), *words]) == 0
    assert "embeddings " not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*words, "--gradients-every", "2"])


def test_values_reach_the_run_and_failing_flags_harm_nobody(tmp_path, words, capsys):
    """A flag that minift has already is that plugin's mistake, not a crash of every command."""
    (tmp_path / "good.py").write_text(
        "from minift import hookimpl\n\n@hookimpl\ndef minift_add_options(parser):\n"
        "    parser.add_argument('--my-flag', type=float)\n\n"
        "@hookimpl\ndef minift_on_train_end(run):\n    run.log_message(f'flags {run.options}')\n"
    )
    (tmp_path / "bad.py").write_text(
        "from minift import hookimpl\n\n@hookimpl\ndef minift_add_options(parser):\n"
        "    parser.add_argument('--learning-rate')\n"
    )
    plugins = [w for name in ("good", "bad") for w in ("--plugin", str(tmp_path / f"{name}.py"))]
    assert cli.main([*plugins, *words, "--my-flag", "0.5"]) == 0
    said = capsys.readouterr().err
    assert "flags {'my_flag': 0.5}" in said
    assert "plugin bad failed in minift_add_options" in said and "--learning-rate" in said
    assert cli.main([*plugins, "tasks"]) == 0
