"""A stable digest of any value, and of any function by what it does.

`map` reuses a result when the fingerprint of (input, function, arguments) is known, so two rules
hold. A digest that stays equal must mean an equal result: functions are digested by value and
transitively, with the helpers and globals that they read, wherever these are defined, unless they
belong to an installed library, which counts by name and version. And a digest should not change
without a reason: comments, blank lines, moved lines, the hash seed and the process do not matter.
Where a value has no content that could be digested (a lock, a socket), `Unhashable` names the path
to it; the caller then computes and keeps nothing. When in doubt, recompute.
"""

import ast
import builtins
import copyreg
import dis
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import re
import struct
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.errors import MiniftError

OURS = Path(__file__).resolve().parents[1]  # counts by its version, like any library


# What vars(class) holds beside what was written in the class.
NO_CONTENT = {"__dict__", "__weakref__", "__module__", "__qualname__", "_abc_impl"}
NO_CONTENT |= {"__firstlineno__", "__static_attributes__"}
DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)


class Unhashable(MiniftError, TypeError):
    """A value that has no content to digest."""


def fingerprint(*values: Any) -> str:
    """32 hexadecimal digits for the values, equal in every process.

    Raises:
        Unhashable: names the path to the value that cannot be digested.
    """
    walk = _Walk()
    try:
        return join(*(walk.digest(value, "") for value in values)).hex()
    except RecursionError:
        raise Unhashable("a value is nested too deeply to be fingerprinted") from None


def join(*parts: bytes) -> bytes:
    """A digest of digests; each part is preceded by its length, so parts cannot run together."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


class _Walk:
    """One walk over a value.

    `open` holds the containers that are being digested now, so that cycles end. `seen` numbers the
    functions, classes and objects in the order of meeting them; a second meeting is "the n-th", so
    that a net of helpers that call each other is walked once and not along each of its paths.
    """

    def __init__(self, outer: "_Walk | None" = None) -> None:
        self.open: dict[int, int] = dict(outer.open) if outer else {}
        self.seen: dict[int, tuple[int, Any]] = dict(outer.seen) if outer else {}

    def digest(self, value: Any, path: str) -> bytes:
        simple = digest_scalar(value)
        if simple is not None:
            return simple
        if id(value) in self.open:  # a cycle: how far up is all that there is to say
            return join(b"cycle", str(len(self.open) - self.open[id(value)]).encode())
        contains = type(value) in (list, tuple, dict)
        if contains:
            self.open[id(value)] = len(self.open)
        try:
            kind = type(value)
            return join(f"{kind.__module__}.{kind.__qualname__}".encode(), self.parts(value, path))
        finally:
            if contains:
                del self.open[id(value)]

    def once(self, value: Any, parts: Callable[[], bytes]) -> bytes:
        """The parts at the first meeting, the number at any other."""
        if id(value) in self.seen:
            return join(b"seen", str(self.seen[id(value)][0]).encode())
        self.seen[id(value)] = (len(self.seen), value)  # kept, so that no other gets its id
        return parts()

    def parts(self, value: Any, path: str) -> bytes:
        match value:
            case list() | tuple() if type(value) in (list, tuple):
                return join(*(self.digest(v, f"{path}[{i}]") for i, v in enumerate(value)))
            case dict() if type(value) is dict:
                return self.pairs(value, path)
            case types.MappingProxyType():
                return self.pairs(dict(value), path)
            case set() | frozenset():  # a walk for each, as their order is chance
                return join(*sorted(_Walk(self).digest(v, f"{path}{{}}") for v in value))
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
                return library(value.__name__) or source_digest([value.__name__])
            case type():
                return self.class_(value, path)
            case np.ndarray() if type(value) in (np.ndarray, np.memmap) and value.dtype != object:
                head = f"{value.dtype!r}{value.shape}".encode()
                return join(head, np.ascontiguousarray(value).tobytes())
            case pa.Table():
                columns = [column_digest(column) for column in value.columns]
                return join(*(name.encode() for name in value.column_names), *columns)
        return self.instance(value, path)

    def pairs(self, value: dict[Any, Any], path: str) -> bytes:
        """A dict in its own order, which can matter (the order of labels)."""
        parts = []
        for key, item in value.items():
            parts += [self.digest(key, path), self.digest(item, f"{path}[{key!r}]")]
        return join(*parts)

    def function(self, function: types.FunctionType, path: str) -> bytes:
        known = library(function.__module__)
        # A closure, or a wrapper that took over a library's name, is more than its name says.
        if known and "<" not in function.__qualname__ and installed(function.__code__.co_filename):
            return join(f"{function.__module__}.{function.__qualname__}".encode(), known)
        return self.once(function, lambda: self.body(function, path or function.__qualname__))

    def body(self, function: types.FunctionType, path: str) -> bytes:
        """What the function runs and what it reads."""
        parts = [
            self.digest(function.__code__, path),
            self.digest(function.__defaults__, f"{path}.__defaults__"),
            self.digest(sorted((function.__kwdefaults__ or {}).items()), f"{path}.__kwdefaults__"),
            self.digest(sorted(vars(function).items()), f"{path}.__dict__"),
        ]
        cells = function.__closure__ or ()
        for variable, cell in zip(function.__code__.co_freevars, cells, strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                parts.append(b"empty")
                continue
            parts.append(self.digest(content, f"{path} -> closure {variable!r}"))
        return join(*parts, self.names_read(function, path))

    def names_read(self, function: types.FunctionType, path: str) -> bytes:
        """The values of the globals that the code reads, nested functions included."""
        read, scope = read_names(function.__code__), function.__globals__
        parts = []
        for name in sorted(read.names):
            if name not in scope:
                parts.append(name.encode() if hasattr(builtins, name) else b"undefined")
                continue
            value, where = scope[name], f"{path} -> global {name!r}"
            parts.append(name.encode())
            if isinstance(value, types.ModuleType) and name not in read.whole:
                parts.append(self.module(value, read.attributes, where))
            else:
                parts.append(self.digest(value, where))
        package = scope.get("__package__") or ""
        imported = [absolute("." * level + name, package) for level, name in read.imports]
        return join(*parts, source_digest(imported))

    def module(self, module: types.ModuleType, attributes: set[str], path: str) -> bytes:
        """Those of a user's module's attributes that the code can mean."""
        known = library(module.__name__)
        if known or id(module) in self.open:
            return known or module.__name__.encode()
        self.open[id(module)] = len(self.open)
        parts = []
        for attribute in sorted(attributes & set(vars(module))):
            value, where = vars(module)[attribute], f"{path}.{attribute}"
            parts.append(attribute.encode())
            if isinstance(value, types.ModuleType):
                parts.append(self.module(value, attributes, where))
            else:
                parts.append(self.digest(value, where))
        del self.open[id(module)]
        return join(*parts)

    def code(self, code: types.CodeType, path: str) -> bytes:
        """What runs; not where it stands (line numbers, file) nor what locals are called."""
        arguments = code.co_argcount + code.co_kwonlyargcount
        said = (
            code.co_code,
            code.co_consts,
            code.co_names,
            code.co_varnames[:arguments],
            code.co_flags,
            getattr(code, "co_exceptiontable", b""),
            sys.version_info[:2],
        )
        return self.digest(said, path)

    def class_(self, class_: type, path: str) -> bytes:
        module = class_.__module__ if isinstance(class_.__module__, str) else "builtins"
        name = f"{module}.{class_.__qualname__}".encode()
        known = library(module)
        if known and "<" not in class_.__qualname__:
            return join(name, known)
        return self.once(class_, lambda: join(name, self.members(class_, path or name.decode())))

    def members(self, class_: type, path: str) -> bytes:
        """Bases, metaclass, and all that the class itself defines."""
        parts = [self.digest(base, path) for base in (*class_.__bases__, type(class_))]
        for key, value in sorted(vars(class_).items()):
            if key in NO_CONTENT or isinstance(value, DESCRIPTORS):
                continue
            if isinstance(value, property):
                value = (value.fget, value.fset, value.fdel)
            elif isinstance(value, functools.cached_property):
                value = value.func
            elif isinstance(value, staticmethod | classmethod):
                value = value.__func__
            parts += [key.encode(), self.digest(value, f"{path}.{key}")]
        return join(*parts)

    def instance(self, value: Any, path: str) -> bytes:
        """Anything else: its own word, its bytes, or the parts that copying it would need."""
        own = getattr(type(value), "__fingerprint__", None)
        if own is not None:
            return str(own(value)).encode()
        if isinstance(value, enum.Enum):
            said = (type(value), value.name, value.value)
            return self.digest(said, path)
        if isinstance(value, re.Pattern):
            return self.digest((value.pattern, value.flags), path)
        if isinstance(value, PurePath | np.dtype):
            return repr(value).encode()
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return join(f"{value.dtype}{tuple(value.shape)}".encode(), raw.numpy().tobytes())
        return self.once(value, lambda: self.reduced(value, path))

    def reduced(self, value: Any, path: str) -> bytes:
        try:
            copier = copyreg.dispatch_table.get(type(value))
            reduced = copier(value) if copier else value.__reduce_ex__(4)
        except Exception:  # pickling is how an object says that it has no content
            raise Unhashable(
                f"cannot fingerprint {type(value).__qualname__!r} at {path or 'top'}",
                do="pass cache_key='...' to name the result yourself",
            ) from None
        kind = self.digest(type(value), path)
        if isinstance(reduced, str):  # "the global of this name", which says not what is in it
            wrapped = getattr(value, "__wrapped__", None)  # functools.cache
            known = wrapped is None and library(type(value).__module__)
            inside = None if known else (wrapped, getattr(value, "__dict__", None))
            return join(reduced.encode(), kind, self.digest(inside, path))
        callable_, arguments, *rest = reduced
        state = rest[0] if rest else None
        if isinstance(state, dict):
            state = dict(sorted(state.items(), key=lambda item: str(item[0])))
        extra = [list(part) for part in rest[1:3] if part is not None]
        return join(
            kind,
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


@dataclass
class Read:
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


def read_names(code: types.CodeType) -> Read:
    """What the code, and the code inside it, reads."""
    read = Read()
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for i, step in enumerate(steps):
        following = steps[i + 1].opname if i + 1 < len(steps) else ""
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            read.names.add(step.argval)
            if following not in ("LOAD_ATTR", "LOAD_METHOD"):
                read.whole.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            read.attributes.add(step.argval)
        elif step.opname == "IMPORT_NAME":  # its level and its names are the two constants before
            level, names = steps[i - 2].argval, steps[i - 1].argval or ()
            read.imports.add((level, step.argval))
            dot = "." if step.argval else ""
            read.imports.update((level, f"{step.argval}{dot}{name}") for name in names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = read_names(constant)
            for mine, theirs in zip(vars(read).values(), vars(inner).values(), strict=True):
                mine |= theirs
    return read


# ----------------------------------------------------------------------- whose code it is, and what


@functools.cache
def installed(file: str) -> bool:
    """Whether a file belongs to Python, to an installed distribution or to us."""
    if file in ("built-in", "frozen") or file.startswith("<frozen"):
        return True
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    standard = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    return any(path.is_relative_to(folder) for folder in (*standard, OURS))


@functools.cache
def library(module: str | None) -> bytes | None:
    """Name and version of an installed module; None for the user's own code."""
    top = (module or "__main__").partition(".")[0]
    loaded, spec = sys.modules.get(top), spec_of(top)
    file = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
    folders = list(getattr(spec, "submodule_search_locations", None) or ())  # of a namespace
    places = [file] if file else folders
    if top == "__main__" or not places or not all(map(installed, places)):
        return None
    return f"{top} {version(top)}".encode()


def version(top: str) -> str:
    """The version of the distribution that a module comes from, whether it is loaded or not."""
    if top in sys.stdlib_module_names:
        return str(sys.version_info[:3])
    if top == "minift":
        import minift

        return minift.__version__
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, ())
        return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in sorted(set(names)))


def spec_of(name: str) -> Any:
    """Where a module is, without running it; None if there is none."""
    parent = name.rpartition(".")[0]
    if parent and not getattr(spec_of(parent), "submodule_search_locations", None):
        return None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def absolute(name: str, package: str) -> str:
    """`..helpers` as it is called from a module of the package."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return name.lstrip(".")


def source_digest(names: Iterable[str]) -> bytes:
    """Modules that are imported when a function runs: their files, and what these import.

    They may not be loaded yet, so the source is all that there is; a comment in it does matter.
    """
    found: dict[str, bytes] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if not name or name in found:
            continue
        known = library(name)
        spec: Any = None if known else spec_of(name)
        origin = getattr(spec, "origin", None)
        found[name] = known or (Path(origin).read_bytes() if origin else b"")
        waiting.append(name.rpartition(".")[0])
        if origin and origin.endswith(".py"):
            package = name if spec.submodule_search_locations else name.rpartition(".")[0]
            waiting += imported_by(found[name], package)
    return join(*(part for name in sorted(found) for part in (name.encode(), found[name])))


def imported_by(source: bytes, package: str) -> list[str]:
    """The modules, or names in modules, that a source imports anywhere."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


# ------------------------------------------------------------------------------------ Arrow columns


def column_digest(column: pa.ChunkedArray) -> bytes:
    """The content of a column, whatever its chunks, offsets and unused bits."""
    whole = column.combine_chunks()  # a copy, so that no byte is shared with other rows
    chunks = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    return join(str(column.type).encode(), *(array_digest(chunk) for chunk in chunks))


def array_digest(array: pa.Array) -> bytes:
    parts = [str(len(array)).encode()]
    if array.null_count:  # what lies under a missing value is chance
        parts.append(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
        array = array.drop_null()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = pc.list_value_length(array).cast(pa.int64())
        return join(*parts, array_digest(lengths), array_digest(array.flatten()))
    if pa.types.is_struct(array.type):
        return join(*parts, *(array_digest(child) for child in array.flatten()))
    hasher = hashlib.blake2b(digest_size=16)

    class Sink:
        closed = False

        def write(self, data: Any) -> int:
            hasher.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    table = pa.table({"": array})  # the stream of messages has no slack bytes
    with pa.PythonFile(Sink(), mode="w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=65536)
    return join(*parts, hasher.digest())
