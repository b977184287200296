"""The kits' fixtures: the plugins, and the names that were asked for."""

import os

# Tiny models gain nothing from threads. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from minift import Device, hookimpl, plugins
from minift.device import choose_device

REFERENCE = "reference"  # the name under which a Trainer finds the base class


class ReferencePlugin:
    """Gives the base class a name, so that runs on it can be compared with the device's."""

    @hookimpl
    def minift_register_devices(self):
        return {REFERENCE: Device}


@pytest.fixture(scope="session")
def manager(request):
    """All installed plugins, the files of --minift-plugin, loaded once, and the reference."""
    files = request.config.getoption("--minift-plugin", default=[])
    words = plugins.selection_from_environment()
    return plugins.build_manager(words, files, [ReferencePlugin()])


@pytest.fixture(autouse=True, scope="module")
def default_manager(manager):
    """Make it the one that every function uses, as long as the kits' tests run."""
    plugins.set_default_manager(manager)
    yield
    plugins.set_default_manager(None)


def asked_for(request: pytest.FixtureRequest, option: str) -> str:
    """An option's value; without one the test is skipped, and says why."""
    name = request.config.getoption(option, default=None)
    if name is None:
        pytest.skip(f"pass {option} NAME to run this part of minift's kits")
    return str(name)


@pytest.fixture
def name(request):
    """The device's name."""
    return asked_for(request, "--device")


@pytest.fixture
def device(name, manager):
    """The device, as a Trainer gets it."""
    return choose_device(name, manager)


@pytest.fixture
def dataset_name(request):
    return asked_for(request, "--dataset-name")


@pytest.fixture
def checkpoint_name(request):
    return asked_for(request, "--checkpoint-name")
