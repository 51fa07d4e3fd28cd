"""A network as an ONNX graph: F(x, c_noise, what it is told), which knows no schedule."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.interop.onnx.table import LABEL, VALUES, WITHHELD
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.condition import Condition

INPUT, CLOCK, OUTPUT = "x", "c_noise", "F"
MOST_BYTES = 2**31  # of one file: ONNX is a protocol buffer


class PlainNetwork(nn.Module):
    """A network as a function of plain tensors.

    x         [B, C, H, W] float32
    c_noise   [B] float32
    label     [B] int64: 0 to classes - 1, or `classes` where it is withheld
    values    [B, V] float32, normalised
    withheld  [B] bool: where nothing is told
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        values: Tensor | None = None,
        withheld: Tensor | None = None,
    ) -> Tensor:
        told = label is not None or values is not None
        out: Tensor = self.network(x, c_noise, Condition(label=label, values=values, null=withheld) if told else None)
        return out


def example_inputs(images: ImageSpec, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random inputs of the exported network, by name; classes in turn, and the last image without one."""
    inputs = {
        INPUT: torch.randn(batch, *images.shape, generator=generator),
        CLOCK: torch.rand(batch, generator=generator),
    }
    if images.class_names is not None:
        known = len(images.class_names)
        inputs[LABEL] = torch.cat([torch.arange(batch - 1) % known, torch.tensor([known])])
    if images.conditions.columns:
        inputs[VALUES] = torch.randn(batch, len(images.conditions.columns), generator=generator)
        inputs[WITHHELD] = torch.arange(batch) == batch - 1
    return inputs


def write_network(network: nn.Module, images: ImageSpec, path: Path) -> None:
    """Write a network on the CPU, for any number of images of one size, in float32.

    Raises SnowmeltError where the exporter is not installed, or the network is too large for one file.
    """
    size = sum(tensor.numel() for tensor in network.state_dict().values()) * 4
    if size >= MOST_BYTES:
        raise SnowmeltError(f"The network's {size / 1e9:.1f} GB of weights are too many for one ONNX file (2.1 GB).")
    onnx = extra_module("onnx", "onnx", "Export to ONNX")
    extra_module("onnxscript", "onnx", "Export to ONNX")
    inputs = example_inputs(images, 2, torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch")
    with _quietly():
        program = torch.onnx.export(
            PlainNetwork(network).eval(),
            kwargs=inputs,
            dynamo=True,
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: batch} for name in inputs},
            verbose=False,
        )
    assert program is not None
    onnx.save(_without_paths(program.model_proto), path)


def _without_paths(model: Any) -> Any:
    """The graph without the notes of where in which file each of its nodes came from."""
    for holder in (model, model.graph, *model.functions, *model.graph.node, *model.graph.value_info):
        del holder.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter and its optimiser speak of their own affairs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
