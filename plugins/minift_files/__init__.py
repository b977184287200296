"""Files on this machine: which there are, which split each belongs to, how they become tables.

`load_dataset("csv", data_files=...)`, `load_dataset("folder")`, `load_dataset("rows.jsonl.gz")`;
and the other way, `dataset.to_csv`, `to_json` and `to_parquet`. And both ways without losing
anything, as a folder: `dataset.save_to_disk` and `load_from_disk`.
"""

from minift import hookimpl


@hookimpl
def minift_register_file_formats():
    from minift_files.formats import FOLDERS, FORMATS

    return FORMATS | FOLDERS


@hookimpl(tryfirst=True)  # a path that exists is that path, whatever a name may mean elsewhere
def minift_find_dataset(path, name, data_files, data_dir):
    from minift_files.finding import find

    return find(path, name, data_files, data_dir)
