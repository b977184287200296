"""A function by what it runs and reads: its bytecode, defaults, closure, and the globals it names.

Which names code reads is seen in its bytecode, whose instructions differ between versions of
Python. OPCODES lists those that take a name, for each version that this was verified with; for a
version or an instruction that is not listed, reading something unseen could give two functions one
digest, so there is none.
"""

import builtins
import dis
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minift.data.fingerprint.modules import (
    absolute_name,
    is_installed,
    join,
    library,
    source_digest,
)
from minift.errors import MiniftError

GLOBAL, ATTRIBUTE, IMPORT, NO_READ = "global", "attribute", "import", "no read"
PYTHON_3_11 = {
    **dict.fromkeys(("LOAD_GLOBAL", "LOAD_NAME"), GLOBAL),
    **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD"), ATTRIBUTE),
    "IMPORT_NAME": IMPORT,
    **dict.fromkeys(("IMPORT_FROM", "STORE_NAME", "STORE_GLOBAL", "STORE_ATTR"), NO_READ),
    **dict.fromkeys(("DELETE_NAME", "DELETE_GLOBAL", "DELETE_ATTR"), NO_READ),
}
PYTHON_3_12 = {**PYTHON_3_11, "LOAD_FROM_DICT_OR_GLOBALS": GLOBAL, "LOAD_SUPER_ATTR": ATTRIBUTE}
# What each instruction that takes a name does with it.
OPCODES = {(3, 11): PYTHON_3_11, **dict.fromkeys([(3, 12), (3, 13), (3, 14)], PYTHON_3_12)}


class Unhashable(MiniftError, TypeError):
    """A value that has no content to digest."""


@dataclass
class NamesRead:
    """What code reads from outside of itself.

    Attributes:
        names: globals.
        whole: those of them that are used other than by `name.attribute`.
        attributes: whatever follows a dot, of anything.
        imports: (level, name) of the modules that it imports when it runs.
    """

    names: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    imports: set[tuple[int, str]] = field(default_factory=set)


@dataclass(frozen=True)
class PartOfModule:
    """A module of which code reads only these attributes, if it has them."""

    module: types.ModuleType
    attributes: set[str]


def names_read(code: types.CodeType) -> NamesRead:
    """Return what the code, and the code inside it, reads.

    Raises:
        Unhashable: an instruction, or this version of Python, is not in OPCODES.
    """
    read, known = NamesRead(), OPCODES.get(sys.version_info[:2], {})
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for i, step in enumerate(steps):
        effect = known.get(step.opname) if step.opcode in dis.hasname else NO_READ
        if effect is None or not known:
            version = ".".join(map(str, sys.version_info[:2]))
            raise Unhashable(
                f"cannot fingerprint {code.co_name!r}: minift does not know what it reads",
                got=f"the instruction {step.opname} of Python {version}",
                do="pass cache_key='...' to name the result yourself",
            )
        if effect == GLOBAL:
            read.names.add(step.argval)
            following = steps[i + 1].opname if i + 1 < len(steps) else ""
            if known.get(following) != ATTRIBUTE:
                read.whole.add(step.argval)
        elif effect == ATTRIBUTE:
            read.attributes.add(step.argval)
        elif effect == IMPORT:
            level, names = steps[i - 2].argval, steps[i - 1].argval or ()  # two constants
            read.imports.add((level, step.argval))
            dot = "." if step.argval else ""
            read.imports.update((level, f"{step.argval}{dot}{name}") for name in names)
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
    package = scope.get("__package__") or ""
    imported = [absolute_name("." * level + name, package) for level, name in read.imports]
    if imported:
        parts.append(source_digest(imported))
    return join(*parts)
