"""The outline of the program: `minift train` in pseudo-code, with each hook where it is called.

    minift_register_commands            which commands there are; `minift train` does what follows
    minift_add_options                  flags that plugins have there
    minift_register_tasks               --task NAME: its data set, columns, label names and metrics
    minift_find_dataset                 load_dataset: a path or a name to files, by split
    minift_register_file_formats        files to tables
    minift_find_checkpoint              from_pretrained: a name to a folder with a model's files
    minift_find_tokenizer               the folder's files to a tokenizer and its settings
    minift_build_tokenizer              vocabulary files to a tokenizer, without a tokenizer.json
    tokenize the texts with a cached map
    minift_register_model_families      config.json's model_type to the model's classes
    load the weights, with a new classification head
    minift_register_metrics             names of metrics to functions
    minift_register_devices             --device NAME, or "auto", to the Device that computes
    minift_register_trackers            --report-to NAME to an observer of this run
    minift_on_train_begin
    while state.global_step < state.max_steps:
        for update in epoch_updates(run):                       the batches of an optimizer step
            for batch in update:
                loss, count, _ = compute_loss(batch)            sums, so that they can be added up
                device.backward(loss)
            device.clip_grad_norm(optimizer, max_grad_norm, total_items)     divides them, once
            minift_on_gradients
            device.step(optimizer), scheduler.step(), state.global_step += 1
            minift_on_step_end
            if should_log(run):       fetch_losses, trainer.log
                minift_on_log
            if should_evaluate(run):  trainer.evaluate, which also logs
                minift_on_evaluate
                minift_should_stop                              the first reason ends the run
            if should_save(run):      checkpoint.save(run)
                minift_on_save
    minift_on_train_end
    minift_on_exception                 instead, when an exception ends the run
    minift_publish                      `minift push`, trainer.push_to_hub: upload the saved model

Hooks choose objects; objects do the work. A hook exists only where an installed package must act
without the script naming it. There are four kinds, told apart by their names, and one for flags:

- registrars, `minift_register_*`, take no arguments and return a dict. All plugins are asked; it is
  an error if two of them return the same name.
- finders, `minift_find_*` and `minift_build_tokenizer`, `minift_publish`, turn what the user named
  into an object. The first answer that is not None is taken; an exception ends the search.
- decisions, `minift_should_stop`, are asked as finders are, and the first answer counts.
- observers, `minift_on_*`, return nothing and never change training. One that raises is reported
  and not called again in this run. With several processes, only process 0 calls them.
- `minift_add_options` adds flags to `minift train`; observers find their values in `run.options`.

A plugin may leave out arguments that it does not use. `minift plugins --loop` prints the outline
above, each hook with the plugins that implement it; plugins/README.md shows how to write one.
"""

import pluggy

hookspec = pluggy.HookspecMarker("minift")
hookimpl = pluggy.HookimplMarker("minift")

# -------------------------------------------------------------------------------------- registrars


@hookspec
def minift_register_devices():
    """Register devices, which compute.

    Returns:
        {name: subclass of `minift.Device`}. Its `unavailable()` is called before the class is used,
        so importing the plugin must not import anything heavy.
    """


@hookspec
def minift_register_metrics():
    """Register metrics, for `evaluate.load` and `--metric`.

    Returns:
        {name: function(predictions, references) -> {key: float}, or a `minift.evaluate.Metric`
        that holds such a function and describes each key: its range, whether higher is better,
        and how `minift compare` finds its confidence interval}. Names like "glue/mrpc" serve
        `evaluate.load("glue", "mrpc")`; further arguments of the function are options of `compute`.
    """


@hookspec
def minift_register_tasks():
    """Register tasks: data sets whose columns, label names and metrics are known.

    Returns:
        {name: `minift.tasks.Task`}.
    """


@hookspec
def minift_register_model_families():
    """Register model families beside minift's own.

    Returns:
        {model_type in config.json: function without arguments that returns a
        `minift.models.auto.Family`}. The function is called when a model is loaded, and may import
        what it likes; the plugin itself must not import anything heavy.
    """


@hookspec
def minift_register_file_formats():
    """Register formats of data files; "disk" is that of the folders of `save_to_disk`.

    Returns:
        {name: `minift.data.file_formats.FileFormat`, or `FolderFormat`}.
    """


@hookspec
def minift_register_trackers():
    """Register trackers, for `TrainingArguments(report_to=...)`.

    Returns:
        {name: class, without arguments, of observers of one run}. Its classmethod `unavailable()`
        returns why it cannot be used here, such as a library that is missing, or None.
    """


@hookspec
def minift_register_commands():
    """Register commands of the program `minift`.

    Returns:
        {name: object with `help` (one line), `configure(parser)` and `run(args) -> exit code`}.
    """


@hookspec
def minift_add_options(parser):
    """Add flags to `minift train`, `--my-flag`, whose values are in `run.options["my_flag"]`.

    Args:
        parser: an argparse group; `add_argument` is all that it should be used for.
    """


# --------------------------------------------------------------------------- finders and decisions


@hookspec(firstresult=True)
def minift_find_dataset(path, name, revision, data_files, data_dir):
    """Find the files of a data set on this machine; download them if need be.

    Args:
        path, name, revision, data_files, data_dir: the arguments of `load_dataset`.

    Returns:
        A `minift.data.file_formats.DatasetFiles`, or None if this plugin does not know the path.
    """


@hookspec(firstresult=True)
def minift_find_checkpoint(name, revision, component):
    """Find the folder of a model on this machine: config.json, *.safetensors and tokenizer.json.

    Args:
        name: what the user typed; it is no local folder.
        revision: a branch, tag or commit, or None.
        component: "model", "tokenizer" or "config". A tokenizer needs no weights.

    Returns:
        The folder's path, or a `minift.plugins.ResolvedCheckpoint`, which also says where it comes
        from; or None if this plugin does not know the name.
    """


@hookspec(firstresult=True)
def minift_find_tokenizer(folder):
    """Read the tokenizer of a model's folder.

    Returns:
        An object of a class derived from `minift.tokenizer.Tokenizer`, which also saves itself
        (`save_pretrained(folder)`); or None if there is no tokenizer.
    """


@hookspec(firstresult=True)
def minift_build_tokenizer(folder, tokenizer_config, config):
    """Build a tokenizer from the vocabulary files of a folder that has no tokenizer.json.

    Args:
        folder: the model's folder.
        tokenizer_config: the contents of tokenizer_config.json and special_tokens_map.json.
        config: the contents of config.json; {} where there is no such file.

    Returns:
        A `tokenizers.Tokenizer`, or None if this plugin does not know the files.
    """


@hookspec(firstresult=True)
def minift_publish(folder, repo, message, private):
    """Upload a saved model.

    Args:
        folder: the run's folder, with config.json and model.safetensors.
        repo: the name under which the model is published.
        message: a description of the change, or None.
        private: whether only the owner may see it.

    Returns:
        The address of the upload, or None if this plugin does not publish under such names.
    """


@hookspec(firstresult=True)
def minift_should_stop(run):
    """Decide after an evaluation whether training ends here.

    The decision is made from `run.state.log_history`, which checkpoints keep, so that a resumed run
    decides as the uninterrupted one does.

    Returns:
        A reason to stop, as a text, or None.
    """


# --------------------------------------------------------------------------------------- observers


@hookspec
def minift_on_train_begin(run):
    """Called when everything is built and checked, before the first step.

    Args:
        run: the `minift.training.run.Run`, as in all hooks that follow.
    """


@hookspec
def minift_on_gradients(run):
    """Called once an update, between the backward passes and the optimizer's step.

    `p.grad` of each parameter in `run.model` is the mean gradient of the update: summed over all
    micro-batches and processes, divided, without fp16's factor, and clipped. `run.losses.grad_norm`
    is its norm before clipping, a scalar tensor. Weights are those of before the step. Reading a
    value waits for the device: do it now and then, or keep what is computed until a log point.
    In fp16 an update whose gradients overflow, which is then left out, is seen too.
    """


@hookspec
def minift_on_step_end(run):
    """Called after each optimizer step. Do not read a tensor here: that waits for the device."""


@hookspec
def minift_on_log(run, record):
    """Called when a record was added to the log history and to metrics.jsonl.

    Args:
        run: the run.
        record: a dict of plain numbers, "step" and "epoch" among them.
    """


@hookspec
def minift_on_evaluate(run, result):
    """Called after an evaluation.

    Args:
        run: the run.
        result: an EvalLoopOutput: predictions and label_ids in the order of the rows, and metrics.
    """


@hookspec
def minift_on_save(run, path):
    """Called when a checkpoint is complete on the disk.

    Args:
        run: the run.
        path: the checkpoint's folder.
    """


@hookspec
def minift_on_train_end(run):
    """Called when the run has ended, after its last step or by a reason to stop."""


@hookspec
def minift_on_exception(run, exception):
    """Called when an exception ends the run; it is raised again afterwards.

    Args:
        run: the run.
        exception: the exception; it may be a KeyboardInterrupt.
    """
