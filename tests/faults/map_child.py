"""A process that runs a map which says what it does, for `test_map_faults.py` to disturb.

    python map_child.py NUM_PROC|None BYTES

BYTES is the largest file that it may write, if it is not empty. Each call waits TEST_DELAY seconds
and appends its row numbers to the file TEST_LOG. At the end it prints a digest of the rows.
"""

import hashlib
import os
import sys
import time

from minift import Dataset

ROWS, BATCH = 640, 8
SHARD = ROWS // 16


def dataset() -> Dataset:
    texts = [f"row {i}: " + " ".join(str(i * k % 97) for k in range(i % 30)) for i in range(ROWS)]
    return Dataset.from_dict({"i": list(range(ROWS)), "text": texts})


def function(batch):
    time.sleep(float(os.environ["TEST_DELAY"]))
    log = os.open(os.environ["TEST_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (" ".join(map(str, batch["i"])) + "\n").encode())
    os.close(log)
    ids = [[ord(letter) for letter in text] for text in batch["text"]]
    mask = [[1] * len(row) for row in ids]
    pairs = zip(batch["i"], batch["text"], strict=True)
    upper = [text.upper() if i < 500 else text * 50 for i, text in pairs]
    return {"input_ids": ids, "attention_mask": mask, "upper": upper}


def main() -> None:
    if sys.argv[2]:
        import resource

        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    given = dataset()
    num_proc = None if sys.argv[1] == "None" else int(sys.argv[1])
    print("start", flush=True)
    result = given.map(function, batched=True, batch_size=BATCH, num_proc=num_proc)
    print(len(result), hashlib.sha256(repr(result.to_dict()).encode()).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
