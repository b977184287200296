"""`Accelerator`: a training loop written by hand, on any device, as exact as the Trainer's.

The loop stays the user's. `prepare` wraps what they have made, so that each object does its part of
the arithmetic of `training/loop.py`:

    loader     batches on the device; the order of an epoch is a function of the seed and the epoch,
               and each update's dropout masks are a random stream of their own
    backward   adds up *sums* of losses, and the optimizer divides once, by the count of all of them
    optimizer  steps at the end of an update's micro-batches and does nothing before
    scheduler  goes on with each update, by one for each process: its length is that of the
               DataLoader that was passed to `prepare`, of which each process gets a share

So a loop with an Accelerator and a Trainer with the same settings end with the same weights, bit
for bit, and evaluating in the middle changes nothing. An Accelerator keeps all of its state in
itself: two in one process are independent.
"""

import contextlib
import inspect
import json
import random
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from minift import distributed, files
from minift.accelerate import prepared
from minift.accelerate.prepared import PreparedLoader, PreparedOptimizer, PreparedScheduler
from minift.device import Device, choose_device, choose_precision
from minift.errors import ArgumentError, ConfigError, DataError
from minift.models.unpadding import add_unpadding
from minift.models.weights import unwrap
from minift.plugins import default_manager
from minift.settings import AT_LEAST_1, checked
from minift.training import checkpoint, serialization
from minift.training.compatibility import to_plain

STATE = "accelerator.json"  # in a folder of `save_state`, beside the model and files of tensors


class Accelerator:
    """Runs a hand-written loop on whatever device there is.

        accelerator = Accelerator()
        loader, model, optimizer, scheduler = accelerator.prepare(loader, model, ...)
        for batch in loader:
            outputs = model(**batch)
            accelerator.backward(outputs)      # or outputs.loss
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

    With gradient accumulation, the body of the loop stands in `with accelerator.accumulate(model):`
    and is otherwise the same. Call `set_seed` before `prepare`.

    Args:
        gradient_accumulation_steps: micro-batches in an update, see `accumulate`.
        mixed_precision: None or "no" for fp32, "bf16" or "fp16"; parameters stay fp32.
        cpu: the same as device="cpu".
        device: "auto", or a device that a plugin provides (`minift plugins`).

    Attributes:
        sync_gradients: True if the current micro-batch (after its block: the one just done) ends
            its update, so that `optimizer.step()` steps; always True without `accumulate`.
    """

    def __init__(
        self, gradient_accumulation_steps: int = 1, mixed_precision: str | None = None,
        cpu: bool = False, device: str = "auto",
    ) -> None:  # fmt: skip
        name, steps = "gradient_accumulation_steps", gradient_accumulation_steps
        self.gradient_accumulation_steps = checked(name, steps, [int], AT_LEAST_1)
        self._device = choose_device("cpu" if cpu else device, default_manager())
        precision = "fp32" if mixed_precision in (None, "no") else mixed_precision
        self._precision, _ = choose_precision(precision, self._device)
        self._device.setup_precision(self._precision)
        self.mixed_precision = "no" if self._precision == "fp32" else self._precision
        self.device = self._device.torch_device
        self.num_processes, self.process_index = self._device.world_size, self._device.rank
        self.is_main_process = self.process_index == 0
        self.is_local_main_process = distributed.local_rank() == 0
        self._state = prepared.GradientState()
        self._id = uuid.uuid4().hex[:12]
        self._prepared: list[tuple[Any, Any]] = []  # (as passed, as returned)
        self._contexts: list[contextlib.ExitStack] = []  # of the forwards that are running

    @property
    def sync_gradients(self) -> bool:
        return self._state.sync_gradients

    # -- preparing --------------------------------------------------------------------------------

    def prepare(self, *objects: Any) -> Any:
        """Models, optimizers, DataLoaders and LR schedulers, in any order, ready for the loop.

        The seed of all streams is the one that `set_seed` set last before the first call.

        Returns:
            As many objects in the same order; a single one by itself.

        Raises:
            ArgumentError: something else was passed, or a DataLoader that is no map of batches.
        """
        if not self._prepared:
            self._state.seed = torch.initial_seed()
        # A scheduler has to find its optimizer, so those come last.
        for one in sorted(objects, key=lambda one: isinstance(one, LRScheduler)):
            if self._find_prepared(one) is None:
                self._prepared.append((one, self._prepare(one)))
        ready = tuple(self._find_prepared(one) for one in objects)
        return ready[0] if len(ready) == 1 else ready

    def _find_prepared(self, one: Any) -> Any:
        """Return the prepared object of one that was passed before, or None."""
        return next((pair[1] for pair in self._prepared if any(one is x for x in pair)), None)

    def _all(self, kind: type) -> list[Any]:
        """Return what `prepare` has returned of a kind."""
        return [one for _, one in self._prepared if isinstance(one, kind)]

    def _prepare(self, one: Any) -> Any:
        if isinstance(one, nn.Module):
            return self._prepare_model(one)
        if isinstance(one, Optimizer):
            if self._device.scaler is not None and self._state.optimizers:
                what = "fp16 takes one optimizer: its scaler follows the overflows of one"
                raise ConfigError(what, do="put all parameters into its groups, or use bf16")
            return PreparedOptimizer(one, self._device, self._state)
        if isinstance(one, DataLoader):
            return PreparedLoader(one, self._device, self._state, self._add_unpadding)
        if isinstance(one, LRScheduler):
            optimizer = self._find_prepared(one.optimizer)
            if optimizer is None:
                what = f"the optimizer of {type(one).__name__} is not prepared"
                raise ArgumentError(what, do="pass it to prepare too, at the same time or before")
            return PreparedScheduler(one, optimizer)
        known = "nn.Module, torch optimizer, torch DataLoader or LR scheduler"
        raise ArgumentError("this cannot be prepared", got=type(one).__name__, expected=known)

    def _prepare_model(self, model: nn.Module) -> nn.Module:
        """Move the model to the device, and let its forward compute in the precision.

        Two hooks around the forward do that. A new `model.forward` could too, but a copy of the
        model (for a moving average, say) would have it with the weights of the original inside.
        """
        on_device = self._device.prepare(model)
        on_device.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        # The first to enter leaves last, should two Accelerators have hooks on one model.
        on_device.register_forward_hook(self._after_forward, prepend=True, always_call=True)
        return on_device

    def _before_forward(self, model: nn.Module, inputs: Any, named_inputs: Any) -> None:
        self._state.current = prepared.find_batch([inputs, named_inputs], self._state.current)
        if model.training and torch.is_grad_enabled():
            self._state.seed_generator(self._device, "dropout")
        self._contexts.append(contextlib.ExitStack())
        self._contexts[-1].enter_context(self.autocast())

    def _after_forward(self, model: nn.Module, inputs: Any, outputs: Any) -> Any:
        self._contexts.pop().close()
        if self._precision != "fp32":
            half = (torch.bfloat16, torch.float16)
            outputs = prepared.map_tensors(lambda x: x.float() if x.dtype in half else x, outputs)
        prepared.mark(outputs, self._state.current)
        return outputs

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return a context for computing outside of a prepared model's forward in the precision."""
        return self._device.autocast(self._precision)

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        """Return the model without wrappers, torch's too; its forward stays in mixed precision."""
        return unwrap(next((original for original, one in self._prepared if one is model), model))

    # -- the loop ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def accumulate(self, *models: nn.Module) -> Iterator[None]:
        """Enter one micro-batch; every gradient_accumulation_steps-th of them ends in an update.

        So does that of a loader's last batch, or of the last slice of it, which `backward` sees. In
        the other blocks `optimizer.step()`, `scheduler.step()` and `optimizer.zero_grad()` do
        nothing.
        """
        state = self._state
        state.micro_batches += 1
        state.sync_gradients = state.micro_batches >= self.gradient_accumulation_steps
        yield
        state.micro_batches = 0 if state.sync_gradients else state.micro_batches

    def backward(self, loss: Any) -> None:
        """Add the gradient of a micro-batch to the parameters' `grad`, as a sum over its items.

        The optimizer divides by the number of all items, once, when it steps. So do not divide a
        loss by the number of accumulation steps: that would make the gradient smaller by so much.

        Args:
            loss: a model's outputs (`loss_sum`, `count`), which is exact for any accumulation; or a
                scalar, which is taken for the mean over the rows that the model was given: a batch
                of a prepared loader, or a slice of one. With unlabelled rows it is not: pass the
                outputs. Several scalars of one batch add up, as they do in torch.

        Raises:
            ArgumentError: it is neither, or the number of rows of a scalar is not known.
        """
        state, optimizers = self._state, self._state.optimizers
        loss_sum, count = getattr(loss, "loss_sum", None), getattr(loss, "num_items", None)
        scalar = isinstance(loss, Tensor) and loss.numel() == 1
        batch = prepared.find_batch(loss.reshape(()) if scalar else loss_sum, state.current)
        if scalar:
            if batch is None:
                what = "a mean loss needs its number of rows, and no prepared loader gave a batch"
                raise ArgumentError(what, do="prepare the DataLoader, or pass the model's outputs")
            loss_sum, count = loss * batch.rows, batch.rows
        if loss_sum is None or count is None:
            known = "outputs with loss_sum and count (pass labels), or a scalar: outputs.loss"
            raise ArgumentError("backward needs a loss", got=type(loss).__name__, expected=known)
        if batch is not None:
            loss_sum, count = loss_sum * batch.counts, count * batch.counts
            again = any(one.counted and one.counted[0] is batch for one in optimizers)
            ends_epoch = batch.loader.train_on(batch, again)
            state.sync_gradients = state.sync_gradients or ends_epoch
        before = [one.gradient_versions() for one in optimizers if len(optimizers) > 1]
        self._device.backward(loss_sum, last=state.sync_gradients)
        for i, one in enumerate(optimizers):
            if not before or one.gradient_versions() != before[i]:  # else the loss is another's
                one.add(count, (batch, state.micro_batches), several_losses=scalar)

    def clip_grad_norm_(
        self, parameters: Tensor | Iterable[Tensor], max_norm: float
    ) -> Tensor | None:
        """Clip the mean gradient to a global L2 norm of at most `max_norm`, once in an update.

        torch's own `clip_grad_norm_` must not be used: until the step, gradients are sums.

        Args:
            parameters: those of one prepared optimizer, usually `model.parameters()`.
            max_norm: 0 means no clipping.

        Returns:
            The norm before clipping, a scalar tensor; None before the update's last micro-batch.
        """
        if not self.sync_gradients:
            return None
        parameters = [parameters] if isinstance(parameters, Tensor) else parameters
        ids = {id(p) for p in parameters if p.requires_grad}
        for optimizer in self._state.optimizers:
            groups = optimizer.param_groups
            if ids == {id(p) for g in groups for p in g["params"] if p.requires_grad}:
                return optimizer.divide_and_clip(max_norm)
        what = "these are not the parameters, all of them, of a prepared optimizer"
        raise ConfigError(what, do="pass model.parameters()")

    def _add_unpadding(self, batch: Any) -> Any:
        """Add the positions of the real tokens, unless the models find them as cheaply."""
        models = [unwrap(model) for model in self._models()]
        accepted = all("unpadding" in inspect.signature(m.forward).parameters for m in models)
        needed = self.device.type != "cpu" or self._precision != "fp32"
        if not (models and accepted and needed):
            return batch
        return add_unpadding(batch, self._device, self._precision)

    def _models(self) -> list[nn.Module]:
        return [original for original, _ in self._prepared if isinstance(original, nn.Module)]

    # -- several processes ------------------------------------------------------------------------

    def gather(self, values: Any) -> Any:
        """Gather the rows of all processes, in tensors or in lists, tuples and dicts of them."""
        return prepared.map_tensors(self._device.gather, values)

    def gather_for_metrics(self, values: Any) -> Any:
        """Gather the rows of a batch, without those that only fill up an epoch's last one.

        Call it for each batch; for all of an epoch together it is `gather`.
        """
        batch = prepared.find_batch(values, self._state.current)
        if self.num_processes > 1 and batch is not None and batch.last:
            n, largest = batch.size * batch.counts, batch.loader.largest
            values = prepared.map_tensors(torch.atleast_1d, values)
            values = prepared.map_tensors(lambda x: x[:n] if len(x) <= largest else x, values)
        return self.gather(values)

    def wait_for_everyone(self) -> None:
        self._device.barrier()

    def print(self, *values: object, sep: str = " ", end: str = "\n") -> None:
        """Print in one process of all."""
        if self.is_local_main_process:
            print(*values, sep=sep, end=end)

    # -- saving -----------------------------------------------------------------------------------

    def skip_first_batches(self, loader: PreparedLoader, num_batches: int = 0) -> Any:
        """Return the epoch without its first batches, which are not loaded."""
        if loader not in self._all(PreparedLoader):
            raise ArgumentError("skip_first_batches needs a prepared loader")
        return loader.skip(num_batches)

    def save_model(self, model: nn.Module, save_directory: str | Path) -> None:
        """Save the weights (of a model of minift's, all that `from_pretrained` reads)."""
        if self.is_main_process:
            serialization.save_model(model, save_directory, self._device)
        self._device.barrier()

    def save_state(self, output_dir: str | Path) -> None:
        """Save everything prepared, and the generators, in a folder that is complete or not there.

        Of several processes one writes, with its generators, and the others wait.

        Raises:
            ConfigError: gradients wait for their update; an unprepared scheduler would be lost; the
                folder holds something else.
            TrainingError: it cannot be written.
        """
        if self.is_main_process:
            folder = files.local_path(output_dir)
            self._check_before_saving(folder)
            model = self._originals()[0]
            schedulers, loaders = self._all(PreparedScheduler), self._all(PreparedLoader)
            other = {
                "built": self._description(),
                "seed": self._state.seed,
                "updates": [[one.updates, one.applied_updates] for one in self._state.optimizers],
                "seen_updates": [scheduler.seen_updates for scheduler in schedulers],
                "loaders": [[loader.epoch, loader.seed] for loader in loaders],
                "python": random.getstate(),
                "numpy": to_plain(np.random.get_state(legacy=False)),
            }
            state = serialization.training_state(*self._originals(), other)
            generators = {"torch": torch.get_rng_state(), "device": self._device.rng_state()}
            state[0]["generators.safetensors"] = generators
            size = serialization.checkpoint_bytes(model)
            with checkpoint.new_folder(folder, {"run": self._id}, size) as scratch:
                serialization.save_model(model, scratch, self._device)
                serialization.write_state(scratch / STATE, state)
        self._device.barrier()

    def load_state(self, input_dir: str | Path) -> None:
        """Put what was prepared, built as in the saved run, where that one stood.

        Training goes on to the bit as if it had never ended. In the middle of an epoch, take the
        loader without the n batches that were done: `accelerator.skip_first_batches(loader, n)`.

        Raises:
            DataError: the folder is damaged or not complete.
            ConfigError: something else was prepared than in the saved run.
        """
        path, state = files.local_path(input_dir) / STATE, self._state
        files.recover(path.parent.parent, path.parent.name)
        if STATE not in files.verify_folder(path.parent).files:
            raise DataError(f"{path.parent} was not written by save_state")
        built = json.loads(path.read_text(encoding="utf-8"))["built"]
        if built != self._description():
            what = f"{path.parent} was saved with other things prepared"
            raise ConfigError(what, got=self._description(), expected=built)
        saved = serialization.load_training_state(path, *self._originals())
        state.seed, state.micro_batches, state.sync_gradients = saved["seed"], 0, True
        for optimizer, steps in zip(state.optimizers, saved["updates"], strict=True):
            optimizer.updates, optimizer.applied_updates = steps
            optimizer.clear()
        schedulers, loaders = self._all(PreparedScheduler), self._all(PreparedLoader)
        for scheduler, seen in zip(schedulers, saved["seen_updates"], strict=True):
            scheduler.seen_updates = seen
        for loader, (epoch, seed) in zip(loaders, saved["loaders"], strict=True):
            loader.epoch, loader.begun, loader.seed = epoch, False, seed
        version, words, gauss = saved["python"]
        random.setstate((version, tuple(words), gauss))
        np.random.set_state(saved["numpy"])
        generators = load_file(path.with_name("generators.safetensors"))
        torch.set_rng_state(generators["torch"])
        self._device.set_rng_state(generators["device"])

    def _originals(self) -> tuple[nn.Module, Device, list[Optimizer], list[Any]]:
        """Return what was passed to `prepare`; several models as submodules, by number."""
        models, schedulers = self._models(), self._all(PreparedScheduler)
        model = models[0] if len(models) == 1 else nn.ModuleList(models)
        optimizers = [one.optimizer for one in self._state.optimizers]
        return model, self._device, optimizers, [one.scheduler for one in schedulers]

    def _description(self) -> dict[str, Any]:
        """Return what has to be equal where a saved state is loaded."""
        return {
            "prepared": sorted(type(unwrap(original)).__name__ for original, _ in self._prepared),
            "batches": [len(loader) for loader in self._all(PreparedLoader)],
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "mixed_precision": self.mixed_precision,
        }

    def _check_before_saving(self, folder: Path) -> None:
        optimizers = self._state.optimizers
        if optimizers and all(one.counted for one in optimizers):
            what = "gradients wait for their update, and they are not saved"
            raise ConfigError(what, do="save_state where accelerator.sync_gradients, after step()")
        scheduled = [scheduler.optimizer for scheduler in self._all(PreparedScheduler)]
        for optimizer in optimizers:
            steps = (optimizer.step, optimizer.optimizer.step)
            marked = any(hasattr(step, "_wrapped_by_lr_sched") for step in steps)  # by LRScheduler
            if marked and optimizer not in scheduled:
                what = "an LR scheduler is not prepared, so its state would be lost"
                raise ConfigError(what, do="pass it to accelerator.prepare")
        manifest = (folder / files.MANIFEST).exists()
        saved = {files.MANIFEST, *files.read_manifest(folder).files} if manifest else set()
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if names and (STATE not in saved or names - saved):
            what = f"{folder} holds something else than a saved state, which would be lost"
            raise ConfigError(what, do="choose a new folder")
