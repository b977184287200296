"""Every test has a cache of its own, and no plugin manager left over from another test."""

import os

# Tiny models gain nothing from threads, and processes that share two cores lose much by them. Set
# before torch is imported, here and in every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test reaches the real Hub, or a token of who runs it: this port refuses at once. The library
# reads these when it is imported.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_TOKEN_PATH"] = os.devnull
os.environ |= dict.fromkeys(["HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"], "1")
os.environ.pop("HF_TOKEN", None)
os.environ.pop("HUGGING_FACE_HUB_TOKEN", None)
os.environ.pop("HF_HUB_CACHE", None)

import pytest

from minift import plugins


@pytest.fixture(scope="session", autouse=True)
def cache_for_wider_fixtures(tmp_path_factory):
    """Fixtures that several tests share run before a test's own cache is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """The cache folder of this test; subprocesses inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINIFT_CACHE", str(folder))
    yield folder
    plugins.set_default_manager(None)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on loopback, and an empty cache of downloads."""
    import huggingface_hub.constants
    from fake_hub import FakeHub

    server = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield server
    server.close()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """{name: {revision: folder}}: small data sets in the schemas of the real ones."""
    from hub_repositories import write_repositories

    return write_repositories(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The number of calls of `tiny.count`, in whatever process.

    The path is no part of a function's meaning, so it travels in the environment.
    """
    path = tmp_path / "calls"
    path.touch()
    monkeypatch.setenv("TEST_CALLS", str(path))
    return lambda: len(path.read_text().splitlines())
