"""Finding plugins and calling their hooks.

A plugin is a module, or any object, with functions marked `@minift.hookimpl` and named after the
hooks in `hookspecs.py`. Installed packages announce theirs in the entry-point group `minift`; the
plugins in this repository do the same, so the core knows none of them by name.

`build_manager()` returns what its arguments and the installed packages say, and nothing else.
`default_manager()` is built once, at its first use; module-level functions such as `load_dataset`
use it.
"""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from minift import hookspecs
from minift.errors import ArgumentError, MissingFileError, PluginError, nearest
from minift.files import local_path

GROUP = "minift"


class Manager(pluggy.PluginManager):
    """pluggy's manager of registered plugins.

    Attributes:
        load_errors: {entry point: the error with which it did not load}.
        versions: {entry point: its distribution's version}.
    """

    def __init__(self) -> None:
        super().__init__(GROUP)
        self.add_hookspecs(hookspecs)
        self.load_errors: dict[str, BaseException] = {}
        self.versions: dict[str, str] = {}


# ------------------------------------------------------------------------------------ loading them


def build_manager(
    select: Sequence[str] | None = (), files: Iterable[str | Path] = (),
    plugins: Iterable[object] = (), entry_points: Iterable[Any] | None = None,
) -> Manager:  # fmt: skip
    """Build a manager with the installed plugins that are selected, and those passed.

    Args:
        select: "no:NAME" blocks a plugin; a bare NAME loads only the names so given; None loads
            no entry point at all.
        files: Python files to load as plugins, as `--plugin FILE` does.
        plugins: objects to register as they are.
        entry_points: instead of the installed ones, for tests.

    Raises:
        PluginError: a hook's name is misspelt, or a file cannot be loaded. An *installed* plugin
            that does not import stops nothing: `load_errors` keeps why, for `minift plugins`.
    """
    manager = Manager()
    only = {word for word in select or () if not word.startswith("no:")}
    for word in set(select or ()) - only:
        manager.set_blocked(word.removeprefix("no:"))
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    for entry in sorted(entry_points, key=lambda entry: entry.name) if select is not None else ():
        if manager.is_blocked(entry.name) or (only and entry.name not in only):
            continue
        try:
            manager.register(entry.load(), name=entry.name)
            manager.versions[entry.name] = entry.dist.version if entry.dist else ""
        except (Exception, SystemExit) as error:  # somebody else's code: it is only listed
            manager.load_errors[entry.name] = error
    for file in files:
        manager.unblock(Path(file).stem)  # it replaces the plugin that -p no:NAME leaves out
        add_plugin(manager, load_file(local_path(file)), name=Path(file).stem)
    for plugin in plugins:
        add_plugin(manager, plugin)
    check_hook_names(manager)
    trace_calls(manager)
    return manager


_default: Manager | None = None


def default_manager() -> Manager:
    """Return the manager of this process, which is built at its first use."""
    global _default
    if _default is None:
        _default = build_manager(selection_from_environment())
    return _default


def set_default_manager(manager: Manager | None) -> None:
    """Make the command line's choice (`-p`, `--plugin`) the one that every function uses."""
    global _default
    _default = manager


def selection_from_environment() -> list[str] | None:
    """Read `select` from MINIFT_PLUGINS, words separated by commas; set but empty means none."""
    words = os.environ.get("MINIFT_PLUGINS")
    return [] if words is None else [w.strip() for w in words.split(",") if w.strip()] or None


def manager_for_run(base: Manager, callbacks: Iterable[object]) -> Manager:
    """Build a manager for one run: the plugins of another, and the run's callbacks."""
    manager = Manager()
    for name, plugin in base.list_name_plugin():
        if plugin is not None:
            manager.register(plugin, name=name)
    for callback in callbacks:
        add_plugin(manager, callback() if isinstance(callback, type) else callback)
    check_hook_names(manager)
    return manager


def add_plugin(manager: Manager, plugin: object, name: str | None = None) -> None:
    """Register an object.

    Raises:
        ArgumentError: it implements no hook, so that it would be registered to no effect.
    """
    try:
        name = manager.register(plugin, name=name)
    except ValueError:
        raise PluginError(f"two plugins are called {name!r}", do=f"use -p no:{name}") from None
    if manager.get_hookcallers(plugin):
        return
    manager.unregister(name=name)
    # Methods of a callback of transformers.Trainer: on_log is called when our minift_on_log is.
    events = [name for name in dir(plugin) if hasattr(hookspecs, f"minift_{name}")]
    renamed = ", ".join(f"{event} -> minift_{event}" for event in events)
    what = f"{getattr(plugin, '__name__', type(plugin).__name__)} implements no hook"
    expected = "methods such as minift_on_log(self, run, record), marked with @minift.hookimpl"
    do = f"rename and mark: {renamed}" if events else "see minift/hookspecs.py for the hooks"
    raise ArgumentError(what, got=", ".join(events) or None, expected=expected, do=do)


def load_file(path: Path) -> object:
    """Import a plugin from a file that is in no package."""
    if not path.is_file():
        raise MissingFileError(f"the plugin file {path} does not exist", do="check --plugin")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file", expected="a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise PluginError(f"the plugin {path} does not load", got=repr(error)) from error
    return module


def check_hook_names(manager: Manager) -> None:
    """Refuse hooks that do not exist: pluggy would keep them for a specification to come.

    Raises:
        PluginError: a name is misspelt; the message has the nearest one.
    """
    known = [name for name in vars(hookspecs) if name.startswith("minift_")]
    for name, plugin in manager.list_name_plugin():
        for caller in (manager.get_hookcallers(plugin) or ()) if plugin is not None else ():
            if caller.name not in known:
                what = f"the plugin {name!r} implements {caller.name}, a hook that does not exist"
                do = f"correct the name, or leave the plugin out with -p no:{name}"
                raise PluginError(what, expected=nearest(caller.name, known), do=do)


# ------------------------------------------------------------------------------- calling the hooks


@dataclass(frozen=True)
class Entry:
    """A value that a plugin registers under a name, and the plugin's name."""

    value: Any
    plugin: str


def registry(manager: Manager, hook: str, own: Mapping[str, Any] | None = None) -> dict[str, Entry]:
    """Call a registrar of all plugins, and return what they register as one dict.

    Args:
        manager: has the plugins.
        hook: the registrar.
        own: what minift has itself, whose names no plugin can take.

    Raises:
        PluginError: two plugins give the same name; which of them wins must not be chance.
    """
    entries = {name: Entry(value, "minift itself") for name, value in (own or {}).items()}
    for impl in getattr(manager.hook, hook).get_hookimpls():
        trace(f"{hook} -> {impl.plugin_name}")
        for name, value in (impl.function() or {}).items():
            if name in entries:
                got = f"{entries[name].plugin} and {impl.plugin_name}"
                do = f"leave one out, for example with -p no:{impl.plugin_name}"
                raise PluginError(f"{name!r} is given twice to {hook}", got=got, do=do)
            entries[name] = Entry(value, impl.plugin_name)
    return entries


def call_observers(
    manager: Manager, hook: str, report: Callable[[str], None], /, **arguments: object
) -> None:
    """Call a hook of all observers; one that raises is reported and unplugged from the manager."""
    for impl in reversed(getattr(manager.hook, hook).get_hookimpls()):
        trace(f"{hook} -> {impl.plugin_name}")
        named = {name: arguments[name] for name in impl.kwargnames if name in arguments}
        try:
            impl.function(*(arguments[name] for name in impl.argnames), **named)
        except (Exception, SystemExit) as error:  # an observer must never be able to end a run
            manager.unregister(impl.plugin)
            what = f"the plugin {impl.plugin_name} failed in {hook} and is unplugged for this run"
            report(f"{what}: {type(error).__name__}: {error}")


def trace(text: str) -> None:
    """Print a line to stderr if MINIFT_TRACE=1 asks for every hook call."""
    if os.environ.get("MINIFT_TRACE") == "1":
        print(f"hook {text}", file=sys.stderr)


def trace_calls(manager: Manager) -> None:
    """Trace the calls that go through pluggy: finders and decisions, in the order of asking."""

    def before(name: str, impls: Sequence[Any], arguments: Mapping[str, Any]) -> None:
        trace(f"{name} -> {', '.join(one.plugin_name for one in impls[::-1]) or 'nobody'}")

    def after(outcome: Any, name: str, impls: Any, arguments: Any) -> None:
        trace(f"{name} = {outcome.get_result()!r:.200}")

    manager.add_hookcall_monitoring(before, after)


# ------------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A model's folder, and where it comes from; `minift_find_checkpoint` may answer with one.

    Attributes:
        folder: the model's, on this machine.
        source: where it comes from, for run.json.
        revision: the exact version, or "".
    """

    folder: Path
    source: str = ""
    revision: str = ""


def resolve_checkpoint(
    name: str, revision: str | None = None, component: str = "model"
) -> ResolvedCheckpoint:
    """Find a model or tokenizer: a local folder, or what a plugin finds under the name.

    Args:
        name: a path or a name.
        revision: a version, for plugins.
        component: what of it: "model", "tokenizer" or "config".

    Raises:
        MissingFileError: it is neither.
    """
    local = local_path(name)
    if local.is_dir():
        return ResolvedCheckpoint(local, str(local))
    find = default_manager().hook.minift_find_checkpoint
    answer = find(name=name, revision=revision, component=component)
    if answer is None:
        expected = "a folder with config.json, model.safetensors and tokenizer.json"
        do = "check the path, or see `minift plugins` for what can find models by name"
        raise MissingFileError(f"there is no model {name!r}", expected=expected, do=do)
    resolved = isinstance(answer, ResolvedCheckpoint)
    return answer if resolved else ResolvedCheckpoint(Path(answer), str(answer))
