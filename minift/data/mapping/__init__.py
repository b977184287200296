"""`Dataset.map`: apply a function to rows or batches once, and find the result again afterwards.

The key of a result is made from the input's fingerprint, the function's (by value, with all that
it reads) and the arguments that matter. If the cache holds a complete result under that key it is
memory-mapped; otherwise one process computes it while others wait at a lock. The rows are cut into
shards by their number and size alone, and each shard's result is a file of its own, committed when
it is complete: so the files are the same for any `num_proc`, and after a run was killed the same
map goes on where it was, with any other `num_proc`. Only what the function returns is written;
columns that it leaves alone stay where they are, and the result refers to them. Last, the shards
get common types, and a manifest makes them a result. A function that has no digest is still
applied; its result cannot be found again, which a warning says.

Reading order:
    call.py         one map and its key; the function on one batch: argument, effects, columns
    shards.py       the files of shards, the processes that compute them, and results as one
    cache.py        `map_table`: find the result or compute it, commit it, open it; `filter_mask`
"""
