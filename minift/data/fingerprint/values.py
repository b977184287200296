"""`fingerprint`: one walk over a value and all that it refers to."""

import contextlib
import copyreg
import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.fingerprint.functions import (
    PartOfModule,
    Unhashable,
    code_content,
    function_digest,
    join,
    library,
    library_function,
    source_digest,
)

# Entries of vars(class) that were not written in the class.
NO_CONTENT = {"__dict__", "__weakref__", "__module__", "__qualname__", "_abc_impl"}
NO_CONTENT |= {"__firstlineno__", "__static_attributes__", "__slotnames__"}
NO_CONTENT |= {"__annotations_cache__"}  # Python 3.14's, once somebody has asked
DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)

PLAIN = (int, bool, type(None), complex, type(Ellipsis), float, str, bytes)
CONTAINERS = (list, tuple, dict, types.MappingProxyType)


def fingerprint(*values: Any) -> str:
    """Return 32 hexadecimal digits for the values, equal in every process.

    A dict of values gives names to their places: {"function": f, "batch_size": 1000}.

    Raises:
        Unhashable: names the path to the value that cannot be digested.
    """
    walk = Walk()
    try:
        return join(*(walk.digest(value, "") for value in values)).hex()
    except RecursionError:
        raise Unhashable("a value is nested too deeply to be fingerprinted") from None


def objects_in(value: Any) -> list[Any]:
    """Return the functions and objects that a value refers to, in the same order everywhere."""
    walk = Walk()
    with contextlib.suppress(Unhashable, RecursionError):
        walk.digest(value, "")
    return [found for _, found in walk.seen.values()]


class Walk:
    """One walk over a value.

    Attributes:
        open: the containers that are being digested now, so that cycles end.
        seen: functions, classes and objects, numbered in the order of meeting them. A second
            meeting is "the n-th", so that a net of helpers that call each other is walked once and
            not along each of its paths.
    """

    def __init__(self, outer: "Walk | None" = None) -> None:
        self.open: dict[int, int] = dict(outer.open) if outer else {}
        self.seen: dict[int, tuple[int, Any]] = dict(outer.seen) if outer else {}

    def digest(self, value: Any, path: str) -> bytes:
        """Digest any value; errors name the path to it."""
        class_ = type(value)
        if class_ in PLAIN:  # 1, True and 1.0 are three different values
            return join(class_.__name__.encode(), repr(value).encode())
        if id(value) in self.open:  # a cycle is told by how far up it leads
            return join(b"cycle", str(len(self.open) - self.open[id(value)]).encode())
        if class_ in CONTAINERS:
            self.open[id(value)] = len(self.open)
        name = f"{class_.__module__}.{class_.__qualname__}"
        digest = join(name.encode(), self.content(value, path))
        if class_ in CONTAINERS:
            del self.open[id(value)]
        return digest

    def once(self, value: Any, content: Callable[[], bytes]) -> bytes:
        """Digest the content at the first meeting, the number at any other."""
        if id(value) in self.seen:
            return join(b"seen", str(self.seen[id(value)][0]).encode())
        self.seen[id(value)] = (len(self.seen), value)  # kept alive, so that its id stays its own
        return content()

    def content(self, value: Any, path: str) -> bytes:
        """Digest what a value holds; its type is digested beside it."""
        match value:
            case list() | tuple() if type(value) in CONTAINERS:
                return join(*(self.digest(v, f"{path}[{i}]") for i, v in enumerate(value)))
            case dict() | types.MappingProxyType() if type(value) in CONTAINERS:
                return join(*self.pairs(value, path))
            case set() | frozenset():  # a walk for each, as their order is chance
                return join(*sorted(Walk(self).digest(v, f"{path}{{}}") for v in value))
            case types.FunctionType():
                digest = functools.partial(function_digest, value, path, self.digest)
                return library_function(value) or self.once(value, digest)
            case types.CodeType():
                return self.digest(code_content(value), path)
            case types.MethodType():
                return self.digest((value.__func__, value.__self__), path)
            case functools.partial():
                keywords = dict(sorted(value.keywords.items()))
                return self.digest((value.func, value.args, keywords), path)
            case types.ModuleType():
                return library(value.__name__) or source_digest([value.__name__])
            case PartOfModule():
                return self.part_of_module(value, path)
            case type():
                return self.class_(value, path)
            case np.ndarray() if type(value) in (np.ndarray, np.memmap) and value.dtype != object:
                head = f"{value.dtype!r}{value.shape}".encode()
                return join(head, np.ascontiguousarray(value).tobytes())
            case pa.Table():
                columns = [column_digest(column) for column in value.columns]
                return join(*(name.encode() for name in value.column_names), *columns)
        return self.instance(value, path)

    def pairs(self, value: Mapping[Any, Any], path: str) -> Iterator[bytes]:
        """Digest keys and items in their own order, which can matter (the order of labels)."""
        for key, item in value.items():
            yield self.digest(key, f"{path} keys".lstrip())
            name = repr(key)[:40] if type(key) in PLAIN else type(key).__name__
            yield self.digest(item, f"{path}[{name}]" if path else str(key))

    def part_of_module(self, read: PartOfModule, path: str) -> bytes:
        """Digest those of a module's attributes that code can mean; a library by its version."""
        module = read.module
        known = library(module.__name__)
        if known or id(module) in self.open:
            return known or module.__name__.encode()
        self.open[id(module)] = len(self.open)
        parts = []
        for name in sorted(read.attributes & set(vars(module))):
            value = vars(module)[name]
            if isinstance(value, types.ModuleType):
                value = PartOfModule(value, read.attributes)
            parts += [name.encode(), self.digest(value, f"{path}.{name}")]
        del self.open[id(module)]
        return join(*parts)

    def class_(self, class_: type, path: str) -> bytes:
        """Digest a library's class by its version, another by its members."""
        module = class_.__module__ if isinstance(class_.__module__, str) else "builtins"
        name = f"{module}.{class_.__qualname__}".encode()
        version = library(module)
        if version and "<" not in class_.__qualname__:
            return join(name, version)
        return self.once(class_, lambda: join(name, self.members(class_, path or name.decode())))

    def members(self, class_: type, path: str) -> bytes:
        """Digest bases, metaclass, and all that the class itself defines."""
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
        """Digest any other object: by its `__fingerprint__`, its bytes, or as copying needs it."""
        own = getattr(type(value), "__fingerprint__", None)
        if own is not None:
            return str(own(value)).encode()
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return join(f"{value.dtype}{tuple(value.shape)}".encode(), raw.numpy().tobytes())
        return self.once(value, lambda: self.reduced(value, path))

    def reduced(self, value: Any, path: str) -> bytes:
        """Digest what `copy` would make the object of."""
        try:
            copier = copyreg.dispatch_table.get(type(value))
            reduced = copier(value) if copier else value.__reduce_ex__(4)
        except Exception:  # pickling is how an object says that it has no content
            problem = f"cannot fingerprint {type(value).__qualname__!r} at {path or 'top'}"
            raise Unhashable(problem) from None
        class_ = self.digest(type(value), path)
        if isinstance(reduced, str):  # "the global of this name", without what is in it
            wrapped = getattr(value, "__wrapped__", None)  # functools.cache
            known = wrapped is None and library(type(value).__module__)
            inside = None if known else (wrapped, getattr(value, "__dict__", None))
            name = f"{getattr(value, '__module__', None)}.{reduced}".encode()
            return join(name, class_, self.digest(inside, path))
        constructor, arguments, *more = reduced
        state = more[0] if more else None
        if isinstance(state, dict):
            state = dict(sorted(state.items(), key=lambda item: str(item[0])))
        items = [list(iterator) for iterator in more[1:3] if iterator is not None]
        parts = [class_, self.digest(constructor, path), self.digest(arguments, path)]
        parts.append(b"" if state is None else self.digest(state, f"{path}.{type(value).__name__}"))
        parts.append(self.digest(items, path) if items else b"")
        return join(*parts)


def column_digest(column: pa.ChunkedArray) -> bytes:
    """Digest the content of an Arrow column, whatever its chunks, offsets and unused bits."""
    joined = column.combine_chunks() if len(column) else column  # no byte shared with other rows
    chunks = joined.chunks if isinstance(joined, pa.ChunkedArray) else [joined]
    return join(str(column.type).encode(), *(array_digest(part) for part in chunks if len(part)))


def array_digest(array: pa.Array) -> bytes:
    """Digest the values of an array, and where some are missing."""
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
