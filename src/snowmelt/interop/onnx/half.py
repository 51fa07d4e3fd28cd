"""The same graph with its products in float16, as autocast has them, in half the bytes.

Convolutions and matrix products with weights take and give float16, their weights are stored in it; norms, softmax,
sums, inputs and outputs stay in float32. A runtime without such products computes them in float32 from these weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snowmelt.base.extras import extra_module

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MATRIX = 2  # dimensions from which an initializer is the weights of a product


def halve(source: Path, path: Path) -> None:
    """Write the graph of `source`, all in float32, with its products in float16."""
    onnx = extra_module("onnx", "onnx", "Export to ONNX")
    model = onnx.load(source)
    graph = model.graph
    weights = {each.name: each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
    fixed = {each.name for each in graph.initializer}  # what is known before an image comes
    halves: dict[str, Any] = {}
    nodes = []
    for node in graph.node:
        if all(name in fixed for name in node.input):
            fixed |= {*node.output}
        if node.output[0] in fixed or not _is_product(node, weights):
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            half = f"{name}.half"
            if name in weights:
                halves[half] = _half(onnx, weights[name], half)
                node.input[place] = half
            elif name:
                node.input[place] = f"{node.name}.{half}"
                nodes.append(onnx.helper.make_node("Cast", [name], [node.input[place]], to=onnx.TensorProto.FLOAT16))
        whole = node.output[0]
        node.output[0] = f"{whole}.half"
        nodes += [node, onnx.helper.make_node("Cast", [node.output[0]], [whole], to=onnx.TensorProto.FLOAT)]
    used = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *halves.values()])
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _is_product(node: Any, weights: dict[str, Any]) -> bool:
    return node.op_type in PRODUCTS and any(len(weights[n].dims) >= MATRIX for n in node.input if n in weights)


def _half(onnx: Any, weight: Any, name: str) -> Any:
    """The weight in float16; what is beyond its range is put at its end."""
    numbers = onnx.numpy_helper.to_array(weight)
    most = float(np.finfo(np.float16).max)
    return onnx.numpy_helper.from_array(numbers.clip(-most, most).astype(np.float16), name)
