"""Fingerprints: equal in every process, and different as soon as a result could be.

A stale result is the worst that a cache can do, so most of these edit something that a function
reads, however far away, and ask that its fingerprint moves. The others edit what does not matter.
"""

import collections
import copy
import dataclasses
import dis
import enum
import functools
import importlib
import io
import operator
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import types
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from minift import ClassLabel, Dataset, Value
from minift.data.fingerprint import functions
from minift.data.fingerprint.functions import Unhashable, library
from minift.data.fingerprint.values import fingerprint
from minift.data.formatting import Format


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write files of a user's project; import one of them as new."""
    monkeypatch.syspath_prepend(tmp_path)
    mine = set()

    def load(name: str, files: dict[str, str]) -> types.ModuleType:
        for file, text in files.items():
            path = tmp_path / f"{file}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        for old in [m for m in sys.modules if m.partition(".")[0] in mine]:
            del sys.modules[old]
        mine.update(p.stem for p in tmp_path.iterdir())
        for cached in tmp_path.rglob("__pycache__/*"):
            cached.unlink()
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield load
    for old in [m for m in sys.modules if m.partition(".")[0] in mine]:
        del sys.modules[old]


def edited(project, before: dict[str, str], after: dict[str, str], name: str = "main") -> bool:
    """Whether the fingerprint of `f` in the module changes when files do."""
    first = fingerprint(project(name, before).f)
    assert fingerprint(project(name, before).f) == first, "not even stable"
    return fingerprint(project(name, before | after).f) != first


def of(source: str, name: str = "f", **scope) -> str:
    """The fingerprint of something that a source defines, as a notebook's cell would."""
    scope |= {"__name__": "__main__"}
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), scope)
    return fingerprint(scope[name])


# --- the same in every process -------------------------------------------------------------------

EVERYTHING = """
    import collections, dataclasses, enum, functools, pathlib, re, sys
    import numpy as np
    from minift.data.fingerprint.values import fingerprint

    STOP = {"the", "a", "of", "and", "to", "in", "that", "it", "is", "was"}
    FROZEN = frozenset(["x", "y", "z", ("t", 1)])

    class Color(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Base:
        limit = 3
        def cut(self, words): return words[: self.limit]

    @dataclasses.dataclass
    class Cfg(Base):
        size: int = 4
        tags: set = dataclasses.field(default_factory=lambda: {"p", "q", "r"})

    @functools.lru_cache
    def helper(x):
        import json
        return json.dumps(x) if x in {"one", "two", "three"} else x

    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)

    def f(row, *, scale=2.0, config=Cfg()):
        import minift.errors
        words = [w for w in row["text"].split() if w not in STOP and w not in FROZEN]
        return {"n": len(words) * scale, "h": helper(Color.RED.value), "e": even(3),
                "c": config.cut(words), "np": np.mean([1]), "re": PATTERN.sub("", "x")}

    PATTERN = re.compile("[a-z]+", re.I)
    values = [f, STOP, FROZEN, Cfg(), Cfg, Color.BLUE, Color, PATTERN, np.arange(5), np.float32(1),
              pathlib.PurePosixPath("/a"), {"b": 1, "a": 2}, collections.Counter("hello"),
              functools.partial(f, scale=1.0), Cfg().cut, helper, print, len, str.upper, None]
    print([fingerprint(value) for value in values])
"""


def test_stable_across_processes_and_hash_seeds(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(EVERYTHING))
    said = set()
    for seed in ("0", "1", "77"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = [sys.executable, str(script)]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1
    digests = eval(said.pop())
    assert len(set(digests)) == len(digests) == 20, "two of these are not the same thing"
    assert all(len(digest) == 32 for digest in digests)


def test_what_is_loaded_already_does_not_matter(tmp_path):
    """A function that imports a library when it runs: the same before and after that."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from minift.data.fingerprint.values import fingerprint
            def f(x):
                import pluggy, xml.dom.minidom, packaging.version
                return pluggy.__version__ + x
            if sys.argv[1] == "load":
                f("")
            assert ("pluggy" in sys.modules) == (sys.argv[1] == "load"), "tests nothing"
            print(fingerprint(f))
        """)
    )
    runs = [[sys.executable, str(script), how] for how in ("load", "not")]
    said = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for run in runs]
    assert said[0] == said[1]


def test_torch_is_not_imported():
    code = """
        import sys
        from minift.data.fingerprint.values import fingerprint
        def f(x):
            import torch
            return torch.tensor(x)
        fingerprint(f, {"a": [1.5]}, None)
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_calling_a_function_does_not_change_it():
    """CPython rewrites the bytecode of what runs often."""
    scope: dict = {}
    source = "def f(x):\n    y = 0\n    for i in range(x): y += i * len(str(i))\n    return y\n"
    exec(source, scope)
    before = fingerprint(scope["f"])
    for _ in range(200):
        scope["f"](50)
    assert fingerprint(scope["f"]) == before


# --- what does not matter ------------------------------------------------------------------------

PLAIN = """
    LIMIT = 3
    def f(row):
        words = row["text"].split()
        return {"n": len(words[:LIMIT])}
"""


@pytest.mark.parametrize(
    "source",
    [
        PLAIN.replace("    LIMIT", "\n\n\n    # moved\n    LIMIT"),
        PLAIN.replace("words = row", "# a comment\n\n        words = row"),
        PLAIN.replace(".split()", ".split()  # a comment"),
        PLAIN.replace("words", "tokens"),
        PLAIN.replace(
            '{"n": len(words[:LIMIT])}', '{\n            "n": len(words[:LIMIT]),\n        }'
        ),
        PLAIN + "\n    OTHER = 5\n    def g(row): return OTHER\n",
        "    import os\n" + PLAIN,
    ],
)
def test_what_does_not_matter(source):
    assert of(source) == of(PLAIN)


def test_the_file_does_not_matter(project):
    text = textwrap.dedent(PLAIN)
    files = {"one": text, "two": "\n\n" + text}
    assert fingerprint(project("one", files).f) == fingerprint(project("two", files).f)


def test_comments_in_a_helpers_module_do_not_matter(project):
    before = {"main": "import helpers\ndef f(x): return helpers.clean(x)\n"}
    before |= {"helpers": "def clean(x): return x.strip()\n"}
    after = {"helpers": "# better\n\nimport json\n\ndef clean(x):\n    return x.strip()  # ok\n"}
    assert not edited(project, before, after)


# --- what does -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = True"),
        ('"text"', '"txt"'),
        (".split()", ".rsplit()"),
        ("def f(row)", "def f(row, k=1)"),
        ("def f(row)", "def f(row, *, k=1)"),
        ("len(words", "sum(words"),
        ('return {"n"', 'yield {"n"'),
    ],
)
def test_an_edit_of_the_function(old, new):
    assert old in PLAIN
    assert of(PLAIN.replace(old, new)) != of(PLAIN)


# The same instructions; only the table of what is guarded differs.
IN_TRY = """
    def f(x):
        for i in x:
            try:
                int(i)
                str(i)
            except KeyError:
                pass
"""
BEHIND_TRY = """
    def f(x):
        for i in x:
            try:
                int(i)
            except KeyError:
                pass
            else:
                str(i)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def f(x, k=1): return k", "def f(x, k=2): return k"),
        ("def f(x, *, k=1): return k", "def f(x, *, k=2): return k"),
        ("f = lambda x: x + 1", "f = lambda x: x + 2"),
        ("def f(x): return [y + 1 for y in x]", "def f(x): return [y + 2 for y in x]"),
        ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
        ("N = [1, 2]\ndef f(x): return N", "N = [2, 1]\ndef f(x): return N"),
        ("N = {'a': 0, 'b': 1}\ndef f(x): return N", "N = {'b': 1, 'a': 0}\ndef f(x): return N"),
        ("def f(x):\n  try: return 1\n  except KeyError: pass", "def f(x):\n  return 1"),
        (
            "def f(x):\n  def g(): return LIMIT\n  return g\nLIMIT = 1",
            "def f(x):\n  def g(): return LIMIT\n  return g\nLIMIT = 2",
        ),
        (
            "def f(x):\n  class A:\n    n = LIMIT\n  return A\nLIMIT = 1",
            "def f(x):\n  class A:\n    n = LIMIT\n  return A\nLIMIT = 2",
        ),
        ("def f(x): return f.k\nf.k = 1", "def f(x): return f.k\nf.k = 2"),
        ("def f(x): return -0.0", "def f(x): return 0.0"),
        ("def f(x, k): return 1", "def f(x, n): return 1"),  # fn_kwargs may name it
        ("def f(x, *k): return k", "def f(x, **k): return k"),
        (IN_TRY, BEHIND_TRY),
    ],
)
def test_an_edit_around_the_function(old, new):
    assert of(old) != of(new)


def test_closures():
    def make(k):
        return lambda x: x + k

    assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(make(make(1))) != fingerprint(make(make(2)))

    def late(x):
        return unset + x

    before = fingerprint(late)
    unset = 1
    assert fingerprint(late) != before


@pytest.mark.parametrize(
    "main",
    [
        "from helpers import clean\ndef f(x): return clean(x)\n",
        "import helpers\ndef f(x): return helpers.clean(x)\n",
        "import helpers as h\ndef f(x):\n    c = h\n    return c.clean(x)\n",
        "import helpers\ndef f(x): return getattr(helpers, 'clean')(x)\n",
        "import helpers\nTOOLS = [helpers]\ndef f(x): return TOOLS[0].clean(x)\n",
        "import helpers\ndef f(x, tools=helpers): return tools.clean(x)\n",
        "import helpers\nf = helpers.clean\n",
        "import functools, helpers\nf = functools.partial(helpers.clean)\n",
        "def f(x):\n    import helpers\n    return helpers.clean(x)\n",
        "def f(x):\n    from helpers import clean\n    return clean(x)\n",
        "def f(x):\n    def g():\n        import helpers\n        helpers.clean(x)\n    g()\n",
        "import helpers\nclass C:\n    def run(self, x): return helpers.clean(x)\nf = C().run\n",
        "import helpers\nclass C:\n    def __call__(self, x): return helpers.clean(x)\nf = C()\n",
        "import helpers\nclass C: go = staticmethod(helpers.clean)\ndef f(x): return C.go(x)\n",
        "import functools, helpers\ng = functools.cache(helpers.clean)\ndef f(x): return g(x)\n",
        "import functools, helpers\n@functools.cache\ndef f(x): return helpers.clean(x)\n",
        "import functools, helpers\n@functools.wraps(len)\ndef f(x): return helpers.clean(x)\n",
    ],
)
def test_a_helper_in_another_module(project, main):
    """F1: `datasets` returns the old result for each of these."""
    before = {"main": main, "helpers": "def clean(x): return x.strip()\n"}
    assert edited(project, before, {"helpers": "def clean(x): return x.lower()\n"})


@pytest.mark.parametrize(
    "main",
    [
        "from helpers import clean\ndef f(x): return clean(x)\n",
        "import helpers\ndef f(x): return helpers.clean(x)\n",
        "def f(x):\n    import helpers\n    return helpers.clean(x)\n",
        "import helpers\ndef f(x, tools=helpers): return tools.clean(x)\n",
    ],
)
@pytest.mark.parametrize(
    "helpers",
    [
        "import deep\ndef clean(x): return deep.strip(x)\n",
        "from deep import strip\ndef clean(x): return strip(x)\n",
        "def clean(x):\n    from deep import strip\n    return strip(x)\n",
    ],
)
def test_a_helper_of_a_helper(project, main, helpers):
    before = {"main": main, "helpers": helpers, "deep": "def strip(x): return x.strip()\n"}
    assert edited(project, before, {"deep": "def strip(x): return x.rstrip()\n"})


@pytest.mark.parametrize(
    "main",
    [
        "import pkg.sub\ndef f(x): return pkg.sub.clean(x)\n",
        "from pkg import sub\ndef f(x): return sub.clean(x)\n",
        "def f(x):\n    import pkg.sub\n    return pkg.sub.clean(x)\n",
        "def f(x):\n    from pkg import sub\n    return sub.clean(x)\n",
        "def f(x):\n    from pkg.sub import clean\n    return clean(x)\n",
    ],
)
@pytest.mark.parametrize("package", [{"pkg/__init__": ""}, {}], ids=["package", "namespace"])
def test_a_helper_in_a_package(project, main, package):
    """A folder without __init__.py is a user's too."""
    files = {"main": main, "pkg/sub": "def clean(x): return 1\n", **package}
    assert edited(project, files, {"pkg/sub": "def clean(x): return 2\n"})


def test_relative_imports_in_a_function(project):
    inner = "def f(x):\n    from .sub import clean\n    from . import other\n    return clean(x)\n"
    files = {"pkg/inner": inner, "pkg/sub": "def clean(x): return 1\n", "pkg/other": "N = 1\n"}
    assert edited(project, files, {"pkg/sub": "def clean(x): return 2\n"}, "pkg.inner")
    assert edited(project, files, {"pkg/other": "N = 2\n"}, "pkg.inner")


def test_a_user_s_module_with_a_name_like_ours(project):
    before = {"main": "from minift_tools import g\ndef f(x): return g(x)\n"}
    before |= {"minift_tools": "def g(x): return 1\n"}
    assert edited(project, before, {"minift_tools": "def g(x): return 2\n"})


def test_a_library_counts_by_its_version(project):
    """Its files do not change by themselves, and are too many to read."""

    def installed(version, source):
        folder = f"site-packages/somelib-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: somelib\nVersion: {version}\n"
        root = project("main", {"main": "", "site-packages/somelib": source}).__file__
        site = pathlib.Path(root).parent / "site-packages"
        for old in site.glob("*.dist-info"):
            shutil.rmtree(old)
        (site.parent / folder).mkdir()
        (site.parent / folder / "METADATA").write_text(metadata)
        sys.path.insert(0, str(site))
        library.cache_clear()
        try:
            sys.modules.pop("somelib", None)
            uses = {
                "main": "import somelib\ndef f(x): return somelib.go(x)\ndef g(x): return go(x)\n"
            }
            uses["main"] += (
                "from somelib import go\ndef h(x):\n    import somelib as s\n    s.go(x)\n"
            )
            main = project("main", uses)
            return [fingerprint(function) for function in (main.f, main.g, main.h)]
        finally:
            sys.path.remove(str(site))
            sys.modules.pop("somelib", None)

    first = installed("1.0", "def go(x): return 1\n")
    assert installed("1.0", "def go(x): return 2\n") == first
    assert not set(installed("1.1", "def go(x): return 1\n")) & set(first)


def test_functions_made_by_exec():
    def made(source):
        scope: dict = {}
        exec(source, scope)
        return scope["f"]

    assert fingerprint(made("def f(x): return 1")) != fingerprint(made("def f(x): return 2"))


def test_modules_are_digested_by_what_is_read_of_them(project):
    before = {"main": "import helpers\ndef f(x): return helpers.clean(x)\n"}
    before |= {"helpers": "def clean(x): return x\ndef other(x): return 1\n"}
    assert not edited(
        project, before, {"helpers": "def clean(x): return x\ndef other(x): return 2\n"}
    )


def test_two_functions_that_read_different_parts_of_one_module(project):
    main = "import helpers\ndef g(x): return helpers.a(x)\ndef f(x): return g(x) + helpers.b(x)\n"
    before = {"main": main, "helpers": "def a(x): return 1\ndef b(x): return 1\n"}
    assert edited(project, before, {"helpers": "def a(x): return 2\ndef b(x): return 1\n"})
    assert edited(project, before, {"helpers": "def a(x): return 1\ndef b(x): return 2\n"})


# --- classes and objects -------------------------------------------------------------------------

CLASS = """
    import abc, dataclasses, enum, functools
    class Meta(type):
        def make(cls): return 1
    class Base(abc.ABC):
        def base(self): return 1
        @abc.abstractmethod
        def todo(self): ...
    class C(Base, metaclass=type("M", (Meta, abc.ABCMeta), {})):
        __slots__ = ("x",)
        limit = 1
        def __init__(self): self.x = 1
        def todo(self): return 1
        @property
        def prop(self): return 1
        @prop.setter
        def prop(self, value): self.x = 1
        @classmethod
        def made(cls): return 1
        @staticmethod
        def free(): return 1
        @functools.cached_property
        def slow(self): return 1
    @dataclasses.dataclass(frozen=True)
    class D:
        size: int = 1
        names: list = dataclasses.field(default_factory=lambda: [1])
        def area(self): return 1
    class E(enum.Enum):
        ONE = 1
        def show(self): return 1
    c, d, e, f = C(), D(), E.ONE, lambda x: C
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("c", "def base(self)"),
        ("c", "def make(cls)"),
        ("c", "limit = 1"),
        ("c", "def __init__(self): self.x = 1"),
        ("c", "def todo(self): return"),
        ("c", "def prop(self): return"),
        ("c", "def prop(self, value)"),
        ("c", "def made(cls)"),
        ("c", "def free()"),
        ("c", "def slow(self)"),
        ("f", "def slow(self)"),
        ("d", "size: int"),
        ("d", "lambda: [1]"),
        ("d", "def area(self)"),
        ("e", "ONE = 1"),
        ("e", "def show(self)"),
    ],
)
def test_an_edit_of_a_class(name, line):
    assert of(CLASS, name) == of(CLASS, name)
    (old,) = [text for text in CLASS.splitlines() if line in text]
    assert "1" in old
    assert of(CLASS.replace(old, old.replace("1", "2")), name) != of(CLASS, name)


@dataclasses.dataclass
class Config:
    size: int = 1
    inner: object = None


def test_objects_by_their_content():
    assert fingerprint(Config(1)) == fingerprint(Config(1)) != fingerprint(Config(2))
    assert fingerprint(Config(inner=Config(3))) != fingerprint(Config(inner=Config(4)))
    one, two = Config(), Config()
    one.late, one.later = 1, 2
    two.later, two.late = 2, 1
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(Config(1).__eq__) != fingerprint(Config(2).__eq__)


def test_an_objects_own_word():
    class Tokenizer:
        def __init__(self, vocabulary):
            self.vocabulary, self.cache = vocabulary, {}

        def __fingerprint__(self):
            return str(self.vocabulary)

    used = Tokenizer("abc")
    used.cache["x"] = threading.Lock()
    assert fingerprint(used) == fingerprint(Tokenizer("abc")) != fingerprint(Tokenizer("abd"))
    assert fingerprint(lambda x: used) != fingerprint(lambda x: Tokenizer)
    assert fingerprint(Tokenizer)  # the class itself has no own word


def test_a_dataset_that_a_function_reads():
    first, again = Dataset.from_dict({"x": [[1], [2]]}), Dataset.from_dict({"x": [[1], [2]]})
    first.lengths("x")  # what it keeps for itself does not count
    readers = [functools.partial(print, dataset) for dataset in (first, again)]
    assert fingerprint(readers[0]) == fingerprint(readers[1])
    other = Dataset.from_dict({"x": [[1], [3]]})
    assert fingerprint(first) != fingerprint(other)
    assert fingerprint(first) != fingerprint(first.with_format("numpy"))
    assert fingerprint(first) != fingerprint(first.select([1, 0]))


def test_methods_partials_and_builtins():
    def f(a, b=1):
        return a

    different = [
        *(f, functools.partial(f, 1), functools.partial(f, 2), functools.partial(f, b=1)),
        *(Config(1).__repr__, Config(2).__repr__, Config, print, len, np.mean, np.max, np.add),
        *("ab".upper, "ac".upper, "ab".lower, str.upper, str.lower, [1].append, [2].append),
        *(shutil.ignore_patterns("a"), shutil.ignore_patterns("b")),
        *(operator.itemgetter(1), operator.itemgetter(2), operator.add, math_floor(), dict.get),
    ]
    digests = [fingerprint(value) for value in different]
    assert len(set(digests)) == len(digests)
    two = [functools.partial(f, b=1, a=2), functools.partial(f, a=2, b=1)]
    assert fingerprint(two[0]) == fingerprint(two[1])


def math_floor():
    import math

    return math.floor


# --- plain values --------------------------------------------------------------------------------


def test_different_values_are_different():
    long = "a" * 300
    values = [
        *(None, True, False, 0, 1, 2, -1, 1.0, 0.0, -0.0, float("nan"), float("inf"), 1j, ...),
        *("", "1", "a", b"", b"1", b"a", bytearray(b"a"), "\ud800"),
        *((), [], {}, set(), frozenset(), (1,), [1], {1}, frozenset([1]), {1: 1}, [[1]], [(1,)]),
        *([1, 2], [2, 1], ["ab", "c"], ["a", "bc"], {"a": {"b": 1}}, {"a": {}, "b": 1}),
        *({1: "a", 2: "b"}, {2: "b", 1: "a"}, collections.OrderedDict(a=1), {"a": 1}),
        *(
            collections.Counter("ab"),
            collections.deque([1]),
            range(3),
            range(4),
            slice(1),
            slice(2),
        ),
        *(re.compile("a"), re.compile("a", re.I), re.compile(b"a")),
        *(re.compile(long + "x"), re.compile(long + "y")),  # whose repr is cut
        *(pathlib.PurePosixPath("a"), pathlib.PurePosixPath("b"), date(2020, 1, 1)),
        *(
            datetime(2020, 1, 1),
            types.MappingProxyType({"a": 1}),
            random.Random(0),
            random.Random(1),
        ),
        *(np.random.default_rng(0), np.random.default_rng(1)),
        *(Value("int8"), Value("int16"), ClassLabel(names=["a"]), ClassLabel(names=["b"])),
        *(Format("torch"), Format("numpy"), int, float, str, np.ndarray, np, os, os.path),
        *(list[int], list[str], int | None, enum.Enum, Exception("a"), Exception("b")),
    ]
    digests: dict[str, object] = {}
    for value in values:
        assert fingerprint(value) not in digests, (value, digests[fingerprint(value)])
        digests[fingerprint(value)] = value


def test_arguments_do_not_run_together():
    assert fingerprint("a", "b") != fingerprint("ab") != fingerprint(("a", "b"))
    assert fingerprint(["a", "b"], "c") != fingerprint(["a"], "b", "c")


def test_sets_do_not_depend_on_their_order():
    words = [f"word {i}" for i in range(50)]
    assert fingerprint(set(words)) == fingerprint(set(reversed(words)))

    def f(x):
        return x

    g = functools.partial(f, 1)
    assert fingerprint({f, g, Config, 1}) == fingerprint({1, Config, g, f})
    assert fingerprint([{f, g}, f]) == fingerprint([{g, f}, f])


def test_equal_containers_are_equal_whether_shared_or_not():
    row, text = [1, 2], "".join(["sha", "red"])
    assert fingerprint([row, row]) == fingerprint([[1, 2], [1, 2]])
    assert fingerprint([text, text]) == fingerprint(["shared", "sha" + "red"])


def test_numpy():
    base = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert fingerprint(base) == fingerprint(np.asfortranarray(base)) == fingerprint(base.copy())
    assert fingerprint(base[:, ::2]) == fingerprint(base[:, ::2].copy())
    structured = np.zeros(1, dtype=[("a", "i4"), ("b", "i4")])
    different = [
        *(base, base.T, base.ravel(), base.astype(np.int64), base.view(np.float32), base + 1),
        *(np.int32(1), np.int64(1), np.float32(1), np.array(1, np.int32), np.array([1], np.int32)),
        *(np.array(["a"]), np.array(["a"], dtype=object), np.array([None, "b"], dtype=object)),
        *(structured, np.zeros(1, dtype=[("a", "i4"), ("c", "i4")]), base.tolist()),
        *(np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
        *(np.datetime64("2020-01-01"), np.dtype("i4"), np.dtype("i8")),
    ]
    digests = [fingerprint(value) for value in different]
    assert len(set(digests)) == len(digests)


def test_torch_tensors():
    base = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert fingerprint(base) == fingerprint(base.clone().requires_grad_())
    assert fingerprint(base.t()) == fingerprint(base.t().contiguous())
    different = [
        base,
        base.t(),
        base.double(),
        base.bfloat16(),
        base + 1,
        base.bool(),
        base.flatten(),
    ]
    different += [torch.empty(0), torch.empty(0, 2), torch.tensor(1.0), torch.nn.Parameter(base)]
    different += [torch.float32, torch.float16, torch.device("cpu"), base.numpy()]
    digests = [fingerprint(value) for value in different]
    assert len(set(digests)) == len(digests)


def test_modules_of_torch():
    layer = torch.nn.Linear(2, 2)
    same = torch.nn.Linear(2, 2)
    same.load_state_dict(layer.state_dict())
    assert fingerprint(layer) == fingerprint(same)
    with torch.no_grad():
        same.weight[0, 0] += 1
    assert fingerprint(layer) != fingerprint(same)


def test_arrow_tables_by_their_content():
    columns = {
        "i": [1, None, 3, 4, 5],
        "b": [True, False, None, True, True],
        "p": [True, False, True, False, True],
        "s": ["a", None, "", "dd", "e"],
        "l": [[1], None, [], [2, None], [3]],
        "d": [{"x": 1, "y": [True]}, None, {"x": None, "y": None}, {"x": 2, "y": []}, None],
    }
    table = pa.table(columns)
    for start, stop in ((0, 3), (1, 4), (2, 5), (0, 5)):
        fresh = pa.table({n: v[start:stop] for n, v in columns.items()}, schema=table.schema)
        sliced = table.slice(start, stop - start)
        assert fingerprint(sliced) == fingerprint(fresh), (start, stop)
        assert fingerprint(sliced) == fingerprint(fresh.take(np.arange(stop - start)))
    in_chunks = pa.concat_tables([table.slice(0, 2), table.slice(2, 0), table.slice(2)])
    assert fingerprint(in_chunks) == fingerprint(table)
    chance = pa.compute.if_else(pa.array([True, False]), pa.array([1, 2]), None)
    assert fingerprint(pa.table({"x": chance})) == fingerprint(pa.table({"x": [1, None]}))
    assert fingerprint(table.rename_columns(list("abcdef"))) != fingerprint(table)
    different = [
        *([1, None], [None, 1], [1], [1, 0], [1.0, None], ["1", None], [[1], None], [[1], []]),
        *([[1, 2], [3]], [[1], [2, 3]], [[[1], [2]]], [[[1, 2]]], ["ab", "c"], ["a", "bc"]),
        *([{"x": 1}], [{"x": None}], [None, {"x": 1}], [True, False], [False, True], [None], []),
    ]
    digests = [fingerprint(pa.table({"x": values})) for values in different]
    assert len(set(digests)) == len(digests)


# --- cycles --------------------------------------------------------------------------------------


def test_recursion():
    source = "def f(n): return n and f(n - 1)\n"
    assert of(source) == of(source) != of(source.replace("- 1", "- 2"))


def test_mutual_recursion():
    source = "def f(n): return g(n - 1)\ndef g(n): return n and f(n) + h(n)\ndef h(n): return 1\n"
    assert of(source) == of(source)
    for old, new in (("n - 1", "n - 2"), ("n and", "n or"), ("return 1", "return 2")):
        assert of(source.replace(old, new)) != of(source)


def test_a_net_of_functions_is_walked_once():
    """Each of 40 functions calls all the others: more paths than there are atoms."""
    calls = " + ".join(f"f{i}()" for i in range(40))
    source = "".join(f"def f{i}(): return {calls}\n" for i in range(40))
    assert of(source, "f0") == of(source, "f0")
    assert of(source.replace("def f39(): return f0", "def f39(): return 1 + f0"), "f0") != of(
        source, "f0"
    )


def test_containers_in_themselves():
    one: list = [1]
    one.append(one)
    two: list = [1]
    two.append(two)
    other: list = [2]
    other.append(other)
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)
    assert fingerprint(one) != fingerprint([1, one])
    table: dict = {}
    table["self"] = table
    assert fingerprint(table)
    config = Config()
    config.inner = config
    assert fingerprint(config) != fingerprint(Config())


def test_which_one_is_meant_matters():
    a, b = Config(1), Config(1)
    a.inner, b.inner = b, a
    c = Config(1)
    c.inner = c
    assert fingerprint(a) != fingerprint(c)

    def f(x):
        return x

    def g(x):
        return x + 1

    assert fingerprint([f, g, f]) != fingerprint([f, g, g])


# --- what has no content -------------------------------------------------------------------------

LOCK = threading.Lock()


def uses_lock(x):
    with LOCK:
        return x


def uses_helper(x):
    return uses_lock(x)


def test_an_instruction_that_is_not_known_is_no_digest(monkeypatch):
    """A version of Python may read names in another way: a digest could then miss an edit."""

    def reads(x):
        return len(x)

    assert len(fingerprint(reads)) == 32
    monkeypatch.delitem(functions.OPCODES, "LOAD_GLOBAL")
    with pytest.raises(Unhashable, match="'reads'") as info:
        fingerprint(reads)
    assert "LOAD_GLOBAL" in str(info.value) and "cache_key=" in str(info.value)
    assert len(fingerprint(math_floor)) == 32  # no such instruction in it


def test_a_python_that_is_not_known_gives_no_digest(monkeypatch):
    others = tuple(v for v in functions.VERSIONS if v != sys.version_info[:2])
    monkeypatch.setattr(functions, "VERSIONS", others)
    with pytest.raises(Unhashable, match="does not know what it reads"):
        fingerprint(lambda x: x)


def test_every_instruction_of_this_python_that_takes_a_name_is_known():
    """Numbers above 255 are the compiler's own: it replaces them before code runs."""
    names = {name for name, number in dis.opmap.items() if number in dis.hasname and number < 256}
    unknown = names - set(functions.OPCODES)
    assert not [name for name in unknown if not name.startswith("INSTRUMENTED_")]


def test_unhashable_names_the_path():
    with pytest.raises(Unhashable) as caught:
        fingerprint(uses_helper)
    path = "uses_helper -> uses_lock -> global 'LOCK'"
    assert f"cannot fingerprint 'lock' at {path}" in str(caught.value)
    assert "cache_key=" in str(caught.value)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: threading.Lock(), "top"),
        (lambda: io.TextIOWrapper(io.BytesIO()), "TextIOWrapper"),
        (lambda: (i for i in range(3)), "generator"),
        (lambda: [1, {"a": threading.Lock()}], "[1]['a']"),
        (lambda: Config(inner=threading.Lock()), "Config['inner']"),
        (lambda: functools.partial(print, threading.Lock()), "[1][0]"),
    ],
)
def test_what_is_unhashable(make, where):
    with pytest.raises(Unhashable) as caught:
        fingerprint(make())
    assert where in str(caught.value)


def test_unhashable_in_a_closure_or_default():
    lock = threading.Lock()
    with pytest.raises(Unhashable, match="closure 'lock'"):
        fingerprint(lambda x: lock)
    with pytest.raises(Unhashable, match="__defaults__"):
        fingerprint(lambda x=lock: x)


def test_too_deep():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Unhashable, match="too deeply"):
        fingerprint(value)


def test_copying_an_object_does_not_change_its_class():
    """`copyreg` writes into the class what it found there."""

    class Plain:
        __slots__ = ("x",)

    before = fingerprint(Plain)
    copy.copy(Plain())
    assert "__slotnames__" in vars(Plain) and fingerprint(Plain) == before
