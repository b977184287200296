"""A function by what it runs and reads: its bytecode, defaults, closure, and the globals it names.

Which names code reads is seen in its bytecode, whose instructions differ between versions of
Python. OPCODES lists those that take a name, in the versions that this was verified with; for a
version or an instruction that is not listed, reading something unseen could give two functions one
digest, so there is none.
"""

import builtins
import contextlib
import dis
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minift.errors import MiniftError

MINIFT = Path(__file__).resolve().parents[2]  # counts by its version, like any library
GLOBAL, ATTRIBUTE, IMPORT, NO_READ = "global", "attribute", "import", "no read"
# What each instruction that takes a name does with it, in those versions of Python.
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
OPCODES = {
    **dict.fromkeys(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"), GLOBAL),
    **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"), ATTRIBUTE),
    "IMPORT_NAME": IMPORT,
    **dict.fromkeys(("IMPORT_FROM", "STORE_NAME", "STORE_GLOBAL", "STORE_ATTR"), NO_READ),
    **dict.fromkeys(("DELETE_NAME", "DELETE_GLOBAL", "DELETE_ATTR"), NO_READ),
}


class Unhashable(MiniftError, TypeError):
    """A value that has no content to digest."""

    def __init__(self, what: str, got: object = None) -> None:
        super().__init__(what, got=got, do="pass cache_key='...' to name the result yourself")


@dataclass
class NamesRead:
    """What code reads from outside of itself.

    Attributes:
        names: globals.
        whole: those of them that are used other than by `name.attribute`.
        attributes: whatever follows a dot, of anything.
        imports: modules that it imports when it runs, as it names them ("..helpers").
    """

    names: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class PartOfModule:
    """A module of which code reads only these attributes, if it has them."""

    module: types.ModuleType
    attributes: set[str]


def names_read(code: types.CodeType) -> NamesRead:
    """Return what the code, and the code inside it, reads.

    Raises:
        Unhashable: an instruction is not in OPCODES, or this version of Python not in VERSIONS.
    """
    read, version = NamesRead(), sys.version_info[:2]
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for i, step in enumerate(steps):
        effect = OPCODES.get(step.opname) if step.opcode in dis.hasname else NO_READ
        if effect is None or version not in VERSIONS:
            problem = f"cannot fingerprint {code.co_name!r}: minift does not know what it reads"
            raise Unhashable(problem, f"{step.opname} of Python {'.'.join(map(str, version))}")
        if effect == GLOBAL:
            read.names.add(step.argval)
            if OPCODES.get(steps[i + 1].opname) != ATTRIBUTE:  # no code ends with a load
                read.whole.add(step.argval)
        elif effect == ATTRIBUTE:
            read.attributes.add(step.argval)
        elif effect == IMPORT:
            level, names = steps[i - 2].argval, steps[i - 1].argval or ()  # two constants
            module = "." * level + step.argval
            dot = "." if step.argval else ""
            read.imports.update([module, *(f"{module}{dot}{name}" for name in names)])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_read(constant)
            for outer_set, inner_set in zip(vars(read).values(), vars(inner).values(), strict=True):
                outer_set |= inner_set
    return read


def code_content(code: types.CodeType) -> tuple[Any, ...]:
    """Return what runs; not where it stands (lines, file) nor what its local variables are called.

    Bytecode means something only to its own version of Python.
    """
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    content = (code.co_code, code.co_consts, code.co_names, code.co_exceptiontable, code.co_flags)
    return (*content, arguments, sys.version_info[:2])


def library_function(function: types.FunctionType) -> bytes | None:
    """Return the name and the library's version for a function of an installed library.

    None for closures, and for wrappers that took over a library's name: these are more than that.
    """
    version, file = library(function.__module__), function.__code__.co_filename
    if not version or "<" in function.__qualname__ or not is_installed(file):
        return None
    return join(f"{function.__module__}.{function.__qualname__}".encode(), version)


def function_digest(
    function: types.FunctionType, path: str, digest: Callable[[Any, str], bytes]
) -> bytes:
    """Digest a function of the user's.

    Args:
        function: its code may never have run.
        path: the place where it was found. What it reads is at "function -> global 'name'".
        digest: digests any value that was found at a path.
    """
    name = function.__qualname__.rpartition("<locals>.")[2]
    path = " -> ".join([*path.split(" -> ")[:-1], name])
    parts = [digest(function.__code__, path)]
    for attribute in ("__defaults__", "__kwdefaults__", "__dict__"):
        content = getattr(function, attribute)
        parts.append(digest(content, f"{path} -> {attribute}") if content else b"")
    cells = function.__closure__ or ()
    for variable, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            parts.append(b"empty")
        else:
            parts.append(digest(content, f"{path} -> closure {variable!r}"))
    read, scope = names_read(function.__code__), function.__globals__
    for variable in sorted(read.names):
        if variable not in scope:
            parts.append(variable.encode() if hasattr(builtins, variable) else b"undefined")
            continue
        value = scope[variable]
        if isinstance(value, types.ModuleType) and variable not in read.whole:
            value = PartOfModule(value, read.attributes)
        parts += [variable.encode(), digest(value, f"{path} -> global {variable!r}")]
    if read.imports:
        parts.append(source_digest(absolute_names(read.imports, scope.get("__package__") or "")))
    return join(*parts)


# ------------------------------------------------------------------------------ whose a module is


def join(*parts: bytes) -> bytes:
    """Return a digest of digests; each has its length before it, so that none run together."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


@functools.cache
def is_installed(file: str) -> bool:
    """Return whether a file belongs to Python, to an installed distribution or to minift."""
    if file in ("built-in", "frozen") or file.startswith("<frozen"):
        return True
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    standard = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    return any(path.is_relative_to(folder) for folder in (*standard, MINIFT))


@functools.cache
def library(module: str | None) -> bytes | None:
    """Return name and version of an installed module, None for the user's own code."""
    top = (module or "__main__").partition(".")[0]
    loaded, spec = sys.modules.get(top), find_spec(top)
    file = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
    folders = list(getattr(spec, "submodule_search_locations", None) or ())  # of a namespace
    places = [file] if file else folders
    if top == "__main__" or not places or not all(map(is_installed, places)):
        return None
    return f"{top} {version(top)}".encode()


def version(top: str) -> str:
    """Return the version of the distribution that holds a module, whether it is loaded or not."""
    if top in sys.stdlib_module_names:
        return str(sys.version_info[:3])
    if top == "minift":
        return sys.modules[top].__version__
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, ())
        return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in sorted(set(names)))


def find_spec(name: str) -> Any:
    """Return where a module is, without running it; None if there is none."""
    parent = name.rpartition(".")[0]
    if parent and not getattr(find_spec(parent), "submodule_search_locations", None):
        return None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def absolute_names(names: Iterable[str], package: str) -> list[str]:
    """Return the full names of modules such as `..helpers` as one of the package imports them."""
    full = []
    for name in names:
        try:
            full.append(importlib.util.resolve_name(name, package))
        except ImportError:
            full.append(name.lstrip("."))
    return full


def source_digest(names: Iterable[str]) -> bytes:
    """Digest modules that a function imports when it runs: their files, and those they import.

    They may not be loaded yet, so there is only their source, in which a comment matters too.
    """
    contents: dict[str, bytes] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if not name or name in contents:
            continue
        known = library(name)
        spec: Any = None if known else find_spec(name)
        origin = getattr(spec, "origin", None)
        contents[name] = known or (Path(origin).read_bytes() if origin else b"")
        waiting.append(name.rpartition(".")[0])
        if origin and origin.endswith(".py"):
            package = name if spec.submodule_search_locations else name.rpartition(".")[0]
            with contextlib.suppress(SyntaxError, ValueError):
                read = names_read(compile(contents[name], origin, "exec", dont_inherit=True))
                waiting += absolute_names(read.imports, package)
    return join(*(part for name in sorted(contents) for part in (name.encode(), contents[name])))
