"""Whose code a module is: a library's, known by its version, or the user's, known by its source."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MINIFT = Path(__file__).resolve().parents[2]  # counts by its version, like any library


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
        import minift

        return minift.__version__
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


def absolute_name(name: str, package: str) -> str:
    """Return the full name of `..helpers` as a module of the package would import it."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return name.lstrip(".")


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
            waiting += imported_names(contents[name], package)
    return join(*(part for name in sorted(contents) for part in (name.encode(), contents[name])))


def imported_names(source: bytes, package: str) -> list[str]:
    """Return all modules, and names in modules, that a source imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
