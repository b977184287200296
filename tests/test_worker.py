"""Workers of a map: real processes that give the same bytes, say what went wrong, and go away."""

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest

from minift import Dataset, load_from_disk
from minift.data import pool, storage
from minift.errors import DataError

# So that no worker imports this module, and pytest with it, to find a function.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

posix = pytest.mark.skipif(os.name != "posix", reason="signals")


# --- helpers -------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A file that all processes append to, and its lines; its path is no part of a function."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("TEST_LOG", str(path))
    return lambda: path.read_text().split()


def note(text) -> None:
    descriptor = os.open(os.environ["TEST_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def noted() -> list[str]:
    with open(os.environ["TEST_LOG"]) as file:
        return file.read().split()


@pytest.fixture
def script(tmp_path):
    """Start a script: its path is no package, it has no main guard, its group is its own."""
    started: list[subprocess.Popen] = []

    def start(text: str, **more) -> subprocess.Popen:
        path = tmp_path / f"script_{len(started)}.py"
        path.write_text(textwrap.dedent(text))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, str(path)],
            text=True,
            start_new_session=True,
            **{**pipes, "env": {**environment, "MARK": str(tmp_path)}, **more},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen, code: int | None = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=30)
    assert code is None or process.returncode == code, err
    return out, err


def processes_of(mark: str) -> list[int]:
    """Living processes with MARK=mark in their environment: a script and all that it started."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if f"MARK={mark}".encode() in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def wait_until(condition, seconds: float):
    end = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return answer


def entry(folder) -> dict[str, bytes]:
    """{name: content} of all that a cache holds but its locks."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.parent.name != "locks"
    }


def same_files(ds, function, counts, tmp_path, monkeypatch, **options) -> Dataset:
    """The map for each number of processes, in caches of their own, gives the same bytes.

    With a rank, all calls are made by workers, never by the process of the tests.
    """
    first = None
    for num_proc in counts:
        folder = tmp_path / f"cache-{num_proc}"
        monkeypatch.setenv("MINIFT_CACHE", str(folder))
        result = ds.map(function, with_rank=True, num_proc=num_proc, **options)
        files = entry(folder)
        first = first or (files, result.to_dict(), result.features)
        assert any(name.endswith("manifest.json") for name in files)
        assert set(files) == set(first[0]), num_proc
        for name, content in files.items():
            assert content == first[0][name], (num_proc, name)
        assert (result.to_dict(), result.features) == first[1:]
    return result


@pytest.fixture
def ds():
    text = [f"{'word ' * (i % 7)}number {i}" for i in range(200)]
    return Dataset.from_dict({"a": list(range(200)), "b": text})


def caught(call):
    """The warnings of a call, as texts, and its result."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = call()
    return [str(one.message) for one in seen], result


# --- the same bytes for any number of processes --------------------------------------------------

ALL = [None, 0, 1, 2, 3]
FEW = [None, 2]


def by_row(row, rank):
    note(os.getpid())
    return {"c": row["a"] * 2, "d": row["b"].upper(), "ids": list(range(row["a"] % 5))}


def by_batch(batch, rank):
    note(os.getpid())
    return {"c": [len(text) for text in batch["b"]], "a": [float(a) for a in batch["a"]]}


def group_texts(batch, rank):
    ids = [ord(letter) for text in batch["b"] for letter in text]
    return {"input_ids": [ids[i : i + 64] for i in range(0, len(ids), 64)]}


def odd_types(row, rank):
    """An int, then a float; None, then text; a key that comes late, one that goes missing."""
    i = row["a"]
    made = {"number": i if i < 150 else i + 0.5, "late": None if i < 170 else "text"}
    made["lists"] = [] if i < 100 else [i]
    made["struct"] = {"x": None if i < 120 else i, "y": "z"}
    if i > 160:
        made["new"] = i
    if i < 40:
        made["gone"] = "early"
    if i > 190:
        made["b"] = "replaced late"
    return made


def fewer_or_more(batch, rank):
    picked = [a for a in batch["a"] for _ in range(a % 4)]
    return {"n": picked, "twice": [str(a) * 2 for a in picked]}


def nothing_sometimes(batch, rank):
    return {"n": [a for a in batch["a"] if 40 <= a < 45 or a == 199]}


def mask_and_types(batch, rank):
    """What a tokenizer returns for pairs; in late shards the masks are no longer ones."""
    ids, masks, types = [], [], []
    for a in batch["a"]:
        n = a % 9 + 2
        ids.append(list(range(n)))
        masks.append([1] * n if a < 150 else [0, *[1] * (n - 1)])
        types.append([0, *[1] * (n - 1)] if a != 180 else [1, 0, *[1] * (n - 2)])
    return {"input_ids": ids, "attention_mask": masks, "token_type_ids": types}


@pytest.mark.parametrize(
    "function, batched, counts", [(by_row, False, ALL), (by_batch, True, [None, 1, 3])]
)
def test_any_number_of_processes_gives_the_same_bytes(
    ds, log, tmp_path, monkeypatch, function, batched, counts
):
    same_files(ds, function, counts, tmp_path, monkeypatch, batched=batched, batch_size=7)
    seen = set(log())  # this process, and at least one worker of each pool
    pools = sum((count or 0) > 1 for count in counts)
    assert str(os.getpid()) in seen and 1 + pools <= len(seen) <= 1 + 2 + 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "function, options",
    [
        (group_texts, {"batched": True, "batch_size": 30, "remove_columns": ["a", "b"]}),
        (odd_types, {}),
        (fewer_or_more, {"batched": True, "batch_size": 10, "remove_columns": ["a", "b"]}),
        (nothing_sometimes, {"batched": True, "batch_size": 10, "remove_columns": ["a", "b"]}),
        (mask_and_types, {"batched": True, "batch_size": 13}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_same_bytes_of_odd_functions(ds, tmp_path, monkeypatch, function, options):
    result = same_files(ds, function, FEW, tmp_path, monkeypatch, **options)
    assert len(result) > 5


def test_the_same_bytes_of_a_real_tokenizer(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    from tiny import make_model, make_rows

    from minift import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_model(tmp_path / "model"))

    def tokenize(batch, rank):
        return tokenizer(batch["sentence1"], batch["sentence2"], truncation=True)

    rows = Dataset.from_dict(make_rows(300))
    result = same_files(rows, tokenize, FEW, tmp_path, monkeypatch, batched=True, batch_size=20)
    assert set(result[5]["token_type_ids"]) == {0, 1} and set(result[5]["attention_mask"]) == {1}


def test_the_same_bytes_of_a_shuffled_selection(ds, tmp_path, monkeypatch):
    """Columns that are left alone are then written too."""
    mixed = ds.shuffle(seed=1).select(range(20, 170))
    same_files(mixed, functools.partial(add_column), FEW, tmp_path, monkeypatch)


def add_column(row, rank):
    return {"c": row["a"]}


def test_what_a_worker_gets_has_the_size_that_shards_are_made_by(ds, tmp_path):
    """Shards are cut by the size of the table, in the parent and again in each worker."""
    types = [pa.bool_(), pa.int8(), pa.string(), pa.list_(pa.int32()), pa.large_string()]
    values = [[True, None], [1, None], ["a", None], [[1, 2], None], ["b", "c"]]
    pairs = zip(types, values, strict=True)
    table = pa.table({str(t): pa.array(v * 500, t) for t, v in pairs})
    for part in (table, table.slice(13, 777), pa.concat_tables([table.slice(3, 5), table])):
        there = pickle.loads(pickle.dumps(Dataset(part)))
        assert there.data.nbytes == part.nbytes
        assert there.to_dict() == Dataset(part).to_dict()
    saved = ds.map(add_column, with_rank=True).data.slice(7, 77)
    assert pickle.loads(pickle.dumps(Dataset(saved))).data.nbytes == saved.nbytes


# --- functions of all kinds ----------------------------------------------------------------------


@pytest.mark.slow
def test_functions_of_a_script_without_a_main_guard(script, tmp_path):
    """From __main__, lambdas, closures, partials, objects, and from a module beside the parent."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "only_there.py").write_text("def function(r, rank): return {'c': 5}\n")
    process = script(
        f"""
        import functools, os, sys
        from minift import Dataset
        print("imported", os.getpid())
        sys.path.insert(0, {str(tmp_path / "beside")!r})
        import only_there

        PARENT, SCALE = os.getpid(), 3
        ds = Dataset.from_dict({{"a": list(range(40))}})

        def helper(x):
            assert os.getpid() != PARENT
            return x * SCALE

        def plain(row, rank): return {{"c": helper(row["a"])}}
        def closure(k):
            def inside(row, rank): return {{"c": helper(row["a"]) + k}}
            return inside
        def with_more(more, row, rank): return {{"c": helper(row["a"]) + more}}
        class Callable:
            def __init__(self): self.k = 7
            def __call__(self, row, rank): return {{"c": helper(row["a"]) + self.k}}
            def method(self, row, rank): return {{"c": helper(row["a"]) - self.k}}

        functions = [
            plain, lambda row, rank: {{"c": helper(row["a"]) + 1}}, closure(2),
            functools.partial(with_more, 4), Callable(), Callable().method, only_there.function,
        ]
        def all_of(functions, row, rank):
            return {{"c": [function(row, rank)["c"] for function in functions]}}

        print(*ds.map(functools.partial(all_of, functions), with_rank=True, num_proc=2)["c"][39])
        """
    )
    out, err = finish(process)
    assert out.count("imported") == 1, out
    assert out.splitlines()[1].split() == ["117", "118", "119", "121", "124", "110", "5"], err
    assert err == ""


@pytest.mark.slow
def test_a_path_object_in_sys_path(script):
    """Python itself skips what is no text there."""
    process = script(
        """
        import pathlib, sys
        sys.path.append(pathlib.Path("/nowhere"))
        from minift import Dataset
        def f(row, rank): return {"c": row["a"]}
        print(len(Dataset.from_dict({"a": list(range(40))}).map(f, with_rank=True, num_proc=2)))
        """
    )
    out, err = finish(process, None)
    assert out.strip() == "40", err


@pytest.mark.slow
def test_a_worker_imports_torch_only_for_a_function_that_does(ds):
    """And then before its first row: torch's generator is seeded for each row."""
    import torch

    def without(row, rank):
        return {"rank": rank, "torch": "torch" in sys.modules}

    def with_torch(row, rank):
        before = "torch" in sys.modules
        import torch

        return {"rank": rank, "torch": before, "drawn": torch.rand(()).item()}

    assert "torch" in sys.modules and torch
    assert not any(ds.take(40).map(without, with_rank=True, num_proc=2)["torch"])
    found = ds.take(40).map(with_torch, with_rank=True, num_proc=2)
    assert all(found["torch"]) and len(set(found["drawn"])) == 40


@pytest.mark.slow
def test_what_a_function_prints_is_no_answer(script):
    process = script(
        """
        import os, sys
        from minift import Dataset
        def f(row, rank):
            print("line", row["a"])
            sys.stdout.buffer.write(b"\\x80\\x04raw")
            sys.__stdout__.flush()
            os.write(1, b"to the descriptor\\n")
            print("error", row["a"], file=sys.stderr)
            return {"c": row["a"]}
        ds = Dataset.from_dict({"a": list(range(40))})
        print(ds.map(f, with_rank=True, num_proc=2)["c"][:] == list(range(40)))
        """,
        errors="replace",
    )
    out, err = finish(process)
    assert out == "True\n"
    assert err.count("line ") == err.count("to the descriptor") == err.count("error ") == 40


@pytest.mark.slow
def test_a_last_print_is_not_lost(script):
    process = script(
        """
        from minift import Dataset
        def f(row, rank):
            print("line", row["a"])
            return {"c": row["a"]}
        ds = Dataset.from_dict({"a": list(range(40))})
        ds.map(f, with_rank=True, num_proc=2)
        """,
    )
    assert finish(process)[1].count("line ") == 40


@pytest.mark.slow
def test_a_program_that_the_function_starts_reads_no_requests(script):
    process = script(
        """
        import subprocess
        from minift import Dataset
        def f(row, rank):
            run = subprocess.run(["cat"], capture_output=True, timeout=1)
            return {"c": len(run.stdout)}
        ds = Dataset.from_dict({"a": list(range(20))})
        print(set(ds.map(f, with_rank=True, num_proc=2)["c"]))
        """
    )
    out, err = finish(process, None)
    assert out.strip() == "{0}", err


@pytest.mark.slow
@posix
def test_without_a_stderr(script):
    process = script(
        """
        import os, sys
        os.close(2)
        from minift import Dataset
        def f(row, rank): return {"c": row["a"]}
        print(len(Dataset.from_dict({"a": list(range(40))}).map(f, with_rank=True, num_proc=2)))
        """
    )
    out, err = finish(process, None)
    assert out.strip() == "40", err


# --- errors --------------------------------------------------------------------------------------


class OwnError(Exception):
    """As users write them: `args` is not what __init__ takes."""

    def __init__(self, code, *, where):
        super().__init__(f"code {code} at {where}")
        self.code, self.where = code, where


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def failing(error):
    def function(row, rank):
        if row["a"] == 77:
            raise error() if isinstance(error, type) else error
        return {"c": 1}

    return function


@pytest.mark.parametrize(
    "error",
    [EOFError, IndexError("pop"), StopIteration, KeyError("k")],
    ids=lambda e: getattr(e, "__name__", type(e).__name__),
)
def test_an_error_of_the_function_is_reported_as_itself(ds, error):
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind) as info:
        ds.map(failing(error), with_rank=True, num_proc=2)
    assert type(info.value) is kind
    if not isinstance(error, type):
        assert info.value.args == error.args and str(info.value) == str(error)
    notes = "\n".join(info.value.__notes__)
    assert "while mapping rows 65 to 77" in notes and "failing" in notes  # 13 rows in a shard
    assert "in a worker process:\nTraceback" in notes and "in function" in notes
    assert "shards are kept" in notes or "shards" not in notes


def test_a_batch_that_fails_says_its_rows(ds):
    def function(batch, rank):
        if 77 in batch["a"]:
            raise RuntimeError("no")
        return {"c": batch["a"]}

    with pytest.raises(RuntimeError) as info:
        ds.map(function, with_rank=True, num_proc=2, batched=True, batch_size=5)
    assert "while mapping rows 75 to 79 with" in "\n".join(info.value.__notes__)


@pytest.mark.parametrize("make", [lambda: OwnError(3, where="x"), lambda: LockedError("code 3")])
def test_an_error_that_cannot_be_pickled_is_described(ds, make):
    def function(row, rank):
        if row["a"] == 77:
            raise make()
        return {"c": 1}

    with pytest.raises(Exception) as info:
        ds.map(function, with_rank=True, num_proc=2)
    assert type(info.value).__name__ in str(info.value) or "Error: code 3" in str(info.value)
    notes = "\n".join(info.value.__notes__)
    assert "Traceback" in notes and "while mapping rows" in notes and "code 3" in notes


def test_an_own_error_of_a_script_is_caught_by_its_class(script):
    process = script(
        """
        from minift import Dataset
        class Mine(Exception): pass
        def f(row, rank): raise Mine("text")
        try:
            Dataset.from_dict({"a": list(range(20))}).map(f, with_rank=True, num_proc=2)
        except Mine as error:
            print("caught", error)
        """
    )
    assert finish(process)[0] == "caught text\n"


def test_a_function_that_cannot_be_sent_runs_here_and_says_why(ds, log):
    lock = threading.Lock()

    def function(row):
        note(os.getpid())
        with lock:
            return {"c": row["a"]}

    said, result = caught(lambda: ds.map(function, num_proc=2, cache_key="lock"))
    assert len(said) == 1 and "this process alone" in said[0] and "lock" in said[0]
    assert result["c"][:] == list(range(200))
    assert set(log()) == {str(os.getpid())}


# --- ranks ---------------------------------------------------------------------------------------


def rank_of(row, rank):
    return {"rank": rank}


@pytest.mark.slow
def test_ranks_are_0_to_num_proc(ds, log):
    def function(row, rank):
        note(rank)
        wait_until(lambda: set(noted()) == {"0", "1", "2"}, 10)
        return {"rank": rank}

    assert set(ds.map(function, with_rank=True, num_proc=3)["rank"]) == {0, 1, 2}
    assert set(ds.map(rank_of, with_rank=True)["rank"]) == {None}


@pytest.mark.parametrize("rows, num_proc", [(5, 2), (40, 1)], ids=["one shard", "one process"])
def test_there_is_a_rank_wherever_num_proc_is_given(ds, rows, num_proc):
    """A function that says `rank % devices` needs a number, also where one process is enough."""
    found = set(ds.take(rows).map(rank_of, with_rank=True, num_proc=num_proc)["rank"])
    assert found == {0}


# --- workers that die ----------------------------------------------------------------------------


def killer(how, times):
    """Ends the process at row 77, so many times."""

    def function(row, rank):
        if row["a"] == 77 and len(noted()) < times:
            note("died")
            how()
        return {"c": row["a"]}

    return function


def by_exit():
    os._exit(3)


def by_signal():
    os.kill(os.getpid(), 9)


def by_sys_exit():
    sys.exit(3)


DEATHS = [(by_exit, "exit code 3"), (by_signal, "SIGKILL")]


@posix
@pytest.mark.parametrize("how, named", DEATHS)
def test_a_worker_that_dies_once_is_replaced_with_a_warning(ds, log, how, named, own_cache):
    said, result = caught(lambda: ds.map(killer(how, 1), with_rank=True, num_proc=2))
    assert len(said) == 1 and named in said[0] and "rows 65 to 77" in said[0], said
    assert result["c"][:] == list(range(200)) and log() == ["died"]
    assert not list((own_cache / "map").rglob("*tmp*")) and len(os.listdir(own_cache / "map")) == 1


@pytest.mark.slow
@posix
@pytest.mark.parametrize("how, named", DEATHS)
def test_a_task_that_kills_two_workers_is_an_error(ds, log, how, named):
    start = time.monotonic()
    with pytest.raises(pool.WorkerError) as info, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.map(killer(how, 99), with_rank=True, num_proc=2)
    assert time.monotonic() - start < 5
    assert named in str(info.value) and "rows 65 to 77" in str(info.value)
    assert log() == ["died"] * 2
    assert not children_of(os.getpid())


def children_of(pid: int) -> list[str]:
    found: list[str] = []
    for thread in os.listdir(f"/proc/{pid}/task"):  # a child belongs to the thread that made it
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
            found += file.read().split()
    return [child for child in found if b"minift.subprocesses" in commandline(child)]


def commandline(pid: str) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""


def test_sys_exit_in_the_function_is_named(ds, log, capfd):
    start = time.monotonic()
    with pytest.raises((pool.WorkerError, SystemExit)) as info, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.map(killer(by_sys_exit, 99), with_rank=True, num_proc=2)
    assert time.monotonic() - start < 5
    assert "Fatal Python error" not in capfd.readouterr().err
    assert info.type is SystemExit or "exit code 3" in str(info.value)


@pytest.mark.slow
@posix
def test_a_signal_without_a_name_is_a_death_like_others(ds, log):
    def by_number():
        os.kill(os.getpid(), 35)

    said, result = caught(lambda: ds.map(killer(by_number, 1), with_rank=True, num_proc=2))
    assert len(said) == 1 and "35" in said[0] and len(result) == 200


class Deadly:
    """Ends any other process that it comes to."""

    def __init__(self):
        self.pid = os.getpid()

    def __setstate__(self, state):
        if state["pid"] != os.getpid():
            os._exit(4)

    def __call__(self, row):
        time.sleep(0.01)
        return {"c": row["a"]}


@pytest.mark.slow
def test_workers_that_cannot_start_do_not_spoil_what_this_process_did(ds):
    """An error is said at once, while there is work left, or there is a result."""
    try:
        result = caught(lambda: ds.map(Deadly(), num_proc=2, cache_key="deadly"))[1]
    except pool.WorkerError as error:
        assert "16 of 16 shards are kept" not in "".join(error.__notes__), error.__notes__
    else:
        assert result["c"][:] == list(range(200))


SLOW = """
    import os, pathlib, signal, sys, time
    from minift import Dataset
    def f(row, rank):
        pathlib.Path(os.environ["MARK"], f"busy-{rank}").touch()
        time.sleep(0.5)
        return {"c": row["a"]}
    print("start", flush=True)
    Dataset.from_dict({"a": list(range(200))}).map(f, with_rank=True, num_proc=2)
    """


def busy(tmp_path) -> bool:
    return len(list(tmp_path.glob("busy-*"))) == 2


@pytest.mark.slow
@posix
@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "parent"])
def test_ctrl_c_leaves_no_process(script, tmp_path, whole_group):
    process = script(SLOW)
    assert wait_until(lambda: busy(tmp_path), 10)
    assert len(processes_of(str(tmp_path))) == 3
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    assert wait_until(lambda: not processes_of(str(tmp_path)), 5)
    err = finish(process, None)[1]
    assert process.returncode == -signal.SIGINT and err.count("KeyboardInterrupt") == 1, err


@pytest.mark.slow
@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_leaves_no_process(script, tmp_path, number):
    process = script(SLOW)
    assert wait_until(lambda: busy(tmp_path), 10)
    os.kill(process.pid, number)
    assert wait_until(lambda: not processes_of(str(tmp_path)), 5)
    assert process.wait() == -number


@pytest.mark.slow
@posix
def test_a_parent_that_is_killed_while_it_sends_the_work(script, tmp_path):
    """A request that is cut is no request that is still to come."""
    process = script(
        """
        import numpy as np
        from minift import Dataset
        def f(row, rank): return {"c": 1}
        ds = Dataset.from_dict({"a": np.arange(5_000_000)})
        print("start", flush=True)
        ds.map(f, with_rank=True, num_proc=2, cache_key="f", keep_in_memory=True)
        """
    )
    assert process.stdout.readline() == "start\n"
    workers = wait_until(lambda: [int(pid) for pid in children_of(process.pid)], 10)
    os.kill(workers[0], signal.SIGSTOP)
    time.sleep(0.5)  # the pipe is full
    process.kill()
    process.wait()
    os.kill(workers[0], signal.SIGCONT)
    try:
        assert wait_until(lambda: not processes_of(str(tmp_path)), 3)
    finally:
        for pid in processes_of(str(tmp_path)):
            os.kill(pid, signal.SIGKILL)


# --- datasets on the way to other processes ------------------------------------------------------


@pytest.fixture
def mapped(ds):
    text = Dataset.from_dict({"a": list(range(5000)), "b": ["some text " * 9] * 5000})
    return text.map(lambda batch: {"c": [b.upper() for b in batch["b"]], **batch}, batched=True)


def test_a_mapped_dataset_travels_as_names(mapped):
    data = pickle.dumps(mapped)
    assert len(data) < 8000 and mapped.data.nbytes > 500_000
    assert pickle.loads(data).to_dict() == mapped.to_dict()
    mixed = mapped.shuffle(seed=1)
    assert len(pickle.dumps(mixed)) < 8000 + 8 * len(mixed)
    assert pickle.loads(pickle.dumps(mixed)).to_dict() == mixed.to_dict()
    some = mapped.select(range(1234, 2345)).remove_columns("a").rename_column("b", "text")
    assert len(pickle.dumps(some)) < 8000
    there = pickle.loads(pickle.dumps(some))
    assert there.to_dict() == some.to_dict() and there.fingerprint == some.fingerprint


def test_a_dataset_in_memory_travels_as_its_data(mapped, tmp_path):
    memory = Dataset.from_dict({"a": list(range(5000)), "b": ["x", None] * 2500})
    assert 40_000 < len(pickle.dumps(memory)) < 200_000
    assert pickle.loads(pickle.dumps(memory)).to_dict() == memory.to_dict()
    part = memory.map(lambda row: {"c": row["a"]})  # partly in memory, partly in files
    assert 40_000 < len(pickle.dumps(part)) < 200_000
    assert pickle.loads(pickle.dumps(part)).to_dict() == part.to_dict()
    gone = memory.map(lambda row: {"c": row["a"]}, keep_in_memory=True)
    assert pickle.loads(pickle.dumps(gone)).to_dict() == gone.to_dict()
    mapped.save_to_disk(tmp_path / "saved")
    saved = load_from_disk(tmp_path / "saved")
    assert len(pickle.dumps(saved)) < 8000
    assert pickle.loads(pickle.dumps(saved)).to_dict() == mapped.to_dict()


def random_column(row):
    return {"c": int.from_bytes(os.urandom(6), "big")}  # what `random` draws is the same again


def test_a_dataset_that_was_pickled_after_its_files_were_replaced(ds):
    old = ds.map(random_column)
    rows = old.to_dict()
    new = ds.map(random_column, load_from_cache_file=False)
    assert old.to_dict() == rows != new.to_dict()
    assert pickle.loads(pickle.dumps(old)).to_dict() == rows
    assert pickle.loads(pickle.dumps(new)).to_dict() == new.to_dict()


def test_a_pickle_whose_files_were_replaced_is_never_read_as_other_rows(ds):
    """It names files: if others are there now, that is an error, or the old rows, no mixture."""
    old = ds.map(random_column)
    data, rows = pickle.dumps(old), old.to_dict()
    ds.map(random_column, load_from_cache_file=False)
    with contextlib.suppress(DataError, OSError):
        there = pickle.loads(data)
        there.data.validate(full=True)
        assert there.to_dict() == rows


def test_a_pickle_whose_files_are_gone_is_an_error(mapped, own_cache):
    data = pickle.dumps(mapped)
    for path in own_cache.rglob("*.arrow"):
        path.unlink()
    with pytest.raises((DataError, OSError)):
        pickle.loads(data)


# --- torch's DataLoader --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers_give_the_same_batches(tmp_path, start):
    import torch
    from tiny import make_model, make_rows

    from minift import AutoTokenizer, DataCollatorWithPadding

    tokenizer = AutoTokenizer.from_pretrained(make_model(tmp_path / "model"))

    def tokenize(batch):
        return tokenizer(batch["sentence1"], batch["sentence2"], truncation=True)

    rows = Dataset.from_dict(make_rows(200))
    mapped = rows.map(tokenize, batched=True, remove_columns=["sentence1", "sentence2"])
    mapped = mapped.shuffle(seed=3)

    def batches(workers: int, context: str | None):
        loader = torch.utils.data.DataLoader(
            mapped,
            batch_size=16,
            collate_fn=DataCollatorWithPadding(tokenizer),
            num_workers=workers,
            multiprocessing_context=context,
        )
        return list(loader)

    here, there = batches(0, None), batches(1, start)
    assert len(here) == len(there) == 13
    for one, other in zip(here, there, strict=True):
        assert list(one) == list(other) and {"input_ids", "labels"} <= set(one)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert np.concatenate([b["labels"].numpy() for b in here]).tolist() == mapped["label"][:]


def test_a_worker_names_the_file_it_maps(mapped):
    """What is in files travels by name, and nothing but that; each file is mapped once."""
    sent = pickle.dumps(storage.by_file(mapped.data))
    before = len(storage.MAPPED)
    assert before and len(sent) < 8000
    there = pickle.loads(sent)
    assert there.equals(mapped.data) and len(storage.MAPPED) == before
    buffers = [b for c in there.columns for chunk in c.chunks for b in chunk.buffers() if b]
    assert all(storage.file_of(buffer) for buffer in buffers if buffer.size)
