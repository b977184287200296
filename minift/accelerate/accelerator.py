"""`Accelerator`: a training loop written by hand, on any device, as exact as the Trainer's.

The loop stays the user's. What they have made is handed to `prepare` and comes back so that each
part does the right thing at the right time; the arithmetic is that of `training/loop.py`:

    loader     batches on the device; the order of an epoch is a function of the seed and the epoch,
               and each update's dropout masks are a stream of their own
    backward   adds up *sums* of losses, and the optimizer divides once, by the count of all of them
    optimizer  steps at the end of an accumulation group and does nothing before
    scheduler  goes on by one with each update, whatever the number of processes

So a loop with an Accelerator and a Trainer with the same settings end with the same weights, bit
for bit, and evaluating in the middle changes nothing. An Accelerator keeps all of its state in
itself; two in one process know nothing of each other.
"""

import contextlib
import copy
import inspect
import json
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from minift import distributed, files, rng
from minift.accelerate.prepared import PreparedLoader, PreparedOptimizer, PreparedScheduler, Rest
from minift.device import choose_device, choose_precision
from minift.errors import ArgumentError, ConfigError, DataError
from minift.models.unpadding import add_unpadding
from minift.models.weights import save_weights
from minift.plugins import default_manager
from minift.training import checkpoint, serialization


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
        sync_gradients: whether the micro-batch at hand (after its block: the one just done) ends
            its group, so that `optimizer.step()` updates; always True without `accumulate`.
    """

    def __init__(
        self,
        gradient_accumulation_steps: int = 1,
        mixed_precision: str | None = None,
        cpu: bool = False,
        device: str = "auto",
    ) -> None:
        if gradient_accumulation_steps < 1:
            what = "gradient_accumulation_steps must be at least 1"
            raise ConfigError(what, got=gradient_accumulation_steps)
        self._device = choose_device("cpu" if cpu else device, default_manager())
        wanted = "fp32" if mixed_precision in (None, "no") else mixed_precision
        self._precision, _ = choose_precision(wanted, self._device)
        self._device.setup_precision(self._precision)
        self.mixed_precision = "no" if self._precision == "fp32" else self._precision
        self.device = self._device.torch_device
        self.num_processes, self.process_index = self._device.world_size, self._device.rank
        self.is_main_process = self.process_index == 0
        self.is_local_main_process = distributed.local_rank() == 0
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.sync_gradients = True
        self._id, self._seed = uuid.uuid4().hex[:12], 0
        self._prepared: list[tuple[Any, Any]] = []  # (as given, as returned)
        self._optimizers: list[PreparedOptimizer] = []
        self._schedulers: list[PreparedScheduler] = []
        self._loaders: list[PreparedLoader] = []
        self._micro = 0  # micro-batches of the group so far
        self._batch, self._rows, self._at_end = 0, 0, False  # what a loader handed out last
        self._contexts: list[contextlib.ExitStack] = []  # of the forwards that are running

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
            self._seed = torch.initial_seed()
        # A scheduler has to find its optimizer, so those come last.
        for given in sorted(objects, key=lambda given: isinstance(given, LRScheduler)):
            if self._ready(given) is None:
                self._prepared.append((given, self._prepare(given)))
        ready = tuple(self._ready(given) for given in objects)
        return ready[0] if len(ready) == 1 else ready

    def _ready(self, given: Any) -> Any:
        """What became of an object, or None if it was not prepared."""
        return next((pair[1] for pair in self._prepared if any(given is x for x in pair)), None)

    def _prepare(self, given: Any) -> Any:
        if isinstance(given, nn.Module):
            return self._prepare_model(given)
        if isinstance(given, Optimizer):
            if self._device.scaler is not None and self._optimizers:
                what = "fp16 takes one optimizer: its scaler follows the overflows of one"
                raise ConfigError(what, do="put all parameters into its groups, or use bf16")
            self._optimizers.append(PreparedOptimizer(given, self))
            return self._optimizers[-1]
        if isinstance(given, DataLoader):
            self._loaders.append(PreparedLoader(given, self))
            return self._loaders[-1]
        if isinstance(given, LRScheduler):
            optimizer = self._ready(given.optimizer)
            if optimizer is None:
                what = f"the optimizer of {type(given).__name__} is not prepared"
                raise ArgumentError(what, do="pass it to prepare too, at the same time or before")
            self._schedulers.append(PreparedScheduler(given, optimizer))
            return self._schedulers[-1]
        known = "nn.Module, torch optimizer, torch DataLoader or LR scheduler"
        raise ArgumentError("this cannot be prepared", got=type(given).__name__, expected=known)

    def _prepare_model(self, model: nn.Module) -> nn.Module:
        """The model on the device, computing in the Accelerator's precision.

        Two hooks around the forward do that. A new `model.forward` could too, but a copy of the
        model (for a moving average, say) would have it with the weights of the original inside.
        """
        ready = self._device.prepare(model)
        ready.register_forward_pre_hook(self._enter)
        # The first to enter leaves last, should two Accelerators have hooks on one model.
        ready.register_forward_hook(self._leave, prepend=True, always_call=True)
        return ready

    def _enter(self, model: nn.Module, inputs: Any) -> None:
        self._contexts.append(contextlib.ExitStack())
        self._contexts[-1].enter_context(self.autocast())

    def _leave(self, model: nn.Module, inputs: Any, outputs: Any) -> Any:
        self._contexts.pop().close()
        if self._precision == "fp32":
            return outputs
        half = (torch.bfloat16, torch.float16)
        return on_tensors(lambda x: x.float() if x.dtype in half else x, outputs)

    def autocast(self) -> AbstractContextManager:
        """The precision's context, for what is computed outside of a prepared model's forward."""
        return self._device.autocast(self._precision)

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        """The model as it was given to `prepare`; its forward goes on in mixed precision."""
        return next((given for given, ready in self._prepared if ready is model), model)

    # -- the loop ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def accumulate(self, *models: nn.Module) -> Iterator[None]:
        """One micro-batch; every gradient_accumulation_steps-th of them ends in an update.

        So does the last batch of a prepared loader, with however many there are. In the other
        blocks `optimizer.step()`, `scheduler.step()` and `optimizer.zero_grad()` do nothing.
        """
        self._micro += 1
        self.sync_gradients = self._micro == self.gradient_accumulation_steps or self._at_end
        yield
        self._micro = 0 if self.sync_gradients else self._micro

    def backward(self, loss: Any) -> None:
        """Add the gradient of a micro-batch to the parameters' `grad`, as a sum over its items.

        The optimizer divides by the number of all items, once, when it steps. So do not divide a
        loss by the number of accumulation steps: that would make the gradient smaller by so much.

        Args:
            loss: a model's outputs (`loss_sum`, `count`), which is exact for any accumulation; or a
                scalar, which is taken for the mean over the rows of the batch that a prepared
                loader handed out last. With unlabelled rows it is not: pass the outputs. Several
                scalars of one batch add up, as they do in torch.

        Raises:
            ArgumentError: it is neither, or a scalar of one knows not how many rows.
        """
        loss_sum, count = getattr(loss, "loss_sum", None), getattr(loss, "num_items", None)
        scalar = isinstance(loss, Tensor) and loss.numel() == 1
        if scalar:
            if not self._batch:
                what = "a mean loss needs its number of rows, and no prepared loader gave a batch"
                raise ArgumentError(what, do="prepare the DataLoader, or pass the model's outputs")
            loss_sum, count = loss * self._rows, self._rows
        if loss_sum is None or count is None:
            known = "outputs with loss_sum and count (pass labels), or a scalar: outputs.loss"
            raise ArgumentError("backward needs a loss", got=type(loss).__name__, expected=known)
        real = self._rows > 0 or not self._batch  # else the batch is another process's
        loss_sum, count = loss_sum * real, count * real
        self._device.backward(loss_sum, last=self.sync_gradients)
        for optimizer in self._optimizers:
            optimizer.add(count, again=scalar and optimizer.batch == self._batch)
            optimizer.batch = self._batch

    def clip_grad_norm_(
        self, parameters: Tensor | Iterable[Tensor], max_norm: float
    ) -> Tensor | None:
        """Clip the mean gradient to a global L2 norm of at most `max_norm`, once in an update.

        torch's own `clip_grad_norm_` must not be used: until the step, gradients are sums.

        Args:
            parameters: those of one prepared optimizer, usually `model.parameters()`.
            max_norm: 0 means no clipping.

        Returns:
            The norm before clipping, a scalar tensor; None inside an accumulation group.
        """
        if not self.sync_gradients:
            return None
        given = [parameters] if isinstance(parameters, Tensor) else parameters
        wanted = {id(p) for p in given if p.requires_grad}
        for optimizer in self._optimizers:
            groups = optimizer.param_groups
            if wanted == {id(p) for g in groups for p in g["params"] if p.requires_grad}:
                return optimizer.divide(max_norm)
        what = "these are not the parameters, all of them, of a prepared optimizer"
        raise ConfigError(what, do="pass model.parameters()")

    def _before_batch(self) -> None:
        """Between two updates the generator takes the stream of the next one, as in the loop."""
        counts = [optimizer.count for optimizer in self._optimizers]
        if not counts or None in counts:  # else gradients wait, and a group's stream goes on
            update = max((optimizer.updates for optimizer in self._optimizers), default=0)
            masks = update * self.num_processes + self.process_index
            self._device.seed(rng.derive(self._seed, "dropout", masks))

    def _with_unpadding(self, batch: Any) -> Any:
        """Models are told where the tokens are, unless they may as well look themselves."""
        models = [given for given, _ in self._prepared if isinstance(given, nn.Module)]
        takes = all("unpadding" in inspect.signature(model.forward).parameters for model in models)
        told = self.device.type != "cpu" or self._precision != "fp32"
        if models and takes and told and "attention_mask" in batch:
            batch = add_unpadding(batch, self._device, self._precision)
        return batch

    # -- several processes ------------------------------------------------------------------------

    def gather(self, values: Any) -> Any:
        """The rows of all processes, in tensors or in lists, tuples and dicts of them."""
        return on_tensors(self._device.gather, values)

    def gather_for_metrics(self, values: Any) -> Any:
        """The same of the batch at hand; rows that only filled it up are left out."""
        return self.gather(on_tensors(lambda x: x[: self._rows] if x.dim() else x, values))

    def wait_for_everyone(self) -> None:
        self._device.barrier()

    def print(self, *values: object, sep: str = " ", end: str = "\n") -> None:
        """Print in one process of all."""
        if self.is_local_main_process:
            print(*values, sep=sep, end=end)

    # -- saving -----------------------------------------------------------------------------------

    def skip_first_batches(self, loader: "PreparedLoader", num_batches: int = 0) -> "Rest":
        """The epoch without its first batches, which are not loaded; the next epoch is whole."""
        if loader not in self._loaders:
            raise ArgumentError("skip_first_batches needs a prepared loader")
        return Rest(loader, num_batches)

    def save_model(self, model: nn.Module, save_directory: str | Path) -> None:
        """The weights (of a model of minift's, all that `from_pretrained` reads) in a folder."""
        if self.is_main_process:
            serialization.save_model(self.unwrap_model(model), Path(save_directory), self._device)
        self._device.barrier()

    def save_state(self, output_dir: str | Path) -> None:
        """Everything prepared, and the generators, in a folder that is there whole or not at all.

        Of several processes one writes, with its generators, and the others wait.

        Raises:
            ConfigError: gradients wait for their update; an unprepared scheduler would be lost; the
                folder holds something else.
            TrainingError: it cannot be written.
        """
        if self.is_main_process:
            self._write_state(Path(output_dir))
        self._device.barrier()

    def _write_state(self, folder: Path) -> None:
        self._refuse_to_save(folder)
        model = self._together()
        size = serialization.checkpoint_bytes(model)
        with checkpoint.new_folder(folder, {"run": self._id}, size) as scratch:
            serialization.save_model(model, scratch, self._device)
            optimizers = []
            for i, optimizer in enumerate(self._optimizers):
                inner = optimizer.optimizer
                tensors, said = serialization.optimizer_state(inner, model, self._device)
                save_weights(tensors, scratch / f"optimizer_{i}.safetensors")
                done = {"updates": optimizer.updates, "taken": optimizer.taken}
                optimizers.append({"state": said, **done})
            generators = {"torch": torch.get_rng_state(), "device": self._device.rng_state()}
            save_weights(generators, scratch / "generators.safetensors")
            scaler = self._device.scaler
            record = {
                "built": self._built(),
                "seed": self._seed,
                "optimizers": optimizers,
                "schedulers": [
                    [
                        s.seen,
                        serialization.to_json(s.scheduler.state_dict(), "the scheduler's state"),
                    ]
                    for s in self._schedulers
                ],
                "loaders": [[loader.epoch, loader.seed] for loader in self._loaders],
                "scaler": scaler.state_dict() if scaler else None,
                "python": random.getstate(),
                "numpy": np.random.get_state(legacy=False),
            }
            text = json.dumps(record, default=np.ndarray.tolist)
            files.write_text(scratch / "accelerator.json", text)

    def load_state(self, input_dir: str | Path) -> None:
        """Put what was prepared, built as in the saved run, where that one stood.

        Training goes on to the bit as if it had never ended. In the middle of an epoch, take the
        loader without the n batches that were done: `accelerator.skip_first_batches(loader, n)`.

        Raises:
            DataError: the folder is damaged or not complete.
            ConfigError: something else was prepared than in the saved run.
        """
        folder = Path(input_dir)
        files.recover(folder.parent, folder.name)
        if "accelerator.json" not in files.verify_folder(folder).files:
            raise DataError(f"{folder} was not written by save_state")
        said = json.loads((folder / "accelerator.json").read_text(encoding="utf-8"))
        if said["built"] != self._built():
            what = f"{folder} was saved with other things prepared"
            raise ConfigError(what, got=self._built(), expected=said["built"])
        model = self._together()
        serialization.load_model(model, folder)
        self._seed, self._micro, self.sync_gradients = said["seed"], 0, True
        for i, optimizer in enumerate(self._optimizers):
            tensors = serialization.read_tensors(folder / f"optimizer_{i}.safetensors")
            saved = said["optimizers"][i]
            serialization.load_optimizer_state(optimizer.optimizer, model, tensors, saved["state"])
            optimizer.updates, optimizer.taken = saved["updates"], saved["taken"]
            optimizer.forget()
        for scheduler, (seen, state) in zip(self._schedulers, said["schedulers"], strict=True):
            scheduler.seen = seen
            scheduler.scheduler.load_state_dict(serialization.from_json(state))
        for loader, (epoch, seed) in zip(self._loaders, said["loaders"], strict=True):
            loader.epoch, loader.begun, loader.seed = epoch, False, seed
        if self._device.scaler is not None:
            self._device.scaler.load_state_dict(said["scaler"])
        version, words, gauss = said["python"]
        random.setstate((version, tuple(words), gauss))
        np.random.set_state(said["numpy"])
        generators = serialization.read_tensors(folder / "generators.safetensors")
        torch.set_rng_state(generators["torch"])
        self._device.set_rng_state(generators["device"])

    def _together(self) -> nn.Module:
        """The model; of several, one module that has them as parts, named by their numbers."""
        given = [given for given, _ in self._prepared if isinstance(given, nn.Module)]
        return given[0] if len(given) == 1 else nn.ModuleList(given)

    def _built(self) -> dict[str, Any]:
        """What a saved state fits."""
        return {
            "prepared": sorted(type(given).__name__ for given, _ in self._prepared),
            "batches": [len(loader) for loader in self._loaders],
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "mixed_precision": self.mixed_precision,
        }

    def _refuse_to_save(self, folder: Path) -> None:
        counts = [optimizer.count for optimizer in self._optimizers]
        if counts and None not in counts:
            what = "gradients wait for their update, and they are not saved"
            raise ConfigError(what, do="save_state where accelerator.sync_gradients, after step()")
        prepared = [s.optimizer for s in self._schedulers]
        for optimizer in self._optimizers:
            scheduled = (optimizer.step, optimizer.optimizer.step)  # as LRScheduler marks them
            marked = any(hasattr(step, "_wrapped_by_lr_sched") for step in scheduled)
            if marked and optimizer not in prepared:
                what = "an LR scheduler is not prepared, so its state would be lost"
                raise ConfigError(what, do="pass it to accelerator.prepare")
        saved: set[str] = set()
        with contextlib.suppress(DataError):
            saved = {files.MANIFEST, *files.read_manifest(folder).files}
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if names and ("accelerator.json" not in saved or names - saved):
            what = f"{folder} holds something else than a saved state, which would be lost"
            raise ConfigError(what, do="choose a new folder")


def on_tensors(function: Callable[[Tensor], Any], values: Any) -> Any:
    """What the function makes of each tensor in nested lists, tuples, dicts and dataclasses."""
    if isinstance(values, Tensor):
        return function(values)
    if hasattr(values, "__dataclass_fields__"):
        values = copy.copy(values)
        for name, value in vars(values).items():
            setattr(values, name, on_tensors(function, value))
        return values
    if isinstance(values, dict):
        return {name: on_tensors(function, value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        parts = [on_tensors(function, value) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)
    return values
