"""The shape of the code: who may import whom, how large things may grow, what the core never names.

Each rule reads the source, so breaking one fails here before anybody has to notice it.
"""

import ast
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "minift"
PLUGINS = sorted(p.parent for p in (ROOT / "plugins").glob("*/__init__.py"))

# A file imports only from rows above it: at the top, inside functions, under TYPE_CHECKING.
# minift/__init__.py apart: it is the list of public names and opens their files when one is used.
ROWS = [
    ["errors"],
    ["files", "signals", "settings"],
    ["hookspecs", "rng", "distributed", "subprocesses", "tasks"],
    ["plugins"],
    ["device"],
    ["data.class_label"],
    ["data.features", "data.indices"],
    ["data.storage"],
    ["data.cache"],
    ["data.ragged", "data.pool", "data.fingerprint.functions"],
    ["data.fingerprint.values"],
    ["data.formatting"],
    ["data.file_formats"],
    ["data.table"],
    ["data.lazy", "data.selecting", "data.columns", "data.combining"],
    ["data.splitting"],
    ["data.mapping.call"],
    ["data.mapping.shards"],
    ["data.mapping.cache"],
    ["data.dataset"],
    ["data.loading"],
    ["encoding"],
    ["tokenizer"],
    ["collate"],
    ["models.config", "models.unpadding", "models.weights"],
    ["models.attention", "models.pretrained"],
    ["models.encoder", "models.heads"],
    ["models.bert"],
    ["models.auto"],
    ["optim", "schedule", "evaluate"],
    ["training.compatibility"],
    ["training.arguments", "training.losses"],
    ["training.run", "training.checks", "training.trackers"],
    ["training.serialization"],
    ["training.batches"],
    ["training.evaluation"],
    ["training.recorder", "training.checkpoint"],
    ["training.loop"],
    ["training.trainer"],
    ["accelerate.prepared"],
    ["accelerate.accelerator"],
    ["cli"],
]
# Underscore names of libraries that our files read, and why there is no other way.
PRIVATE = {
    "_base": "what a slice of a batch is a view of; on XLA a shared storage does not say it",
    "_version": "whether backward has added to a gradient (torch's notes on in-place operations)",
    "_exit": "os._exit is documented; the underscore warns of what it leaves undone",
    "_foreach_div_": "one kernel for all gradients, as torch.nn.utils.clip_grad_norm_ has it",
    "_get_fused_kernels_supported_devices": "which devices have a fused AdamW is said nowhere else",
    "_orig_mod": "the model inside of torch.compile, as accelerate takes it out",
    "_utils": "torch._utils holds _unflatten_dense_tensors",
    "_unflatten_dense_tensors": "views of a flat tensor, as DistributedDataParallel makes them",
    "_modules": "a submodule by name without nn.Module.__getattr__, once a layer",
    "_forward_hooks": "whether a module has hooks is asked of these, as nn.Module.__call__ does",
    "_forward_pre_hooks": "as _forward_hooks",
    "_backward_hooks": "as _forward_hooks",
    "_backward_pre_hooks": "as _forward_hooks",
    "_has_any_global_hook": "as _forward_hooks, for hooks of all modules",
    "_XLAC": "torch_xla's compiled part: moves many tensors to the host in one transfer",
    "_xla_get_cpu_tensors": "as _XLAC",
}
# Code lines: who needs room makes it. The aim is 6,900 in minift/ without the kits. It stood at
# 7,200 before the faults of public reports were mended; what that added is to be paid back first.
BUDGETS = {"minift/data": 2535, "minift": 7200, "plugins": 6500}
DEVICE_PLUGINS = ("minift_cpu", "minift_cuda", "minift_generic", "minift_xla")
PEERS = {"transformers", "datasets", "accelerate", "evaluate"}
BACKENDS = re.compile(r"\b(cuda|xla|tpu|mps|xpu|hpu|torch_xla|huggingface_hub)\b", re.IGNORECASE)


def sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[str]:
    """Modules that a file imports, wherever in it; `from a import b` is a.b where that is one."""
    base = CORE.parent if CORE in path.parents else ROOT / "plugins"
    package = list(path.relative_to(base).parent.parts) if base in path.parents else []
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inside = f"{module}.{alias.name}"
                found.append(inside if is_module(base, inside) else module)
    return found


def is_module(base: Path, name: str) -> bool:
    path = base / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def code_lines(text: str) -> int:
    """Lines that hold code: no docstrings, comments or blank lines."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings.update(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    lines = set()
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*skip, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def test_every_file_has_a_row():
    listed = {name for row in ROWS for name in row}
    there = {module_name(path) for path in sources(CORE)}
    packages = {
        "__main__",
        "accelerate",
        "data",
        "data.fingerprint",
        "data.mapping",
        "models",
        "training",
    }
    kit = {name for name in there if name.split(".")[0] == "testing"}  # uses the rest as anybody
    assert there - {"__init__"} - packages - kit == listed


def test_files_import_only_from_rows_above():
    height = {name: i for i, row in enumerate(ROWS) for name in row}
    wrong = set()
    for path in sources(CORE):
        name = module_name(path)
        if name in height:
            for imported in imports(path):
                target = imported.removeprefix("minift.")
                if target in height and height[target] >= height[name]:
                    wrong.add((name, target))
    assert not wrong


def test_the_core_takes_public_names_from_their_files():
    """An import from `minift` itself would hide which file it leads to."""
    for path in sources(CORE):
        if "testing" in path.parts:  # the kit for authors of plugins: it uses the rest as anybody
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "minift":
                names = {alias.name for alias in node.names} - {"__version__"}
                assert all(is_module(ROOT, f"minift.{name}") for name in names), path


@pytest.mark.parametrize("plugin", PLUGINS, ids=[folder.name for folder in PLUGINS])
def test_files_of_a_plugin_import_each_other_in_no_circle(plugin):
    """And none imports the package's own `__init__`, which stands above all of them."""
    graph = {}
    for path in sources(plugin):
        name = ".".join(path.relative_to(plugin.parent).with_suffix("").parts)
        package = f"{plugin.name}."
        names = {imported for imported in imports(path) if f"{imported}.".startswith(package)}
        assert plugin.name not in names, f"{path} imports {plugin.name} itself"
        graph[name] = names
    while free := [name for name, names in graph.items() if not names & set(graph)]:
        for name in free:
            del graph[name]
    assert not graph, "each of these imports another of them"


def test_no_file_reads_the_underscore_names_of_another():
    found = set()
    for path in [*sources(CORE), *sources(ROOT / "plugins")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                names.update(alias.name for alias in node.names)
        for name in names - private_definitions(tree):
            if name.startswith("_") and not name.endswith("__"):
                found.add((path.relative_to(ROOT).as_posix(), name))
    assert not {one for one in found if one[1] not in PRIVATE}
    assert {name for _, name in found} >= set(PRIVATE), "strike out what no file reads"


def private_definitions(tree: ast.Module) -> set[str]:
    """Names that a file defines itself, in a class, on self or cls, or as its own variables."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.update({node.attr} if ast.unparse(node.value) in ("self", "cls") else ())
    return names


def test_no_peer_is_imported_outside_the_parity_tests():
    for folder in (CORE, ROOT / "plugins", ROOT / "examples"):
        for path in sources(folder):
            tops = {name.partition(".")[0] for name in imports(path)}
            assert not tops & PEERS, path


def test_the_core_imports_no_plugin():
    for path in sources(CORE):
        assert not [name for name in imports(path) if name.startswith("minift_")], path


def test_the_core_names_no_backend():
    """In code: names and strings. Comments and docstrings may, and one table of older spellings."""
    for path in sources(CORE):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        aliases = set()
        if path.name == "compatibility.py":
            table = next(
                n for n in tree.body if getattr(getattr(n, "target", None), "id", "") == "ALIASES"
            )
            aliases = {id(n) for n in ast.walk(table)}
        for node in ast.walk(tree):
            if id(node) in docs or id(node) in aliases:
                continue
            words = [getattr(node, key, None) for key in ("id", "attr", "arg", "name", "value")]
            for word in words:
                if isinstance(word, str) and BACKENDS.search(word.replace("_", " ")):
                    pytest.fail(f"{path.name}:{node.lineno} names {word!r}")


def test_nothing_opens_a_pickle_or_runs_text():
    """No torch.load, pickle, eval or exec anywhere in what is installed."""
    for folder in (CORE, ROOT / "plugins"):
        for path in sources(folder):
            if path != CORE / "subprocesses.py":  # its pipes to the processes that it started
                assert not {"pickle", "dill", "cloudpickle", "marshal"} & set(imports(path)), path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in ("torch.load", "eval", "exec", "torch.save"), path


def lines_of(folder: Path) -> int:
    """Code lines of all files in a folder, the kits in minift/testing apart."""
    files = [path for path in sources(folder) if path.parent != CORE / "testing"]
    return sum(code_lines(path.read_text(encoding="utf-8")) for path in files)


@pytest.mark.parametrize("folder", BUDGETS)
def test_budget_of_a_folder(folder):
    assert lines_of(ROOT / folder) <= BUDGETS[folder]


@pytest.mark.parametrize("name", DEVICE_PLUGINS)
def test_budget_of_a_device_plugin(name):
    assert lines_of(ROOT / "plugins" / name) <= 220


def test_budget_of_files_and_functions():
    for path in [*sources(CORE), *sources(ROOT / "plugins")]:
        text = path.read_text(encoding="utf-8")
        assert code_lines(text) <= 300, path
        source = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = textwrap.dedent("\n".join(source[node.lineno - 1 : node.end_lineno]))
                limit = 80 if (path.name, node.name) == ("loop.py", "train") else 50
                size = code_lines(body)
                assert size <= limit, f"{path.name}: {node.name} has {size} lines of code"


@pytest.mark.parametrize(
    "command",
    ["import minift", "from minift.cli import main; main(['plugins'])"],
    ids=["import", "plugins"],
)
def test_torch_is_not_imported_before_it_is_needed(command):
    check = "import sys; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", f"{command}; {check}"], check=True, capture_output=True)


def test_every_public_name_is_there():
    import minift

    for name in minift.__all__:
        assert getattr(minift, name) is not None
    from minift import evaluate

    assert callable(evaluate.load)
    with pytest.raises(AttributeError, match="Trainr"):
        _ = minift.Trainr


def test_public_names_are_found_where_editors_see_them():
    import minift

    assert dir(minift) == sorted(minift.__all__) and "Trainer" in minift.__all__
    assert minift.Trainer.__module__ == "minift.training.trainer"


def test_the_counter_counts_code():
    text = (
        '"""Doc\nstring."""\n\n# comment\nx = """a\nb"""\n\n\ndef f():\n    "doc"\n    return x\n'
    )
    assert code_lines(text) == 4
