"""`Dataset.map`: apply a function to rows or batches once, and find the result again afterwards.

The result's fingerprint is made from the input's, the function's (by value, with all it reads) and
the arguments that matter. If the cache holds a complete result of that name it is memory-mapped;
otherwise one process computes it while others wait at a lock. The rows are cut into shards by
their number and size alone, and each shard's result is a file of its own, committed when it is
whole: so the files are the same for any `num_proc`, and a run that was killed goes on where it
was, with any other `num_proc`. Only what the function returns is written; columns that it leaves
alone stay where they are, and the result refers to them. Last, the shards' types are made one, and
the manifest makes them a result. A function that cannot be digested is still applied; its result
is nobody else's, with a warning. How a row's result is made is in `apply.py`.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minift import files
from minift.data import cache, pool, storage
from minift.data.apply import TOKENS, Part, Plan, apply, join
from minift.data.dataset import Dataset
from minift.data.features import Features, List, Value, arrow_type, check_names
from minift.data.fingerprint import Unhashable, changes, explained
from minift.errors import ConfigError, DataError
from minift.subprocesses import UnsendableError

MOST_COMPARED = 500  # results, the latest first, that are looked at to say what changed
MAP_VERSION = 2  # part of every fingerprint: change it when the same input gives other bytes


def map_dataset(
    dataset: Dataset,
    function: Callable[..., Any] | None = None,
    with_indices: bool = False,
    with_rank: bool = False,
    input_columns: str | Sequence[str] | None = None,
    batched: bool = False,
    batch_size: int | None = 1000,
    drop_last_batch: bool = False,
    remove_columns: str | Sequence[str] | None = None,
    keep_in_memory: bool = False,
    load_from_cache_file: bool | None = None,
    cache_file_name: str | Path | None = None,
    writer_batch_size: int | None = None,
    features: Features | None = None,
    fn_kwargs: Mapping[str, Any] | None = None,
    num_proc: int | None = None,
    desc: str | None = None,
    new_fingerprint: str | None = None,
    cache_key: str | None = None,
) -> Dataset:
    """The dataset with what `function` returns merged into its rows.

    Args:
        dataset: the input.
        function: gets a row (a dict), or with `batched` a dict of lists, and returns a dict of
            values or of equally long lists; None for every row means "called for its effect".
        with_indices: also pass the position of the row, or the list of positions.
        with_rank: also pass the number of the worker process, None without `num_proc`.
        input_columns: pass only these columns, as positional arguments.
        batched: pass `batch_size` rows at a time; the number of rows may then change.
        batch_size: None or 0 passes all rows at once.
        drop_last_batch: leave out the rows at the end that do not fill a batch.
        remove_columns: drop these from the input before merging.
        keep_in_memory: leave no file behind.
        load_from_cache_file: False computes again and replaces what the cache holds.
        cache_file_name: a folder for the result instead of one in the cache.
        writer_batch_size: accepted for familiarity; results are written by size.
        features: the result's features, instead of inferring them.
        fn_kwargs: further keyword arguments, part of the fingerprint.
        num_proc: share the work among so many processes; the result is the same.
        desc: accepted for familiarity; nothing is printed.
        new_fingerprint: stands for the whole fingerprint of the result.
        cache_key: stands for the function in the fingerprint; for functions that cannot be
            digested.

    Raises:
        DataError: the function's result would lose or mix up rows, or mixes types in a column.
    """
    if function is None:
        return dataset
    given = [[c] if isinstance(c, str) else list(c or ()) for c in (input_columns, remove_columns)]
    dataset.check_columns(given[0] + given[1])
    if (num_proc or 0) < 0:
        raise ConfigError("num_proc must be positive", got=num_proc)
    size = (batch_size if batch_size and batch_size > 0 else max(len(dataset), 1)) if batched else 1
    plan = Plan(
        dataset=dataset,
        function=function,
        batched=batched,
        batch_size=size,
        rows=len(dataset) - len(dataset) % size if drop_last_batch else len(dataset),
        with_indices=with_indices,
        with_rank=with_rank,
        input_columns=tuple(given[0]) if input_columns is not None else None,
        remove_columns=tuple(given[1]),
        fn_kwargs=fn_kwargs or {},
        features=features,
    )
    key, notes = result_key(plan, cache_key, new_fingerprint)
    if key is None or keep_in_memory:  # the maps stay open when their files are gone
        with tempfile.TemporaryDirectory(prefix="minift-", ignore_cleanup_errors=True) as scratch:
            return compute(plan, Path(scratch) / "result", key, {}, num_proc)
    folder = Path(cache_file_name) if cache_file_name else cache.entry_path("map", key)
    return find_or_compute(plan, folder, key, notes, num_proc, load_from_cache_file is not False)


def result_key(
    plan: Plan, cache_key: str | None, new_fingerprint: str | None
) -> tuple[str | None, dict[str, str]]:
    """The result's fingerprint and what it is made of; None, with a warning, if it has none."""
    if not cache.is_caching_enabled():
        return None, {}
    if new_fingerprint is not None:
        if not re.fullmatch(r'[^<>:/\\|?*".][^<>:/\\|?*"]{0,63}', new_fingerprint):
            expected = '1 to 64 characters without <>:/\\|?*"'
            raise ConfigError("new_fingerprint is no name", got=new_fingerprint, expected=expected)
        return new_fingerprint, {}
    said = {field.name: getattr(plan, field.name) for field in fields(plan)}
    said["dataset"] = (plan.dataset.fingerprint, plan.dataset.row_format)
    said["function"] = plan.function if cache_key is None else cache_key
    said["fn_kwargs"] = dict(sorted(plan.fn_kwargs.items()))
    said["features"] = None if plan.features is None else plan.features.to_dict()
    try:
        return explained("map", MAP_VERSION, said)
    except Unhashable as error:
        what = f"{error}\n  the result of map({plan.name}) is not kept in the cache"
        warnings.warn(what, stacklevel=4)
        return None, {}


def find_or_compute(
    plan: Plan, folder: Path, key: str, notes: dict[str, str], num_proc: int | None, use: bool
) -> Dataset:
    """Open the result, or be the one that computes it while others wait.

    Args:
        use: whether a result that is there already will do.
    """
    if use:
        with contextlib.suppress(DataError):
            return open_result(plan, folder, key)
    with cache.lock(key):
        damage = None
        try:
            if use:
                return open_result(plan, folder, key)
        except DataError as error:
            damage = error if (folder / files.MANIFEST).exists() else None
        if damage is not None:
            warnings.warn(f"a cached result is computed again: {damage}", stacklevel=4)
            (folder / files.MANIFEST).unlink()
        if not use:
            shutil.rmtree(work_folder(folder, key), ignore_errors=True)
        say_what_changed(plan, notes)
        # A forced result may differ from the one that other results were made from.
        run = "" if use else uuid.uuid4().hex
        meta = {"notes": notes, "run": run, "input": plan.dataset.fingerprint}
        return compute(plan, folder, key, meta, num_proc)


def say_what_changed(plan: Plan, notes: dict[str, str]) -> None:
    """If the cache holds a result of that function for that input, one line says what is new."""
    same = {"function": plan.name, "input": plan.dataset.fingerprint}
    with contextlib.suppress(OSError):  # removed meanwhile
        folders = [path.parent for path in cache.cache_root().glob(f"map/*/{files.MANIFEST}")]
        for folder in sorted(folders, key=os.path.getmtime, reverse=True)[:MOST_COMPARED]:
            try:
                meta = files.read_manifest(folder).meta
            except DataError:  # damaged, or of another version of minift
                continue
            if same.items() <= meta.items():
                said = changes(meta["notes"], notes)
                # Two lambdas are two functions, and not one that was edited.
                if said and not ("<lambda>" in plan.name and "the code of" in said):
                    print(f"map({plan.name}) is computed again: {said}", file=sys.stderr)
                return


def open_result(plan: Plan, folder: Path, key: str | None) -> Dataset:
    """The result in a folder; a DataError if there is none, or a damaged one."""
    table, meta = storage.open_folder(folder)
    if meta.get("key") != key:
        raise ConfigError(f"{folder} holds the result of another map", do="choose another folder")
    try:
        return finished(plan, table, meta)
    except pa.ArrowException as error:
        raise DataError(f"{folder} is damaged: {error}") from None


def finished(plan: Plan, table: pa.Table, meta: dict[str, Any]) -> Dataset:
    """The written columns among those of the input that stayed, in the input's format."""
    features, source = Features.from_dict(meta["features"]), plan.dataset
    key = meta["key"] and f"{meta['key']}{meta['run']}"
    digests = {name: f"{key} {name}" for name in features} if key else {}
    derived: dict[str, Any] = {name: table.column(TOKENS) for name in meta["runs"]}
    columns = {name: table.column(name) for name in table.column_names}
    kept = [name for name in features if name not in columns]
    if kept:
        base = source.select(range(plan.rows)).flatten_indices()
        columns |= {name: base.data.column(name) for name in kept}
        derived |= {name: base.derived[name] for name in kept if name in base.derived}
        digests |= {name: base.digests[name] for name in kept if name in base.digests}
    form = source.row_format
    if form.columns is not None:
        hidden = [name for name in source.features if name not in form.columns]
        form = replace(form, columns=tuple(n for n in features if n not in hidden))
    ordered = pa.table({name: columns[name] for name in features})
    return source.replace(
        data=ordered,
        features=features,
        indices=None,
        digests=digests,
        row_format=form,
        derived=derived,
    )


# ------------------------------------------------------------------------------- shard by shard


def work_folder(folder: Path, key: str | None) -> Path:
    """Where the shards of a result are until it is whole."""
    return folder.with_name(f"{key}.work")


def compute(
    plan: Plan, folder: Path, key: str | None, meta: dict[str, Any], num_proc: int | None
) -> Dataset:
    """Compute the shards that are not there yet, make them a result, and open it."""
    if plan.rows == 0:  # the function is never asked, so only what was said is known
        kept = {n: f for n, f in plan.dataset.features.items() if n not in plan.remove_columns}
        features = plan.features or Features(kept)
        return Dataset(
            features.arrow_schema.empty_table(), features, row_format=plan.dataset.row_format
        )
    work, shards = work_folder(folder, key), plan.shards()
    (work / "entry").mkdir(parents=True, exist_ok=True)
    waiting = [i for i, rows in enumerate(shards) if read_shard(work, i, rows) is None]
    try:
        run_all(plan, work, shards, waiting, num_proc)
    except BaseException as error:
        sweep(work)
        done = [i for i, rows in enumerate(shards) if read_shard(work, i, rows)]
        if not done:
            shutil.rmtree(work)
        elif meta:  # which a private result has not
            error.add_note(f"{len(done)} of {len(shards)} shards are kept; the same map goes on")
        raise
    parts = [read_shard(work, i, rows) or Part(rows, None) for i, rows in enumerate(shards)]
    whole = join(plan, parts)
    if whole.table is None:
        shutil.rmtree(work)
        return plan.dataset
    return commit(plan, folder, whole, parts, {"run": "", "notes": {}, **meta, "key": key})


def sweep(work: Path) -> None:
    """Remove what was being written when a process died or the disk was full."""
    for left in work.glob("**/*.tmp-*"):
        left.unlink()


def run_all(
    plan: Plan, work: Path, shards: Sequence[range], waiting: list[int], num_proc: int | None
) -> None:
    """Compute these shards, here or in worker processes; which of them does which, is chance."""
    call = functools.partial(run_shard, plan, work, shards)
    count = min(num_proc or 1, len(waiting))
    if count > 1:

        def describe(i: int) -> str:
            return f"mapping rows {shards[i].start} to {shards[i].stop - 1} with {plan.name}"

        try:
            workers = pool.Pool(call, waiting, describe)
        except UnsendableError as error:
            warnings.warn(f"map({plan.name}) runs in this process alone: {error}")
        else:
            workers.run(count, needs_rank=plan.with_rank)
            return
    for i in waiting:
        call(i, 0 if num_proc else None)


def run_shard(plan: Plan, work: Path, shards: Sequence[range], i: int, rank: int | None) -> None:
    """Compute one shard and write it; one for which the function returned None is not kept."""
    part = apply(plan, shards[i], rank)
    if part.table is not None:
        write_shard(work, i, part)


def write_shard(work: Path, i: int, part: Part) -> Part:
    """The shard's file, and then what is known of it: only with that the shard is there."""
    path, file = work / "entry" / f"data-{i:05d}.arrow", None
    if part.names:
        assert part.table is not None
        file = storage.write_stream(path, [part.table], part.table.schema)
    part = replace(part, file=file)
    said = {"rows": [part.rows.start, part.rows.stop], "popped": sorted(part.popped)}
    text = json.dumps({**said, "runs": sorted(part.runs), "entry": file})
    files.write_text(work / f"{i:05d}.json", text)
    return part


def read_shard(work: Path, i: int, rows: range) -> Part | None:
    """A shard that is whole, and of these rows."""
    try:
        said = json.loads((work / f"{i:05d}.json").read_text())
        file, table = said["entry"], pa.table({})
        if file:
            table = storage.open_file(work / "entry" / file["name"], file)
        same = said["rows"] == [rows.start, rows.stop]
        part = Part(rows, table, frozenset(said["popped"]), frozenset(said["runs"]), file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return part if same else None


def commit(
    plan: Plan, folder: Path, whole: Part, parts: Sequence[Part], meta: dict[str, Any]
) -> Dataset:
    """Make the shards' columns and types one, and the shards a result."""
    assert whole.table is not None
    work, features = work_folder(folder, meta["key"]), result_features(plan, whole)
    if not whole.names:  # all that there is, is the input's
        shutil.rmtree(work)
        return plan.dataset.select(range(plan.rows)).select_columns(list(features))
    stored = {n: arrow_type(f) for n, f in features.items() if n in whole.names}
    stored |= {name: whole.table.schema.field(name).type for name in whole.runs}
    schema, entries, start = pa.schema(list(stored.items())), [], 0
    for i, part in enumerate(parts):
        assert part.table is not None
        count = part.table.num_rows if part.names else len(part.rows)
        if not part.table.schema.equals(schema) or part.runs != whole.runs:
            table = whole.table.slice(start, count).select(schema.names).cast(schema)
            part = write_shard(work, i, replace(part, table=table, runs=whole.runs))
        start += count
        entries.append(part.file or {})
    meta = {
        "function": plan.name,
        "features": features.to_dict(),
        "runs": sorted(whole.runs),
    } | meta
    sweep(work)
    if meta["run"]:  # the result that it replaces stays until here
        (folder / files.MANIFEST).unlink(missing_ok=True)
    storage.commit(work / "entry", folder, entries, meta)
    shutil.rmtree(work, ignore_errors=True)
    return open_result(plan, folder, meta["key"])


def result_features(plan: Plan, whole: Part) -> Features:
    """The result's columns in their order: the input's that stayed, and then the new ones.

    Raises:
        DataError: `features` names other columns.
    """
    assert whole.table is not None
    before, gone = plan.dataset.features, {*plan.remove_columns, *whole.popped}
    stayed = [name for name in before if name not in gone or name in whole.names]
    names = [*stayed, *(name for name in whole.names if name not in stayed)]
    if plan.features is not None:
        check_names(plan.features, names, f"map({plan.name}): ")
        return plan.features
    found = Features.from_arrow_schema(whole.table.schema.remove_metadata())
    found |= {name: List(Value("int8")) for name in whole.runs}
    features = Features()
    for name in names:
        same = name in before and (
            name not in found or arrow_type(before[name]) == arrow_type(found[name])
        )
        features[name] = before[name] if same else found[name]
    return features


# ------------------------------------------------------------------------------------------ filter


class Keep:
    """A filter's function as one for `map`: its answers are a column."""

    def __init__(self, function: Callable[..., Any], batched: bool) -> None:
        self.function, self.batched = function, batched
        self.__qualname__ = f"filter({getattr(function, '__qualname__', function)})"

    def __call__(self, *args: Any, **options: Any) -> dict[str, Any]:
        # A copy, so that what the function assigns to a row changes nothing.
        first = dict(args[0]) if isinstance(args[0], dict) else args[0]
        answer = self.function(first, *args[1:], **options)
        if not self.batched:
            return {"keep": bool(answer)}
        batch = next(iter(first.values()), ()) if isinstance(first, dict) else first
        answers = np.asarray(answer if hasattr(answer, "__array__") else list(answer), bool)
        if answers.shape != (len(batch),):
            raise DataError(
                f"filter got {answers.size} answers for {len(batch)} rows",
                expected="one True or False for each row",
            )
        return {"keep": answers}


def answers_of(
    dataset: Dataset, function: Callable[..., Any], *, batched: bool = False, **options: Any
) -> np.ndarray:
    """For each row whether to keep it, bool of shape (rows,), by a map with any of its options."""
    answers = map_dataset(
        dataset,
        Keep(function, batched),
        batched=batched,
        remove_columns=dataset.column_names,
        features=Features(keep=Value("bool")),
        **options,
    )
    return answers.to_arrow().column("keep").to_numpy()
