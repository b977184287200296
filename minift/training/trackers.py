"""Trackers by name: which observers `report_to` asks for."""

from minift.device import reason_unavailable
from minift.errors import ConfigError
from minift.plugins import Manager, add_plugin, registry


def add_trackers(report_to: str | list[str] | None, manager: Manager) -> None:
    """Register the trackers that are named; of "all", those that can be used here.

    Args:
        report_to: names of trackers, also in one text with commas; "none" is no tracker.
        manager: of one run.

    Raises:
        ConfigError: no plugin provides one, or its library is missing.
    """
    named = report_to.split(",") if isinstance(report_to, str) else report_to or []
    names = [name.strip() for name in named if name.strip() != "none"]
    if not names:
        return
    entries = registry(manager, "minift_register_trackers")
    reasons = {name: reason_unavailable(entry.value) for name, entry in entries.items()}
    usable = [name for name, why in reasons.items() if why is None]
    listed = ", ".join(f"{name} ({why or 'available'})" for name, why in reasons.items())
    for name in {*names} - {*usable, "all"}:
        why = reasons.get(name, "no plugin provides it")
        raise ConfigError(f"report_to={name!r} cannot be used here", got=why, expected=listed)
    for name in usable if "all" in names else dict.fromkeys(names):
        add_plugin(manager, entries[name].value())
