"""A stable digest of any value, and of any function by what it does.

`map` reuses a result when the fingerprint of (input, function, arguments) is known, so two rules
hold. A digest that stays equal must mean an equal result: functions are digested by value and
transitively, with the helpers and globals that they read, wherever these are defined, unless they
belong to an installed library, which counts by name and version. And a digest should not change
without a reason: comments, blank lines, moved lines, the hash seed and the process do not matter.
Where a value has no content that could be digested (a lock, a socket), `Unhashable` names the path
to it; the caller then computes and keeps nothing. When in doubt, recompute.
"""

import builtins
import dis
import enum
import functools
import hashlib
import importlib.util
import re
import struct
import sys
import sysconfig
import types
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from minift.errors import MiniftError

BY_NAME = ("minift", "minift_")  # our own code counts by its version, like any library


class Unhashable(MiniftError, TypeError):
    """A value that has no content to digest."""


def fingerprint(*values: Any) -> str:
    """32 hexadecimal digits for the values, equal in every process.

    Raises:
        Unhashable: names the path to the value that cannot be digested.
    """
    return _Walk().digest(values, "").hex()


def join(*parts: bytes) -> bytes:
    """A digest of digests; each part is preceded by its length, so parts cannot run together."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


class _Walk:
    """One walk over a value. `open` holds what is being digested now, so that cycles end."""

    def __init__(self) -> None:
        self.open: dict[int, int] = {}

    def digest(self, value: Any, path: str) -> bytes:
        simple = digest_scalar(value)
        if simple is not None:
            return simple
        if id(value) in self.open:  # a cycle: how far up is all that there is to say
            return join(b"cycle", str(len(self.open) - self.open[id(value)]).encode())
        self.open[id(value)] = len(self.open)
        try:
            kind = type(value)
            return join(f"{kind.__module__}.{kind.__qualname__}".encode(), self.parts(value, path))
        finally:
            del self.open[id(value)]

    def parts(self, value: Any, path: str) -> bytes:
        match value:
            case list() | tuple() if type(value) in (list, tuple):
                return join(*(self.digest(v, f"{path}[{i}]") for i, v in enumerate(value)))
            case dict() if type(value) is dict:
                return self.pairs(value, path)
            case set() | frozenset():
                return join(*sorted(self.digest(v, f"{path}{{}}") for v in value))
            case types.FunctionType():
                return self.function(value, path)
            case types.CodeType():
                return self.code(value, path)
            case types.MethodType():
                return join(
                    self.digest(value.__func__, path), self.digest(value.__self__, f"{path}.self")
                )
            case types.BuiltinFunctionType():
                owner = value.__self__
                named = f"{value.__module__}.{value.__qualname__}".encode()
                if owner is None or isinstance(owner, types.ModuleType):
                    return named
                return join(named, self.digest(owner, f"{path}.self"))
            case functools.partial():
                return self.digest((value.func, value.args, sorted(value.keywords.items())), path)
            case types.ModuleType():
                return library(value.__name__) or value.__name__.encode()
            case type():
                return self.class_(value, path)
            case np.ndarray() if value.dtype != object:
                head = f"{value.dtype.str}{value.shape}".encode()
                return join(head, np.ascontiguousarray(value).tobytes())
            case pa.Table():
                return table_digest(value)
        return self.instance(value, path)

    def pairs(self, value: dict[Any, Any], path: str) -> bytes:
        """A dict in its own order, which can matter (the order of labels)."""
        parts = []
        for key, item in value.items():
            parts += [self.digest(key, path), self.digest(item, f"{path}[{key!r}]")]
        return join(*parts)

    def function(self, function: types.FunctionType, path: str) -> bytes:
        name = f"{function.__module__}.{function.__qualname__}".encode()
        known = library(function.__module__)
        if known and "<" not in function.__qualname__:  # not a closure, so its name says it all
            return join(name, known)
        cells = function.__closure__ or ()
        parts = [
            self.digest(function.__code__, path),
            self.digest(function.__defaults__, f"{path}.__defaults__"),
            self.digest(sorted((function.__kwdefaults__ or {}).items()), f"{path}.__kwdefaults__"),
        ]
        for variable, cell in zip(function.__code__.co_freevars, cells, strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                parts.append(b"empty")
                continue
            parts.append(self.digest(content, f"{path} -> closure {variable!r}"))
        parts.append(self.names_read(function.__code__, function.__globals__, path))
        return join(*parts)

    def names_read(self, code: types.CodeType, scope: dict[str, Any], path: str) -> bytes:
        """The values of the globals that the code reads, nested functions included."""
        names, attributes, imports = read_names(code)
        parts = []
        for name in sorted(names):
            if name not in scope:
                parts.append(name.encode() if hasattr(builtins, name) else b"undefined")
                continue
            value, where = scope[name], f"{path} -> global {name!r}"
            parts += [name.encode(), self.digest(value, where)]
            if isinstance(value, types.ModuleType) and not library(value.__name__):
                for attribute in sorted(attributes & set(vars(value))):
                    parts.append(self.digest(vars(value)[attribute], f"{where}.{attribute}"))
        for name in sorted(imports):  # `import helpers` inside the function
            parts.append(library(name) or module_bytes(name))
        return join(*parts)

    def code(self, code: types.CodeType, path: str) -> bytes:
        """What runs; not where it stands (line numbers, file) nor what locals are called."""
        arguments = code.co_argcount + code.co_kwonlyargcount
        said = (
            code.co_code,
            code.co_consts,
            code.co_names,
            code.co_varnames[:arguments],
            code.co_freevars,
            code.co_flags,
            getattr(code, "co_exceptiontable", b""),
            sys.version_info[:2],
        )
        return self.digest(said, path)

    def class_(self, class_: type, path: str) -> bytes:
        name = f"{class_.__module__}.{class_.__qualname__}".encode()
        known = library(class_.__module__)
        if known:
            return join(name, known)
        skip = {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__"}
        members = [
            (key, value.fget if isinstance(value, property) else getattr(value, "__func__", value))
            for key, value in sorted(vars(class_).items())
            if key not in skip and not isinstance(value, types.GetSetDescriptorType)
        ]
        parts = [self.digest(base, path) for base in class_.__bases__]
        parts += [join(k.encode(), self.digest(v, f"{path}.{k}")) for k, v in members]
        return join(name, *parts)

    def instance(self, value: Any, path: str) -> bytes:
        """Anything else: its own word, its bytes, or the parts that copying it would need."""
        own = getattr(value, "__fingerprint__", None)
        if own is not None:
            return str(own()).encode()
        if isinstance(value, enum.Enum):
            return join(self.digest(type(value), path), value.name.encode())
        if isinstance(value, PurePath | re.Pattern | np.dtype):
            return repr(value).encode()
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return join(f"{value.dtype}{tuple(value.shape)}".encode(), raw.numpy().tobytes())
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # pickling is how an object says that it has no content
            raise Unhashable(
                f"cannot fingerprint {type(value).__qualname__!r} at {path.strip(' ->') or 'top'}",
                do="pass cache_key='...' to name the result yourself",
            ) from None
        if isinstance(reduced, str):
            return join(reduced.encode(), self.digest(type(value), path))
        callable_, arguments, *rest = reduced
        state = rest[0] if rest else None
        if isinstance(state, dict):
            state = dict(sorted(state.items(), key=lambda item: str(item[0])))
        extra = [list(part) for part in rest[1:3] if part is not None]
        return join(
            *(self.digest(part, path) for part in (callable_, arguments)),
            self.digest(state, f"{path}.{type(value).__name__}"),
            self.digest(extra, path),
        )


def digest_scalar(value: Any) -> bytes | None:
    """The plain types; 1, True and 1.0 are three different values."""
    kind = type(value)
    if kind in (int, bool, type(None), complex, type(Ellipsis)):
        return join(kind.__name__.encode(), repr(value).encode())
    if kind is str:
        return join(b"str", value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return join(b"bytes", value)
    if kind is float:
        return join(b"float", struct.pack("<d", value))
    return None


def read_names(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """(globals read, attributes read, modules imported) by the code and the code inside it."""
    names, attributes, imports = set(), set(), set()
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(name)
        elif operation in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(name)
        elif operation == "IMPORT_NAME":
            imports.add(name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = read_names(constant)
            names, attributes, imports = names | inner[0], attributes | inner[1], imports | inner[2]
    return names, attributes, imports


@functools.cache
def library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(
        Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")
    )


@functools.cache
def library(module: str | None) -> bytes | None:
    """Name and version of an installed module; None for the user's own code."""
    top = (module or "__main__").partition(".")[0]
    loaded = sys.modules.get(top)
    version = f"{top} {getattr(loaded, '__version__', sys.version_info[:3])}".encode()
    if top == "__main__":
        return None
    if top == BY_NAME[0] or top.startswith(BY_NAME[1]):
        import minift

        return f"{top} {minift.__version__}".encode()
    file = getattr(loaded, "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec else None
        if file in (None, "built-in", "frozen"):
            return version if spec and (spec.origin or spec.loader) else None
    path = Path(file).resolve()
    return version if any(path.is_relative_to(folder) for folder in library_folders()) else None


def module_bytes(name: str) -> bytes:
    """The source of a user's module that a function imports when it runs."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return name.encode()
    return Path(spec.origin).read_bytes()


def table_digest(table: pa.Table) -> bytes:
    """The content of a table, whatever its chunks: the IPC stream has no slack bytes."""
    hasher = hashlib.blake2b(digest_size=16)

    class Sink:
        closed = False

        def write(self, data: Any) -> int:
            hasher.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    whole = table.combine_chunks()
    with pa.PythonFile(Sink(), mode="w") as file, pa.ipc.new_stream(file, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=65536)
    return hasher.digest()
