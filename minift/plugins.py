"""Finding plugins and asking them.

A plugin is a module, or any object, with functions marked `@minift.hookimpl` and named after the
hooks in `hookspecs.py`. Installed packages announce theirs in the entry-point group `minift`; the
plugins in this repository do the same, so the core knows none of them by name.

`build_manager()` is pure: what it returns depends on its arguments and on what is installed.
`default_manager()` is the lazy, cached one that module-level functions such as `load_dataset` use.
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

GROUP = "minift"
REGISTRARS = (
    "minift_register_devices",
    "minift_register_metrics",
    "minift_register_tasks",
    "minift_register_commands",
)

# What callbacks of transformers.Trainer call these moments.
TRAINER_EVENTS = {
    "on_train_begin": "minift_on_train_begin",
    "on_step_end": "minift_on_step_end",
    "on_log": "minift_on_log",
    "on_evaluate": "minift_on_evaluate",
    "on_train_end": "minift_on_train_end",
}


class Manager(pluggy.PluginManager):
    """pluggy's manager, and what became of each entry point that was tried."""

    def __init__(self) -> None:
        super().__init__(GROUP)
        self.add_hookspecs(hookspecs)
        self.failures: dict[str, Exception] = {}
        self.versions: dict[str, str] = {}


@dataclass(frozen=True)
class Registered:
    """A value that a registrar gave, and the plugin that gave it."""

    value: Any
    plugin: str


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """What a plugin's `minift_find_checkpoint` may answer instead of a path; it is one, too.

    Attributes:
        folder: the model's, on this machine.
        source: where it comes from, for run.json.
        revision: the exact version, or "".
    """

    folder: Path
    source: str = ""
    revision: str = ""

    def __fspath__(self) -> str:
        return str(self.folder)


def build_manager(
    select: Sequence[str] | None = (),
    files: Iterable[str | Path] = (),
    plugins: Iterable[object] = (),
    entry_points: Iterable[Any] | None = None,
) -> Manager:
    """A manager with everything that is installed, less what is blocked.

    Args:
        select: "no:NAME" blocks a plugin; a bare NAME loads only the names so given; None loads
            no entry point at all.
        files: Python files to load as plugins, as `--plugin FILE` does.
        plugins: objects to register as they are.
        entry_points: instead of the installed ones, for tests.

    Raises:
        PluginError: a hook's name is misspelt, or a file cannot be loaded. An *installed* plugin
            that does not import stops nothing: it is kept in `failures`, for `minift plugins`.
    """
    manager = Manager()
    words = list(select) if select is not None else []
    only = {word for word in words if not word.startswith("no:")}
    for word in words:
        if word.startswith("no:"):
            manager.set_blocked(word[3:])
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    for entry in sorted(entry_points, key=lambda entry: entry.name) if select is not None else ():
        if manager.is_blocked(entry.name) or (only and entry.name not in only):
            continue
        try:
            manager.register(entry.load(), name=entry.name)
            manager.versions[entry.name] = entry.dist.version if entry.dist else ""
        except Exception as error:  # somebody else's code: any error of it is only listed
            manager.failures[entry.name] = error
    for file in files:
        add_plugin(manager, load_file(Path(file)), name=Path(file).stem)
    for plugin in plugins:
        add_plugin(manager, plugin)
    refuse_misspelt_hooks(manager)
    if tracing():
        trace(manager)
    return manager


_default: Manager | None = None


def default_manager() -> Manager:
    """The manager of this process, built at its first use.

    MINIFT_PLUGINS holds the words of `select`, separated by commas; set but empty means none.
    """
    global _default
    if _default is None:
        _default = build_manager(words_from_environment())
    return _default


def set_default_manager(manager: Manager | None) -> None:
    """Make the command line's choice (`-p`, `--plugin`) the one that every function uses."""
    global _default
    _default = manager


def words_from_environment() -> list[str] | None:
    words = os.environ.get("MINIFT_PLUGINS")
    if words is None:
        return []
    return [word.strip() for word in words.split(",") if word.strip()] or None


def run_manager(base: Manager, callbacks: Iterable[object]) -> Manager:
    """A manager for one run: the installed plugins and the run's own callbacks."""
    manager = Manager()
    for name, plugin in base.list_name_plugin():
        if plugin is not None:
            manager.register(plugin, name=name)
    for callback in callbacks:
        add_plugin(manager, callback() if isinstance(callback, type) else callback)
    refuse_misspelt_hooks(manager)
    return manager


def add_plugin(manager: Manager, plugin: object, name: str | None = None) -> None:
    """Register an object; one that implements no hook is a mistake that must not pass silently."""
    name = manager.register(plugin, name=name)
    if manager.get_hookcallers(plugin):
        return
    manager.unregister(name=name)
    found = [name for name in TRAINER_EVENTS if callable(getattr(plugin, name, None))]
    renamed = ", ".join(f"{name} -> {TRAINER_EVENTS[name]}" for name in found)
    raise ArgumentError(
        f"{getattr(plugin, '__name__', type(plugin).__name__)} is passed as a plugin or callback "
        "but implements no hook",
        got=", ".join(found) or "no method marked with @hookimpl",
        expected="methods such as minift_on_log(self, run, record), marked with @minift.hookimpl",
        do=f"rename and mark: {renamed}" if found else "see minift/hookspecs.py for the hooks",
    )


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
        raise PluginError(
            f"the plugin {path} does not load", got=f"{type(error).__name__}: {error}"
        ) from error
    return module


def refuse_misspelt_hooks(manager: Manager) -> None:
    """pluggy keeps an unknown hook name silently for later; here there is no later."""
    known = [name for name in vars(hookspecs) if name.startswith("minift_")]
    for name, plugin in manager.list_name_plugin():
        for caller in (manager.get_hookcallers(plugin) or ()) if plugin is not None else ():
            if caller.name not in known:
                raise PluginError(
                    f"the plugin {name!r} implements a hook that does not exist",
                    got=caller.name,
                    expected=nearest(caller.name, known),
                    do=f"correct the name, or leave the plugin out with -p no:{name}",
                )


def registry(manager: Manager, hook: str) -> dict[str, Registered]:
    """All answers of a registrar as one dict.

    Raises:
        PluginError: two plugins give the same name; which of them wins must not be chance.
    """
    found: dict[str, Registered] = {}
    for impl in getattr(manager.hook, hook).get_hookimpls():
        note_call(hook, impl.plugin_name)
        for name, value in (impl.function() or {}).items():
            if name in found:
                raise PluginError(
                    f"{name!r} is given by two plugins to {hook}",
                    got=f"{found[name].plugin} and {impl.plugin_name}",
                    expected="one plugin for each name",
                    do=f"leave one out, for example with -p no:{impl.plugin_name}",
                )
            found[name] = Registered(value, impl.plugin_name)
    return found


def provided(hook: str, name: str, bringer: str) -> Any:
    """What a plugin gives to a registrar under this name.

    Raises:
        PluginError: none does; the message names `bringer`, the plugin that would.
    """
    found = registry(default_manager(), hook)
    if name not in found:
        raise PluginError(
            f"no plugin brings {name!r} (hook {hook})",
            got=", ".join(sorted(found)) or "nothing",
            do=f"do not leave out {bringer}; `minift plugins` shows which are loaded",
        )
    return found[name].value


def observe(
    manager: Manager, hook: str, report: Callable[[str], None], /, **arguments: object
) -> None:
    """Tell every observer; one that fails is reported and unplugged, and training goes on."""
    for impl in reversed(getattr(manager.hook, hook).get_hookimpls()):
        note_call(hook, impl.plugin_name)
        try:
            impl.function(*(arguments[name] for name in impl.argnames))
        except Exception as error:  # an observer must never be able to end a run
            manager.unregister(impl.plugin)
            report(
                f"the plugin {impl.plugin_name} failed in {hook} and is unplugged for this run: "
                f"{type(error).__name__}: {error}"
            )


def tracing() -> bool:
    """MINIFT_TRACE=1: every hook call is printed to stderr."""
    return os.environ.get("MINIFT_TRACE") == "1"


def note_call(hook: str, plugin: str) -> None:
    """Registrars and observers are asked one by one, to know who answers; trace them here."""
    if tracing():
        print(f"hook {hook} -> {plugin}", file=sys.stderr)


def trace(manager: Manager) -> None:
    """Print the calls that go through pluggy itself: finders and decisions, with their answer."""

    def before(name: str, impls: Sequence[Any], arguments: Mapping[str, Any]) -> None:
        note_call(name, ", ".join(impl.plugin_name for impl in impls) or "nobody")

    def after(outcome: Any, name: str, impls: Any, arguments: Any) -> None:
        print(f"hook {name} = {outcome.get_result()!r:.200}", file=sys.stderr)

    manager.add_hookcall_monitoring(before, after)


def find_checkpoint(name: str, revision: str | None = None, component: str = "model") -> Path:
    """The folder of a model or tokenizer: a local path, or what a plugin finds under the name.

    Args:
        name: a path or a name.
        revision: a version, for plugins.
        component: what of it: "model", "tokenizer" or "config".

    Raises:
        MissingFileError: it is neither.
    """
    return locate_checkpoint(name, revision, component).folder


def locate_checkpoint(
    name: str, revision: str | None = None, component: str = "model"
) -> ResolvedCheckpoint:
    """The same, and where the folder comes from."""
    local = Path(name).expanduser()
    if local.is_dir():
        return ResolvedCheckpoint(local, str(local))
    find = default_manager().hook.minift_find_checkpoint
    found = find(name=name, revision=revision, component=component)
    if found is None:
        raise MissingFileError(
            f"there is no model {name!r}",
            got="no such folder, and no plugin knows the name",
            expected="a folder with config.json, model.safetensors and tokenizer.json",
            do="check the path, or see `minift plugins` for what can find models by name",
        )
    if isinstance(found, ResolvedCheckpoint):
        return found
    return ResolvedCheckpoint(Path(found), str(found))
