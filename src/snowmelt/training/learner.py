"""What learns: the network, its averages, the objective and the optimiser; and one step of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snowmelt.base.device import PRECISIONS
from snowmelt.base.errors import SnowmeltError
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks import build, config_from_dict, prepare, recompute_activations
from snowmelt.model.tensors import load_into
from snowmelt.training import randomness
from snowmelt.training.batches import Batch
from snowmelt.training.config import TrainConfig
from snowmelt.training.distributed import World
from snowmelt.training.ema import Average, parse_profile
from snowmelt.training.flop import flop_per_image
from snowmelt.training.metrics import Meters
from snowmelt.training.objective import Objective
from snowmelt.training.optimizer import Optimizer
from snowmelt.training.replay import Replay


class Learner:
    """All tensors that training changes.

    config  the resolved run
    images  what the network makes
    device  where this process trains
    world   its place among the processes
    initial the weights to begin with; None draws them
    """

    def __init__(
        self,
        config: TrainConfig,
        images: ImageSpec,
        device: torch.device,
        world: World,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.device, self.world = config, device, world
        process = config.process
        schedule = process.noise_schedule()
        torch.manual_seed(randomness.derived_seed(config.seed, randomness.INITIAL, 0))
        network: nn.Module = build(config_from_dict(config.network))
        if initial is not None:
            load_into(network.state_dict(), initial, f"--init {config.init}")
        self.network = prepare(network, device)
        # A second network of the same shape, into which averaged weights are put when they are to be used.
        self._shadow = copy.deepcopy(self.network).requires_grad_(False).eval()
        if config.recompute:
            recompute_activations(self.network)
        self.denoiser = NetworkDenoiser(
            self.network,
            schedule,
            process.prediction,
            process.clock,
            process.learned_variance,
            PRECISIONS[config.precision],
        )
        values = images.value_range.values
        self.objective = Objective(self.denoiser, config.loss, process.weight, values).to(device)
        if config.compile:
            # What is trained alone: sampling and measuring meanwhile are not worth a compilation of their own.
            compiled = cast("nn.Module", torch.compile(self.network, dynamic=False))
            self.objective.denoiser = replace(self.denoiser, network=compiled)
        self._parallel = _parallel(self.objective, world)
        self.optimizer = Optimizer(
            self.objective.named_parameters(),
            config.betas,
            weight_decay=config.weight_decay,
            clip=config.clip,
            scaled=config.precision == "fp16",
            kind=config.optimizer,
        )
        self.averages = [
            Average(parse_profile(text, config.batch), self.network.named_parameters()) for text in config.emas
        ]
        self.guide: dict[str, Tensor] | None = None
        self.meters = Meters(device)
        share = config.batch // world.size
        self.micro_batch = share if config.micro_batch is None else min(config.micro_batch, share)
        # With fp16 the host decides on the scale of losses.
        recorded = config.compile and config.precision != "fp16" and device.type == "cuda" and world.size == 1
        self._replay = Replay(self._learn, device) if recorded else None
        self.flop_per_image = self._count_flop(images)

    def step(self, batch: Batch, lr: float, step: int, images: int) -> None:
        """One optimiser step on this process's share of the batch of `step`, which makes `images` seen in all."""
        config = self.config
        self.network.train()
        if config.network["dropout"] > 0:
            key = step * self.world.size + self.world.rank
            torch.manual_seed(randomness.derived_seed(config.seed, randomness.NETWORK, key))
        shares = [average.share(config.batch, images) for average in self.averages]
        with _compiler_errors(config.compile):
            # Of several micro-batches each would be a step of its own.
            if self._replay is not None and self.micro_batch >= config.batch:
                self._replay(self._on_device(batch, [lr, *shares]))
                return
            self._add_gradients(batch, self._parallel)
        self._update(lr, shares)

    def _on_device(self, batch: Batch, rates: list[float]) -> dict[str, Tensor]:
        """All that a step takes, as tensors by name; numbers in one transfer."""
        numbers = self.objective.numbers(batch.log_snr)
        packed = torch.stack([*numbers.values()]).float().to(self.device, non_blocking=True)
        cond = {} if batch.cond is None else {f"cond/{name}": each for name, each in vars(batch.cond).items()}
        return {
            "x_0": batch.x_0,
            "noise": batch.noise,
            "quarter": batch.quarter,
            "rates": torch.tensor(rates).to(self.device, non_blocking=True),
            **{f"numbers/{name}": row for name, row in zip(numbers, packed, strict=True)},
            **{name: each for name, each in cond.items() if each is not None},
        }

    def _learn(self, inputs: Mapping[str, Tensor]) -> None:
        """A whole step of what `_on_device` gives, with nothing left to the host."""
        x_0 = inputs["x_0"]
        loss, plain = self.objective.loss(x_0, inputs["noise"], _under("numbers/", inputs), _condition(inputs))
        self.optimizer.backward(loss.sum() / len(x_0))
        self.meters.add_losses(plain, inputs["quarter"])
        lr, *shares = inputs["rates"].unbind()
        self._update(lr, shares)

    def _update(self, lr: float | Tensor, shares: Sequence[float | Tensor]) -> None:
        """Weights from their gradients, and the averages from the weights."""
        self.meters.add_step(*self.optimizer.step(lr))
        weights = list(self.network.named_parameters())
        for average, share in zip(self.averages, shares, strict=True):
            average.update(weights, share)

    def keep_guide(self) -> None:
        """Keep the average as it is now, for samples to be led away from when it has become better."""
        self.guide = {name: weight.to("cpu", copy=True) for name, weight in self.averages[0].weights.items()}

    def fit_memory(self, batch: Batch) -> None:
        """Halve the micro-batch until a pass over the batch fits into the device's memory; changes no weight."""
        while True:
            try:
                with _compiler_errors(self.config.compile):
                    # Not the parallel one: another process may need another number of passes.
                    self._add_gradients(batch, self.objective)
                return
            except torch.OutOfMemoryError as error:
                if self.micro_batch == 1:
                    raise SnowmeltError(
                        f"Not even one image at a time fits into the memory of {self.device}.",
                        "Try a smaller --size or --preset, or --device cpu.",
                    ) from error
                self.micro_batch = (self.micro_batch + 1) // 2
            finally:
                self.objective.zero_grad(set_to_none=True)
                self.meters = Meters(self.device)

    def _add_gradients(self, batch: Batch, objective: nn.Module) -> None:
        """The gradient of the batch's mean loss, a micro-batch at a time."""
        parts = list(batch.split(self.micro_batch))
        for number, part in enumerate(parts):
            with self._reducing(last=number == len(parts) - 1):
                loss, plain = objective(part.x_0, part.noise, part.log_snr, part.cond)
                self.optimizer.backward(loss.sum() / len(batch.x_0))
            self.meters.add_losses(plain, part.quarter)

    def averaged(self) -> nn.Module:
        """A network with the averaged weights, in evaluation mode; the next call changes it."""
        weights = {**self.network.state_dict(), **self.averages[0].weights}
        load_into(self._shadow.state_dict(), weights, "the average")
        return self._shadow

    @torch.no_grad()
    def loss_of_average(self, batch: Batch) -> float:
        """The averaged weights' mean loss on a batch."""
        averaged, of = replace(self.denoiser, network=self.averaged()), self.objective
        judge = Objective(averaged, self.config.loss, of.weight, of.values).to(self.device)
        parts = batch.split(self.micro_batch)
        losses = [judge(part.x_0, part.noise, part.log_snr, part.cond)[1] for part in parts]
        return float(torch.cat(losses).mean())

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(torch.isfinite(weight).all()) for weight in self.network.parameters())

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a checkpoint must hold, in named groups."""
        averages = {f"ema_{number}": average.weights for number, average in enumerate(self.averages)}
        return {
            "raw": self.objective.state_dict(),
            **averages,
            **({} if self.guide is None else {"guide": self.guide}),
            "optimizer": self.optimizer.state(),
            "meters": self.meters.state(),
        }

    def load_state(self, state: dict[str, dict[str, Tensor]], where: str) -> None:
        """The inverse of `state`; what does not fit is an error that names `where` it came from."""
        try:
            load_into(self.objective.state_dict(), state["raw"], where)
            for number, average in enumerate(self.averages):
                load_into(average.weights, state[f"ema_{number}"], where)
            if "guide" in state:
                self.keep_guide()
                load_into(self.guide or {}, state["guide"], where)
            self.optimizer.load_state(state["optimizer"])
            self.meters.load_state(state["meters"], self.world)
        except KeyError as error:
            raise SnowmeltError(f"{where} lacks {error}.") from error

    def _count_flop(self, images: ImageSpec) -> float:
        """Floating-point operations of training on one image: three forward passes' worth (Hoffmann et al. 2022)."""

        def forward(x: Tensor) -> Tensor:
            return self._shadow(x, torch.zeros(len(x), device=self.device), None)  # type: ignore[no-any-return]

        return 3.0 * flop_per_image(forward, images.shape, self.device)

    @contextmanager
    def _reducing(self, last: bool) -> Iterator[None]:
        """Gradients are averaged over the ranks once a step, with the last micro-batch."""
        if isinstance(self._parallel, DistributedDataParallel) and not last:
            with self._parallel.no_sync():
                yield
        else:
            yield


@contextmanager
def _compiler_errors(compiled: bool) -> Iterator[None]:
    """Where a network that is compiled cannot be, say what that needs."""
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise SnowmeltError(
            f"--compile: the network cannot be compiled here ({reason}).",
            "It needs a C++ compiler, on a GPU Triton too. Leave --compile out, or install them.",
        ) from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _condition(inputs: Mapping[str, Tensor]) -> Condition | None:
    found = _under("cond/", inputs)
    return Condition(**found) if found else None


def _parallel(objective: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return objective
    # Without device_ids inputs stay where they are: noise levels belong to the host.
    return DistributedDataParallel(objective)
