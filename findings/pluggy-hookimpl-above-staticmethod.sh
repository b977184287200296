#!/usr/bin/env bash
# pluggy 1.5.0 and 1.6.0: a method that is marked with @hookimpl above @staticmethod is no hook.
# Registering the plugin raises nothing and warns of nothing, and the hook is never called; with the
# two decorators in the other order it is. pluggy 1.7.0 finds both, so a plugin that was written
# with it does nothing at all where an older pluggy is installed.
# Seen on 29 November 2026:
#   1.5.0 ['below']
#   1.6.0 ['below']
#   1.7.0 ['below', 'above']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
cat > "$folder/order.py" <<'PYTHON'
import sys

import pluggy

hookspec, hookimpl = pluggy.HookspecMarker("kitchen"), pluggy.HookimplMarker("kitchen")


class Spec:
    @hookspec
    def greet(self):
        """Return a word."""


class Above:
    @hookimpl
    @staticmethod
    def greet():
        return "above"


class Below:
    @staticmethod
    @hookimpl
    def greet():
        return "below"


manager = pluggy.PluginManager("kitchen")
manager.add_hookspecs(Spec)
for plugin in (Above, Below):
    manager.register(plugin())
found = manager.hook.greet()
print(pluggy.__version__, found)
assert found == sys.argv[1].split(), found
PYTHON
pip install --quiet pluggy==1.5.0
python "$folder/order.py" "below"
pip install --quiet pluggy==1.6.0
python "$folder/order.py" "below"
pip install --quiet pluggy==1.7.0
python "$folder/order.py" "below above"
