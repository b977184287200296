"""minift_generic: what is there and what is not, and the kit on an emulated accelerator."""

import importlib.util
from types import SimpleNamespace

import minift_generic
import pytest
import torch
from emulated import FILE, Fake, run_kit
from minift_commands.plugins import describe_devices
from minift_generic import AcceleratorDevice, Mps, Tpu, Xpu

from minift import Device, hookimpl
from minift.device import choose_device
from minift.errors import DeviceError
from minift.plugins import build_manager, registry


@pytest.mark.slow
def test_an_emulated_accelerator_passes_the_kit():
    """Its tensors are out of the host's reach; reads are counted: none between log points."""
    done = run_kit("emu")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "does not count transfers_to_host" not in done.stdout


@pytest.mark.slow
def test_the_kit_notices_a_hidden_wait(tmp_path):
    """Or the test above would prove nothing."""
    spoilt = tmp_path / "spoilt.py"
    spoilt.write_text(
        f"import sys\nsys.path.insert(0, {str(FILE.parent)!r})\n"
        "import emulated\nfrom minift import hookimpl\n"
        "class Waits(emulated.Installed):\n"
        "    def backward(self, loss_sum, last=True):\n"
        "        super().backward(loss_sum, last)\n"
        "        loss_sum.item()\n"
        "@hookimpl\ndef minift_register_devices():\n    return {'waits': Waits}\n"
    )
    done = run_kit("waits", spoilt, "-k", "nothing_leaves")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-2000:]


# ----------------------------------------------------------------------------- is it there


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setattr(torch, "get_device_module", lambda name: made)
    return made


@pytest.mark.parametrize("kind", [Tpu, Xpu, Mps])
def test_a_machine_without_one_says_why(kind):
    if kind.unavailable() is None:
        pytest.skip(f"this machine has a {kind.name}")
    manager = build_manager()
    with pytest.raises(DeviceError, match=f"{kind.name} ?.*cannot be used here") as error:
        choose_device(kind.name, manager)
    assert str(kind.unavailable()) in str(error.value)


def test_each_reason(monkeypatch, tmp_path):
    assert "torch_tpu is not installed" in Tpu.missing_requirement()
    monkeypatch.setattr(minift_generic.sys, "platform", "linux")
    assert "no machine with mps (darwin arm64)" in Mps.missing_requirement()
    monkeypatch.setattr(minift_generic, "torch_folder", lambda: tmp_path)
    assert "was built without xpu" in Xpu.missing_requirement()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libtorch_xpu.so").touch()
    monkeypatch.setattr(Xpu, "files", (str(tmp_path / "renderD*"),))
    assert "this machine shows none" in Xpu.missing_requirement()
    (tmp_path / "renderD128").touch()
    assert Xpu.missing_requirement() is None
    found = importlib.util.find_spec("json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(Tpu, "files", (str(tmp_path / "accel*"),))
    assert "this machine shows none" in Tpu.missing_requirement()


def test_torch_has_the_last_word(fake):
    """What lies on the disk is a guess; a driver that does not work is seen by torch only."""
    fake.available = False

    class Other(AcceleratorDevice):
        name = "other"

    assert "finds no other that works" in Other.unavailable()
    with pytest.raises(DeviceError, match="finds no other that works"):
        Other()
    fake.available = True
    assert Other.unavailable() is None


def test_a_type_that_torch_does_not_know():
    class Other(AcceleratorDevice):
        name = "no-such-type"

    assert "finds no no-such-type that works" in Other.unavailable()


class Refusing(Fake):
    """As torch.tpu of torch_tpu 0.2: only torch itself may call these, by `torch.accelerator`."""

    def refuse(self, *arguments):
        raise RuntimeError("internal to TorchTPU; use torch.accelerator instead")

    is_available = device_count = set_device = synchronize = get_rng_state = refuse

    def __init__(self):
        super().__init__()
        self.default_generators = (torch.Generator(),)


def test_a_backend_that_refuses_all_questions_ends_nobody_elses_run(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda name: Refusing())
    assert choose_device("cpu", build_manager()).name == "cpu"
    with pytest.raises(DeviceError, match="tpu"):
        choose_device("tpu", build_manager())
    monkeypatch.setattr(Tpu, "missing_requirement", classmethod(lambda cls: None))
    assert "use torch.accelerator instead" in Tpu.unavailable()


def test_such_a_backend_is_asked_through_torch_accelerator(monkeypatch):
    calls = []

    def answer(name, value):
        return lambda *arguments: calls.append((name, *arguments)) or value

    answers = {"is_available": True, "device_count": 2, "set_device_index": None}
    for name, value in {**answers, "synchronize": None}.items():
        monkeypatch.setattr(torch.accelerator, name, answer(name, value))
    current = SimpleNamespace(type="tpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: current)
    monkeypatch.setattr(torch, "get_device_module", lambda name: Refusing())
    monkeypatch.setattr(Tpu, "torch_device", torch.device("cpu"))
    assert Tpu.unavailable() is None
    device = Tpu("tpu:1")
    device.index = 0  # of the one generator here
    device.sync()
    assert calls[-2:] == [("set_device_index", 1), ("synchronize",)]
    assert len(device.rng_state()) > len(torch.get_rng_state())


def test_whatever_a_device_raises_is_its_reason():
    class Broken(Device):
        @classmethod
        def unavailable(cls):
            raise ImportError("libbroken.so: cannot open shared object file")

    class Plugin:
        @hookimpl
        def minift_register_devices(self):
            return {"broken": Broken}

    manager = build_manager(plugins=[Plugin()])
    assert choose_device("cpu", manager).name == "cpu"
    with pytest.raises(DeviceError, match=r"ImportError: libbroken\.so"):
        choose_device("broken", manager)
    listed = describe_devices(registry(manager, "minift_register_devices"))
    (reason,) = (one["unavailable"] for one in listed if one["name"] == "broken")
    assert reason.startswith("ImportError: libbroken.so")


@pytest.mark.parametrize("spec", ["xpu:2", "xpu:-1", "xpu:one"])
def test_a_device_that_the_machine_does_not_have(fake, spec):
    fake.count = 2
    with pytest.raises(DeviceError, match=f"there is no {spec}") as error:
        Xpu(spec)
    assert "xpu:0, xpu:1" in str(error.value)


def test_which_device_is_taken(fake, monkeypatch):
    fake.count = 2
    assert (Xpu("xpu:1").index, fake.chosen) == (1, 1)
    assert Xpu("xpu").torch_device == torch.device("xpu:0")
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Xpu("xpu").index == 1
    with pytest.raises(DeviceError, match="a device of its own"):
        Xpu("xpu:0")
    fake.count = 1
    with pytest.raises(DeviceError, match="as many processes as the machine has"):
        Xpu("xpu")


# -------------------------------------------------------------------------- what it does


def test_one_batch_is_ahead_in_the_loaders_order(fake, monkeypatch):
    monkeypatch.setattr(Xpu, "torch_device", torch.device("cpu"))
    asked = []

    def loader():
        for i in range(3):
            asked.append(i)
            yield {"input_ids": torch.full((1, 2), i)}

    stream = Xpu().batches(loader())
    assert asked == []
    for number, ahead in [(0, 2), (1, 3), (2, 3)]:
        assert next(stream)["input_ids"].tolist() == [[number] * 2]
        assert len(asked) == ahead
    assert next(stream, None) is None


def test_precisions_and_memory(fake):
    device = Xpu()
    assert device.precisions() == {
        "fp32": None,
        "bf16": "torch.xpu does not say whether bf16 is native",
    }
    fake.is_bf16_supported = lambda including_emulation: including_emulation
    assert "not compute bf16 natively" in device.precisions()["bf16"]
    fake.is_bf16_supported = lambda including_emulation: True
    assert device.precisions() == {"fp32": None, "bf16": None}
    assert device.memory() == {"allocated": 7, "peak": 9}
    device.sync()
    assert fake.calls == ["synchronize"]


def test_both_generators_are_seeded_and_restored(fake):
    """That of the device and, for what a module draws on the host, torch's own."""
    device = Xpu()
    device.seed(5)
    assert fake.calls == [("seed", 5)] and torch.initial_seed() == 5
    saved, first = device.rng_state(), torch.rand(3)
    fake.state = torch.zeros(16, dtype=torch.uint8)
    device.set_rng_state(saved)
    assert torch.equal(torch.rand(3), first)
    assert fake.state.tolist() == list(range(16))
