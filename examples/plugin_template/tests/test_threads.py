"""minift's tests for devices, and what this device adds."""

import subprocess
import sys

import pytest
import torch
from minift_threads import ThreadsDevice

from minift import MiniftError


def test_it_passes_minifts_own_tests():
    words = ["--pyargs", "minift.testing", "--device", "threads"]
    assert subprocess.run([sys.executable, "-m", "pytest", *words]).returncode == 0


def test_as_many_threads_as_were_asked_for():
    ThreadsDevice("threads:2").prepare(torch.nn.Linear(1, 1))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("spec", ["threads:0", "threads:many"])
def test_no_number_of_threads(spec):
    with pytest.raises(MiniftError, match="number of threads"):
        ThreadsDevice(spec)
