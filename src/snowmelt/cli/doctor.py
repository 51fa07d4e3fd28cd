"""`snowmelt doctor`: what is here, and what it can do."""

from __future__ import annotations


def doctor() -> None:
    """Show versions, devices and what they can do."""
    import os
    import platform
    import shutil
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from snowmelt.base.device import multiplies_bf16
    from snowmelt.base.native import native
    from snowmelt.model.networks.native_norm import SOURCE

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    print(f"snowmelt      {installed('snowmelt')}")
    print(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"torch         {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            precisions = "fp32, fp16, bf16" if torch.cuda.is_bf16_supported() else "fp32, fp16"
            print(f"cuda:{index}        {about.name}, {about.total_memory / 2**30:.0f} GiB: {precisions}")
    elif shutil.which("nvidia-smi"):
        print("cuda          an NVIDIA GPU may be here, but this torch was built without CUDA or finds no driver")
    else:
        print("cuda          none")
    print(f"mps           {'available: fp32' if torch.backends.mps.is_available() else 'none'}")
    in_hardware = "" if multiplies_bf16(torch.device("cpu")) else " slower, having no instructions for it"
    print(f"cpu           fp32, bf16{in_hardware} ({torch.backends.cpu.get_cpu_capability()})")
    compiled = native(SOURCE)
    slower = f"by PyTorch's operations, 6 to 18% slower in training: {compiled}"
    print(f"norms         {slower if isinstance(compiled, str) else 'compiled'}")
    for extra, package in (("log", "tensorboard"),):
        print(f"[{extra}]         {package} {installed(package)}")
    free = shutil.disk_usage(".").free / 2**30
    print(f"disk          {free:,.0f} GiB free here")

    from snowmelt.data.sources import fashion_mnist

    missing = "not installed: apt install dataset-fashion-mnist"
    print(f"fashion-mnist {'installed' if fashion_mnist.FOLDER.is_dir() else missing}")
