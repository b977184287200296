"""A mapped function that draws random numbers: each batch has streams of its own."""

import random
import subprocess
import sys
from functools import partial
from textwrap import dedent

import numpy as np
import pytest
import torch

from minift import Dataset, DatasetDict, set_seed

ROWS = Dataset.from_dict({"x": list(range(200))})
NEW = {"load_from_cache_file": False}
GENERATOR, OLD = np.random.default_rng(7), np.random.RandomState(7)
PYTHON, TORCH = random.Random(7), torch.Generator().manual_seed(7)


def from_numpy(batch):
    return {"y": np.random.rand(len(batch["x"]))}


def from_python(batch):
    return {"y": [random.random() for _ in batch["x"]]}


def from_torch(batch):
    import torch  # a fresh worker has not loaded it before its first batch

    return {"y": torch.rand(len(batch["x"])).tolist()}


def from_all(batch):
    n = len(batch["x"])
    return {"y": np.random.rand(n) + random.random() + torch.rand(n).numpy()}


def from_a_generator(batch):
    return {"y": GENERATOR.random(len(batch["x"]))}


def from_several(batch, generator=PYTHON):
    n = len(batch["x"])
    y = OLD.rand(n) + torch.rand(n, generator=TORCH).numpy() + generator.random()
    return {"y": y + GENERATOR.random(n)}


class Augment:
    """Keeps its generator, as augmenters do."""

    def __init__(self):
        self.generator = np.random.default_rng(3)

    def __call__(self, batch):
        return {"y": self.generator.random(len(batch["x"]))}


def closure():
    generator = np.random.default_rng(5)
    return lambda batch: {"y": generator.random(len(batch["x"]))}


FUNCTIONS = {
    "numpy": from_numpy,
    "Python": from_python,
    "torch": from_torch,
    "all three": from_all,
    "a generator": from_a_generator,
    "several generators": from_several,
    "an object's generator": Augment(),
    "a closure's generator": closure(),
    "an argument of a partial": partial(from_several, generator=random.Random(8)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFT_CACHE", str(tmp_path))


def mapped(function, **options):
    return np.array(ROWS.map(function, batched=True, batch_size=10, **NEW, **options)["y"][:])


def by_two_workers(function):
    """Return the result of workers, and of this process: a rank is something only workers have."""

    def with_rank(batch, rank):
        return function(batch)

    return [mapped(with_rank, with_rank=True, num_proc=n) for n in (2, None)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_numbers_do_not_depend_on_what_was_drawn_before(name):
    function = FUNCTIONS[name]
    once = mapped(function)
    set_seed(99)
    np.random.rand(3)
    np.testing.assert_array_equal(mapped(function), once)
    np.testing.assert_array_equal(mapped(function, num_proc=2), once)
    assert len(np.unique(once)) > 150  # no two batches, and no two rows, have the same draws


def test_the_numbers_do_not_depend_on_who_computes_them():
    np.testing.assert_array_equal(*by_two_workers(from_several))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_kind_of_numbers_does_not_depend_on_who_computes_them(name):
    np.testing.assert_array_equal(*by_two_workers(FUNCTIONS[name]))


def test_rows_one_by_one_and_filters():
    def row(row):
        return {"y": random.random()}

    def keep(row):
        return np.random.rand() < 0.5

    one, two = ROWS.map(row, **NEW), ROWS.map(row, num_proc=2, **NEW)
    assert one["y"][:] == two["y"][:] and len(set(one["y"])) == len(ROWS)
    kept = ROWS.filter(keep, **NEW)["x"][:]
    assert kept == ROWS.filter(keep, num_proc=2, **NEW)["x"][:] and 60 < len(kept) < 140


def test_the_callers_generators_are_as_they_were():
    def states():
        return repr((
            random.getstate(), np.random.get_state(), torch.get_rng_state().tolist(),
            GENERATOR.bit_generator.state, OLD.get_state(), PYTHON.getstate(),
            TORCH.get_state().tolist(),
        ))  # fmt: skip

    def fails(batch):
        from_all(batch), from_several(batch)
        raise ValueError("no")

    before = states()
    for function in FUNCTIONS.values():
        mapped(function)
    with pytest.raises(ValueError, match="no"):
        mapped(fails)
    assert states() == before


def test_other_data_other_functions_and_other_splits_have_other_numbers():
    def also_from_numpy(batch):
        return {"y": np.random.rand(len(batch["x"])), "z": batch["x"]}

    def seeded(batch, seed):
        return {"y": np.random.rand(len(batch["x"])), "seed": [seed] * len(batch["x"])}

    other = Dataset.from_dict({"x": list(range(1, 201))})
    results = [mapped(from_numpy), mapped(also_from_numpy)]
    results += [mapped(seeded, fn_kwargs={"seed": seed}) for seed in (1, 2)]
    splits = DatasetDict(train=ROWS, test=other).map(from_numpy, batched=True, batch_size=10)
    results.append(np.array(splits["test"]["y"][:]))
    np.testing.assert_array_equal(splits["train"]["y"][:], results[0])
    for i, one in enumerate(results):
        assert all(not np.array_equal(one, two) for two in results[i + 1 :])


def test_a_function_without_a_digest_and_a_result_in_memory():
    lock = __import__("threading").Lock()

    def odd(batch):
        return {"y": np.random.rand(len(batch["x"])), "z": [lock is None] * len(batch["x"])}

    with pytest.warns(UserWarning, match="not kept"):
        one, two = mapped(odd), mapped(odd)
    np.testing.assert_array_equal(one, two)
    memory = mapped(from_numpy, keep_in_memory=True)
    np.testing.assert_array_equal(mapped(from_numpy), memory)


def test_a_map_that_was_interrupted_goes_on_with_the_same_numbers():
    whole = mapped(from_several)

    class Interrupted(Exception):
        pass

    def draw(batch):
        if stop and batch["x"][0] >= 100:
            raise Interrupted
        return {"y": GENERATOR.random(len(batch["x"])) + np.random.rand()}

    fingerprint = {"cache_key": "interrupted", "batched": True, "batch_size": 10}
    stop = True
    with pytest.raises(Interrupted) as caught:
        ROWS.map(draw, **fingerprint)
    assert "shards are kept" in str(caught.value.__notes__)
    stop = False
    gone_on = ROWS.map(draw, **fingerprint, num_proc=2)["y"][:]
    again = ROWS.map(draw, **fingerprint, **NEW)["y"][:]
    assert gone_on == again
    np.testing.assert_array_equal(mapped(from_several), whole)


def test_a_system_generator_stays_random():
    system = random.SystemRandom()
    one, two = (mapped(lambda batch: {"y": [system.random() for _ in batch["x"]]}) for _ in "ab")
    assert not np.array_equal(one, two)


def test_mapping_alone_does_not_load_torch():
    code = """
        import sys
        from minift import Dataset
        rows = Dataset.from_dict({"x": list(range(30))})
        rows.map(lambda batch: {"y": batch["x"]}, batched=True, load_from_cache_file=False)
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True)


@pytest.mark.slow
def test_torch_that_only_the_function_loads():
    """The serial map has not loaded torch before its first batch, and workers have not either."""
    code = """
        from minift import Dataset
        def draw(batch):
            import torch
            return {"y": torch.rand(len(batch["x"])).tolist()}
        rows = Dataset.from_dict({"x": list(range(200))})
        for procs in (2, None):
            options = {"num_proc": procs, "load_from_cache_file": False}
            print(rows.map(draw, batched=True, batch_size=10, **options)["y"][:])
    """
    answer = subprocess.run(
        [sys.executable, "-c", dedent(code)], check=True, capture_output=True, text=True
    )
    one, two = answer.stdout.splitlines()
    assert one == two
