"""A disk that fails, and one that loses its power: disk.c from Python, and what its records mean.

`arm` spoils the n-th call of this process that changes a file below a folder, or notes all of
them, and `Replay.after` makes the folders that a machine may come up with when its power went
between two of these calls. What is known to be there is what was synced: the bytes of a file on
which fsync was called, the names in a folder on which it was. All else may be there or not, in any
combination; that is less than any file system promises, and all that POSIX does.
"""

import ctypes
import functools
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")
NOTHING, FAIL, FAIL_FROM_HERE, SHORT_WRITE, SIGNAL = range(5)


@functools.cache
def library() -> str | None:
    """The path of disk.c, compiled; None if there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.name != "posix":
        return None
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    built = Path(tempfile.gettempdir()) / f"minift-disk-{os.getuid()}-{version}.so"
    if not built.exists():
        scratch = f"{built}.{os.getpid()}"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", scratch, str(SOURCE), "-ldl"]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        os.replace(scratch, built)
    return str(built)


def environment() -> dict[str, str]:
    """Variables with which a process has this disk."""
    return {**os.environ, "LD_PRELOAD": str(library()), "OMP_NUM_THREADS": "1"}


def arm(
    folder: Path, n: int = 0, action: int = NOTHING, number: int = 0, reading: bool = False,
    record: int = -1,
) -> None:  # fmt: skip
    """Spoil the n-th call below a folder from here on, counted from 1.

    Args:
        folder: the folder; its real path.
        n: which call.
        action: FAIL with errno `number`; FAIL_FROM_HERE, as a full disk does, on which only
            removing works; SHORT_WRITE: half of the bytes; SIGNAL: number `number` to this process.
        number: see there.
        reading: count also files that are opened to be read.
        record: a descriptor of a file that notes the calls.
    """
    ctypes.CDLL(None).disk_arm(str(folder).encode(), n, action, number, record, reading)


def disarm() -> tuple[int, str]:
    """Return how many calls there were, and which one was spoilt: "fsync /path"."""
    here = ctypes.CDLL(None)
    here.disk_seen.restype, here.disk_met.restype = ctypes.c_long, ctypes.c_char_p
    seen, met = here.disk_seen(), here.disk_met().decode()
    arm(Path(""))
    return seen, met


# ------------------------------------------------------------------------------------- power loss


@dataclass(eq=False)
class Node:
    """A file or a folder, whatever it is called.

    Attributes:
        names: {name: node} of a folder, None for a file.
        data: of a file, as the running system sees it.
    """

    names: dict[str, "Node"] | None = None
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Change:
    """One change of one node: bytes of a file, or names of a folder.

    Attributes:
        node: of what; `other`: a second folder, for a rename from there.
        at, data: for a file: what was written where; data None: cut to the length `at`.
        name, to: for a folder: the name, and the node that has it then, or None.
        old: for a rename: the name that is gone in `other`.
        gone: for a removal: the node that had the name.
        synced: the number of the call that brought it to the disk.
    """

    node: Node
    at: int = 0
    data: bytes | None = None
    name: str = ""
    to: Node | None = None
    other: Node | None = None
    old: str = ""
    synced: float = float("inf")
    gone: Node | None = None


def read_tree(folder: Path) -> Node:
    """Return a folder as nodes, all of it on the disk."""
    node = Node({})
    assert node.names is not None
    for path in folder.iterdir():
        if path.is_dir():
            node.names[path.name] = read_tree(path)
        else:
            node.names[path.name] = Node(data=bytearray(path.read_bytes()))
    return node


def parse(record: bytes) -> Iterator[tuple[str, str, str, int, bytes]]:
    """Yield (call, path or descriptor, other path or descriptor, place, bytes)."""
    place = 0
    while place < len(record):
        end = record.index(b"\n", place)
        call, path, other, at, size = record[place:end].decode().split("\t")
        place = end + 1
        has_bytes = call == "write"
        yield call, path, other, int(at), record[place : place + int(size)] if has_bytes else b""
        place += int(size) if has_bytes else 0


class Replay:
    """A recording, of which any prefix can be made a folder again."""

    def __init__(self, before: Path, root: Path, record: bytes) -> None:
        self.before, self.root = before, root
        self.changes: list[Change] = []
        self.tree = read_tree(before)
        self.known: list[tuple[Node, tuple[str, ...]]] = list(nodes_of(self.tree))
        descriptors: dict[str, Node] = {}
        for call, path, other, at, data in parse(record):
            if call in ("creating", "truncating", "open"):
                folder, name = self.find(path)
                node = folder.names.get(name) if name else folder
                if node is None:
                    node = Node()
                    self.change(Change(folder, name=name, to=node))
                elif call == "truncating":
                    self.change(Change(node, at=0))
                descriptors[other] = node
            elif call == "write":
                self.change(Change(descriptors[path], at=at, data=data))
            elif call == "cut":
                self.change(Change(descriptors[path], at=at))
            elif call == "mkdir":
                folder, name = self.find(path)
                self.change(Change(folder, name=name, to=Node({})))
            elif call == "remove":
                folder, name = self.find(path)
                self.change(Change(folder, name=name, to=None, gone=folder.names.get(name)))
            elif call == "rename":
                (source, old), (folder, name) = self.find(path), self.find(other)
                self.change(Change(folder, 0, None, name, source.names[old], source, old))
            elif call == "sync":
                node = descriptors[path]
                for change in self.changes:
                    if change.node is node:
                        change.synced = min(change.synced, len(self.changes))

    def find(self, path: str) -> tuple[Node, str]:
        """Return the folder that a path is in, and its name there; the root has the name ""."""
        parts = Path(path).relative_to(self.root).parts
        node = self.tree
        for part in parts[:-1]:
            node = node.names[part]
        return node, parts[-1] if parts else ""

    def change(self, change: Change) -> None:
        self.changes.append(change)
        apply(change)

    def after(self, n: int, kept: random.Random | bool, folder: Path) -> None:
        """Write what is there after n changes, if the power goes then.

        Args:
            n: how many changes were made.
            kept: of those not synced by then: True all, False none, or which ones by chance.
            folder: where to.
        """
        tree = read_tree(self.before)
        places = {parts: node for node, parts in nodes_of(tree)}
        copies = {id(node): places[parts] for node, parts in self.known}
        for change in self.changes[:n]:
            safe = change.synced <= n
            if safe or (kept.random() < 0.5 if isinstance(kept, random.Random) else kept):
                apply(moved(change, copies))
        write_tree(tree, folder)


def nodes_of(node: Node, parts: tuple[str, ...] = ()) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Yield a node and all below it, each with the names on the way to it."""
    yield node, parts
    for name, inside in (node.names or {}).items():
        yield from nodes_of(inside, (*parts, name))


def moved(change: Change, copies: dict[int, Node]) -> Change:
    """Return the change for another copy of the nodes."""

    def copy_of(node: Node | None) -> Node | None:
        if node is None:
            return None
        if id(node) not in copies:
            copies[id(node)] = Node(None if node.names is None else {})
        return copies[id(node)]

    node = copy_of(change.node)
    assert node is not None
    values = change.at, change.data, change.name, copy_of(change.to), copy_of(change.other)
    return Change(node, *values, change.old, gone=copy_of(change.gone))


def apply(change: Change) -> None:
    """Make a change."""
    node = change.node
    if node.names is not None:
        source = change.other.names if change.other is not None else None
        if source is not None and source.get(change.old) is change.to:
            del source[change.old]
        if change.to is not None:
            node.names[change.name] = change.to
        elif node.names.get(change.name) is change.gone:
            node.names.pop(change.name, None)
    elif change.data is None:
        del node.data[change.at :]
        node.data.extend(bytes(change.at - len(node.data)))
    else:
        node.data.extend(bytes(max(change.at - len(node.data), 0)))
        node.data[change.at : change.at + len(change.data)] = change.data


def write_tree(node: Node, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, inside in (node.names or {}).items():
        if inside.names is None:
            (folder / name).write_bytes(inside.data)
        else:
            write_tree(inside, folder / name)
