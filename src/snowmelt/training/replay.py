"""A training step as one CUDA graph: hundreds of kernels that the host launches by one call (`torch.cuda.graph`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Steps before the recording: in them kernels are compiled and chosen, and optimisers make their state.
WARM_UP = 3


class Replay:
    """A function of tensors on a CUDA device, called as it is for a few steps and replayed from then on.

    function  takes tensors by name, whose shapes never change, and changes what it holds on to; returns nothing,
              computes nothing on the host, and never waits for the device

    Every call is a step, the first ones too. Random numbers are those of the device's default generator, as it stands
    when a call is made.
    """

    def __init__(self, function: Callable[[Mapping[str, Tensor]], None], device: torch.device) -> None:
        self._function = function
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}

    def __call__(self, inputs: Mapping[str, Tensor]) -> None:
        """One step."""
        if self._calls < WARM_UP:
            self._calls += 1
            self._call(inputs)
            return
        if self._graph is None:
            self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._function(self._inputs)
        held = self._inputs
        for name, tensor in inputs.items():
            held[name].copy_(tensor, non_blocking=True)
        self._graph.replay()

    def _call(self, inputs: Mapping[str, Tensor]) -> None:
        """The function itself, on the stream that it will be recorded on."""
        callers = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(callers)
        with torch.cuda.stream(self._stream):
            self._function(inputs)
        callers.wait_stream(self._stream)
