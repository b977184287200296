"""A stable digest of any value, and of any function by what it does.

`map` reuses a result when the fingerprint of (input, function, arguments) is known, so two rules
hold. An equal digest must mean an equal result: functions are digested by value and transitively,
with the helpers and globals that they read, wherever these are defined; code of an installed
library counts by the library's name and version. And a digest should not change without a reason:
comments, blank lines, moved lines, the hash seed and the process do not matter. A value without
content (a lock, a socket) has no digest: `Unhashable` names the path to it, and the caller then
computes its result anew each time. When in doubt, recompute.

Reading order:
    functions.py    what a function runs and reads, by its bytecode; whose code a module is
    values.py       any value, which puts these together: `fingerprint`
"""
