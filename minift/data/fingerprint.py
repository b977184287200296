"""A stable digest of any value, and of any function by what it does.

`map` reuses a result when the fingerprint of (input, function, arguments) is known, so two rules
hold. A digest that stays equal must mean an equal result: functions are digested by value and
transitively, with the helpers and globals that they read, wherever these are defined, unless they
belong to an installed library, which counts by name and version. And a digest should not change
without a reason: comments, blank lines, moved lines, the hash seed and the process do not matter.
Where a value has no content that could be digested (a lock, a socket), `Unhashable` names the path
to it; the caller then computes and keeps nothing. When in doubt, recompute.

`explained` also notes what it met on the way, so that `changes` can say in one line why a result is
computed again: "global 'MAX_LEN': 128 -> 256".
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
NO_CONTENT |= {"__firstlineno__", "__static_attributes__", "__slotnames__"}
DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)

MAX_NOTES = 500
NOTED_ITEMS = 20  # a larger container is noted as a whole
NOTED_LENGTH = 40
# Notes are stored and printed, so no text is in them that is called like one of these.
SECRET = re.compile(r"key|secret|passw|credential|auth|token(?!i)", re.IGNORECASE)

PLAIN = (int, bool, type(None), complex, type(Ellipsis))


class Unhashable(MiniftError, TypeError):
    """A value that has no content to digest."""


def fingerprint(*values: Any, notes: dict[str, str] | None = None) -> str:
    """32 hexadecimal digits for the values, equal in every process.

    Args:
        values: of any kind.
        notes: gets what `explained` returns, which takes a little longer.

    Raises:
        Unhashable: names the path to the value that cannot be digested.
    """
    walk = _Walk(notes)
    try:
        return join(*(walk.digest(value, "") for value in values)).hex()
    except RecursionError:
        raise Unhashable("a value is nested too deeply to be fingerprinted") from None


def explained(*values: Any) -> tuple[str, dict[str, str]]:
    """The fingerprint of the values, and notes of what was found where.

    Args:
        values: a dict gives names to the places: {"function": f, "batch_size": 1000}.

    Returns:
        The digest as `fingerprint` gives it, and {place: what is there}: a short plain value as it
        is written, anything else by eight digits of its digest. Places are "code of tokenize", or
        seen from the function that reads them: "global 'MAX_LEN'", and for the functions that it
        calls "helper -> global 'N'". At most MAX_NOTES.

    Raises:
        Unhashable: names the path to the value that cannot be digested.
    """
    notes: dict[str, str] = {}
    return fingerprint(*values, notes=notes), notes


def changes(before: dict[str, str], after: dict[str, str]) -> str:
    """What differs between two fingerprints' notes, in one line; "" if nothing does."""
    said = []
    for place in {**before, **after}:
        old, new = before.get(place, "nothing"), after.get(place, "nothing")
        if old != new:
            code = place.startswith("code of ")
            said.append(f"the {place}" if code else f"{place}: {old} -> {new}")
    more = [f"and {len(said) - 3} more"] if len(said) > 3 else []
    return "; ".join(said[:3] + more)


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
    `notes` (None where they are not wanted) have no part in the digest.
    """

    def __init__(self, notes: dict[str, str] | None, outer: "_Walk | None" = None) -> None:
        self.notes = notes
        self.open: dict[int, int] = dict(outer.open) if outer else {}
        self.seen: dict[int, tuple[int, Any]] = dict(outer.seen) if outer else {}

    def digest(self, value: Any, path: str) -> bytes:
        simple = digest_scalar(value)
        if simple is not None:
            if self.notes is not None:
                self.note(path, shown(value, simple))
            return simple
        if id(value) in self.open:  # a cycle: how far up is all that there is to say
            return join(b"cycle", str(len(self.open) - self.open[id(value)]).encode())
        contains = type(value) in (list, tuple, dict)
        if contains:
            self.open[id(value)] = len(self.open)
        notes, count, met = self.notes, len(self.notes or ()), id(value) in self.seen
        kind = type(value)
        if count >= MAX_NOTES or kind is types.CodeType or (contains and len(value) > NOTED_ITEMS):
            self.notes = None
        found = join(f"{kind.__module__}.{kind.__qualname__}".encode(), self.parts(value, path))
        self.notes = notes
        if contains:
            del self.open[id(value)]
        if notes is not None and len(notes) == count and not met:  # nor was any part of it
            self.note(path, found.hex()[:8])
        return found

    def note(self, path: str, text: str) -> None:
        """Of the path, the last function is enough, and the first one goes without saying.

        What Python keeps in a class (`__dataclass_fields__`) is not taken apart.
        """
        if self.notes is None or len(self.notes) >= MAX_NOTES:
            return
        first, *route = path.split(" -> ")
        place = re.sub(r"(\.__\w+__)[.\[ ](?!->).*", r"\1", " -> ".join(route[-2:]) or first)
        if text.endswith(("'", '"')) and SECRET.search(place):
            text = join(text.encode()).hex()[:8]
        old = self.notes.setdefault(place, text)
        if old != text:  # two things in one place: a digest of both
            self.notes[place] = join(old.encode(), text.encode()).hex()[:8]

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
                return join(*sorted(_Walk(None, self).digest(v, f"{path}{{}}") for v in value))
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
                keywords = dict(sorted(value.keywords.items()))
                return self.digest((value.func, value.args, keywords), path)
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
            said = self.digest(key, f"{path} keys".lstrip())
            where = f"{path}[{shown(key, said)}]" if path else str(key)
            parts += [said, self.digest(item, where)]
        return join(*parts)

    def function(self, function: types.FunctionType, path: str) -> bytes:
        known = library(function.__module__)
        # A closure, or a wrapper that took over a library's name, is more than its name says.
        if known and "<" not in function.__qualname__ and installed(function.__code__.co_filename):
            return join(f"{function.__module__}.{function.__qualname__}".encode(), known)
        return self.once(function, lambda: self.body(function, path))

    def body(self, function: types.FunctionType, path: str) -> bytes:
        """What the function runs and what it reads; the path goes on with its name."""
        name = function.__qualname__.rpartition("<locals>.")[2]
        path = " -> ".join([*path.split(" -> ")[:-1], name])
        parts = [self.digest(function.__code__, f"code of {name}")]
        for kept in ("__defaults__", "__kwdefaults__", "__dict__"):
            content = getattr(function, kept)
            parts.append(self.digest(content, f"{path} -> {kept}") if content else b"")
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
            attributes = None if name in read.whole else read.attributes
            parts += [name.encode(), self.module(value, attributes, where)]
        package = scope.get("__package__") or ""
        imported = [absolute("." * level + name, package) for level, name in read.imports]
        if imported:
            parts.append(source_digest(imported))
            self.note(f"code of what {path.split(' -> ')[-1]} imports", parts[-1].hex()[:8])
        return join(*parts)

    def module(self, module: Any, attributes: set[str] | None, path: str) -> bytes:
        """Those of a user's module's attributes that the code can mean; anything else whole."""
        if attributes is None or not isinstance(module, types.ModuleType):
            return self.digest(module, path)
        known = library(module.__name__)
        if known or id(module) in self.open:
            known = known or module.__name__.encode()
            self.note(path, known.decode())
            return known
        self.open[id(module)] = len(self.open)
        parts = []
        for attribute in sorted(attributes & set(vars(module))):
            found = self.module(vars(module)[attribute], attributes, f"{path}.{attribute}")
            parts += [attribute.encode(), found]
        del self.open[id(module)]
        return join(*parts)

    def code(self, code: types.CodeType, path: str) -> bytes:
        """What runs; not where it stands (line numbers, file) nor what locals are called."""
        said = (code.co_code, code.co_consts, code.co_names, code.co_exceptiontable, code.co_flags)
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return self.digest((*said, arguments, sys.version_info[:2]), path)

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
            return self.digest((type(value), value.name, value.value), path)
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
            b"" if state is None else self.digest(state, f"{path}.{type(value).__name__}"),
            self.digest(extra, path) if extra else b"",
        )


def digest_scalar(value: Any) -> bytes | None:
    """The plain types; 1, True and 1.0 are three different values."""
    kind = type(value)
    if kind in PLAIN:
        return join(kind.__name__.encode(), repr(value).encode())
    if kind is str:
        return join(b"str", value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return join(b"bytes", value)
    if kind is float:
        return join(b"float", struct.pack("<d", value))
    return None


def shown(value: Any, digest: bytes) -> str:
    """A short plain value as it is written, anything else by eight digits of its digest."""
    start = value[:NOTED_LENGTH] if type(value) in (str, bytes) else value  # too long to be short
    text = repr(start) if type(value) in (*PLAIN, float, str, bytes) else ""
    return text if 0 < len(text) <= NOTED_LENGTH else digest.hex()[:8]


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
    whole = column.combine_chunks() if len(column) else column  # no byte shared with other rows
    chunks = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    chunks = [chunk for chunk in chunks if len(chunk)]
    return join(str(column.type).encode(), *(array_digest(chunk) for chunk in chunks))


def array_digest(array: pa.Array) -> bytes:
    parts = [str(len(array)).encode()]
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if array.null_count:  # what lies under a missing value is chance
        parts.append(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
        array = array if pa.types.is_struct(array.type) else array.drop_null()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = pc.list_value_length(array).cast(pa.int64())
        return join(*parts, array_digest(lengths), array_digest(array.flatten()))
    if pa.types.is_struct(array.type):
        return join(*parts, *(array_digest(child) for child in array.flatten()))
    table = pa.table({"": array})
    for batch in table.to_batches(max_chunksize=65536):  # a stream of messages has no slack bytes
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_batch(batch)
        parts.append(join(sink.getvalue()))
    return join(*parts)
