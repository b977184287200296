"""The conformance kits: what a backend, or a finder of datasets and models, must hold.

Run them on a plugin that is installed, or that is still one file:

    pytest --pyargs minift.testing --device NAME
    pytest --pyargs minift.testing --device NAME --minift-plugin my_backend.py
    pytest --pyargs minift.testing --dataset-name NAME --checkpoint-name NAME

`test_device.py` compares a device with plain eager PyTorch in host memory, which is `minift.Device`
itself, on a BERT of some ten thousand numbers; `test_claims.py` with what it says of itself.
`test_loader.py` looks at what the finders of an installed plugin answer. What no option asks for is
skipped. The kits need pytest, know no file of this repository, and use nothing that a script could
not use.

    options.py     the options; pytest finds them by an entry point
    conftest.py    the fixtures
    tiny.py        a model, rows, a collator, and runs of a few steps
"""
