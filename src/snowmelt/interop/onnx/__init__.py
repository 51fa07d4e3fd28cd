"""Models of ours as ONNX: the networks, the sampler as a table, and what draws images from them without torch."""
