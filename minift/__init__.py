"""minift: fine-tune pretrained encoders with a stack that one person can read in a weekend.

The public names are those of the Hugging Face course, chapter 3. They are listed in `__init__.pyi`,
where editors and type checkers find them, and imported on first use (PEP 562), so that
`import minift` costs milliseconds and `minift --help` never loads torch.
Where to start reading: `hookspecs.py` is the map, `training/loop.py` the heart.
"""

import ast
import importlib
import pkgutil
from typing import Any

__version__ = "0.1.0"

_STUB = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
_IMPORTS = [node for node in _STUB.body if isinstance(node, ast.ImportFrom)]
_HOME = {alias.name: str(node.module) for node in _IMPORTS for alias in node.names}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minift' has no attribute {name!r}")
    if _HOME[name] == __name__:  # a module: `from minift import evaluate`
        return importlib.import_module(f"{__name__}.{name}")
    globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
