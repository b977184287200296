#!/usr/bin/env bash
# pyarrow 26.0.1: `Table.take` of one row of a column of strings in 50 chunks first joins all
# chunks: 50 MB are allocated (and copied) to return 1 KB, for each call. A RecordBatch's `take` of
# the same row allocates 1 KB, and so does `slice`. Reading rows of a chunked table at random by
# `take` therefore costs its whole size each time; find the chunk and take from that.
# Seen on 29 November 2026:
#   {'table': 50201280, 'batch': 48704}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
pip install --quiet pyarrow==26.0.1
python - <<'PYTHON'
import subprocess
import sys

PROGRAM = """
import sys
import pyarrow as pa
table = pa.table({"x": pa.chunked_array([["w" * 1000] * 1000 for _ in range(50)])})
pool = pa.default_memory_pool()
before = pool.bytes_allocated()
row = table.take([49_999]) if sys.argv[1] == "table" else table.to_batches()[-1].take(pa.array([999]))
assert row.column(0)[0].as_py() == "w" * 1000
print(pool.max_memory() - before)
"""
peak = {
    kind: int(subprocess.check_output([sys.executable, "-c", PROGRAM, kind]))
    for kind in ("table", "batch")
}
print("bytes allocated at most, to take one row of 1,000 bytes from 50 MB:", peak)
assert peak["table"] > 50_000_000 and peak["batch"] < 100_000
PYTHON
