"""The map of the program: one whole run in pseudo-code, each hook where it fires, then the hooks.

    minift_register_commands        a word becomes a command: `minift train` goes on as below
    minift_find_dataset             a path or a name becomes files
    minift_register_file_formats    files become tables
    minift_find_checkpoint          a name that is no local path becomes a folder with weights
    minift_build_tokenizer          only without a tokenizer.json: other files become a tokenizer
    load the files, tokenize them with a cached map
    minift_register_model_families  config.json's model_type becomes classes
    load the weights, replace the head
    minift_register_tasks           --task NAME: its data, columns, label names and metric
    minift_register_metrics         metric names become functions and what their numbers mean
    minift_register_devices         "auto" or a name becomes the Device that computes
    minift_on_train_begin
    for epoch in range(num_train_epochs):
        for group in micro-batches, gradient_accumulation_steps at a time:
            for batch in group:
                loss_sum, count = model(batch);  device.backward(loss_sum)
            gradients / count, clip to max_grad_norm, optimizer step, schedule step
            minift_on_step_end
            if it is time to log:       fetch the losses
            minift_on_log
            if it is time to evaluate:  every row of the evaluation set, once
            minift_on_evaluate
            minift_should_stop     the first reason ends the run early
            if it is time to save:      weights, moments, where the run is
            minift_on_save
    minift_on_train_end             or, when an exception ends the run:
    minift_on_exception
    minift_publish                  only when asked (`minift push`): the saved model goes to a hub

Hooks choose objects; objects do the work. A hook exists only where an installed package must act
without the script naming it. There are four kinds:

- registrars take no arguments and return a dict; a name given twice is an error naming both;
- finders and decisions: the first answer that is not None wins; raising ends the search;
- observers never change training; one that fails is reported and unplugged for the run.

`minift plugins --loop` prints the outline above with who listens where.
"""

import pluggy

hookspec = pluggy.HookspecMarker("minift")
hookimpl = pluggy.HookimplMarker("minift")

# ------------------------------------------------------------------------------------- registrars


@hookspec
def minift_register_devices():
    """What can compute.

    Returns:
        {name: Device subclass}. The class is asked for `unavailable()` before it is used, so
        importing the plugin must not import anything heavy.
    """


@hookspec
def minift_register_metrics():
    """What can be measured.

    Returns:
        {name: function(predictions, references) -> {key: float}, or a `minift.evaluate.Metric`
        that holds such a function and describes each key: its range, whether higher is better,
        and how `minift compare` finds its confidence interval}. Names like "glue/mrpc" answer
        `evaluate.load("glue", "mrpc")`; further arguments of the function are options of `compute`.
    """


@hookspec
def minift_register_tasks():
    """Data sets whose columns, label names and metric are known.

    Returns:
        {name: `minift.tasks.Task`}: columns, label names and metrics; also where the data is, how
        its rows become texts, and how they are scored if not one by one.
    """


@hookspec
def minift_register_model_families():
    """Kinds of models beside minift's own.

    Returns:
        {model_type in config.json: function without arguments that returns a
        `minift.models.auto.Family`}. The function is called when a model is loaded, and may import
        what it likes; the plugin itself must not import anything heavy.
    """


@hookspec
def minift_register_file_formats():
    """How files are read and written, and folders of `save_to_disk` ("disk").

    Returns:
        {name: `minift.data.file_formats.FileFormat`, or `FolderFormat`}.
    """


@hookspec
def minift_register_commands():
    """Commands of `minift`.

    Returns:
        {name: object with `help` (one line), `configure(parser)` and `run(args) -> exit code}.
    """


# --------------------------------------------------------------------------- finders and decisions


@hookspec(firstresult=True)
def minift_find_dataset(path, name, revision, data_files):
    """Turn the path or name in `load_dataset(path, name)` into files on this machine.

    Returns:
        A `minift.data.file_formats.DatasetFiles`, or None if this plugin does not know the name.
    """


@hookspec(firstresult=True)
def minift_find_checkpoint(name, revision, component):
    """Turn a model name into a folder with config.json, *.safetensors and tokenizer.json.

    `component` is "model", "tokenizer" or "config": who only tokenizes needs no weights.

    Returns:
        The folder as a path, or a `minift.plugins.ResolvedCheckpoint`, which also says where it
        comes from; or None if this plugin does not know the name.
    """


@hookspec(firstresult=True)
def minift_build_tokenizer(folder, tokenizer_config, config):
    """Turn the vocabulary files of a folder that has no tokenizer.json into a tokenizer.

    `tokenizer_config` is what tokenizer_config.json and special_tokens_map.json say, `config` what
    config.json says; both are dicts, {} where there is no such file.

    Returns:
        A `tokenizers.Tokenizer`, or None if the files are none that this plugin knows.
    """


@hookspec(firstresult=True)
def minift_publish(folder, repo, message, private):
    """Put a saved model where others find it: `minift push`, `trainer.push_to_hub`.

    `folder` is the run's, with config.json and model.safetensors; `repo` the name there; `message`
    what is recorded of the change, or None; `private` whether only its owner may see it.

    Returns:
        Its address, or None if this plugin does not publish under such names.
    """


@hookspec(firstresult=True)
def minift_should_stop(run):
    """Asked after each evaluation.

    What the decision needs is read from `run.state.log_history`, so that a resumed run decides as
    the uninterrupted one.

    Returns:
        A reason to stop, or None.
    """


# -------------------------------------------------------------------------------------- observers


@hookspec
def minift_on_train_begin(run):
    """Everything is built and checked; no step has been taken."""


@hookspec
def minift_on_step_end(run):
    """One optimizer step is done. Reading a tensor here would wait for the device: don't."""


@hookspec
def minift_on_log(run, record):
    """`record`, a dict of plain numbers, was added to the log history and to metrics.jsonl."""


@hookspec
def minift_on_evaluate(run, result):
    """`result` is the EvalLoopOutput: predictions and label_ids in row order, and metrics."""


@hookspec
def minift_on_save(run, path):
    """A checkpoint is complete and on the disk, in the folder `path`."""


@hookspec
def minift_on_train_end(run):
    """The run came to its end, by the last step or by a reason to stop."""


@hookspec
def minift_on_exception(run, exception):
    """`exception` (KeyboardInterrupt too) ends the run; it is raised again afterwards."""
