"""Trains the small classifiers of grey 28 x 28 pictures whose features judge samples.

    python -m benchmarks.train_features --half even --out src/snowmelt/evaluation/features/grey28.safetensors
    python -m benchmarks.train_features --half odd --out benchmarks/results/grey28_odd.safetensors

Each sees one half of Fashion-MNIST's training set: the even one is shipped and judges released tables, the odd one is
for choosing recipes by, so that no recipe is chosen by the features that it is judged by.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.features.network import DIMENSIONS, eight_bits, seeded
from snowmelt.evaluation.features.small import save_network

EPOCHS, BATCH, RATE = 12, 128, 0.004
SHIFT = 2  # pixels


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("even", "odd"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data = load_data("fashion-mnist")
    half = slice(0 if arguments.half == "even" else 1, None, 2)
    images, labels = data.training.images[half], data.training.labels[half]
    seed = 0 if arguments.half == "even" else 1
    network = seeded(seed, 1, 28, 28)
    torch.manual_seed(seed)
    head = nn.Linear(DIMENSIONS, 10)
    fit(nn.Sequential(network, head), images, labels)
    accuracy = share_correct(nn.Sequential(network, head).eval(), data.holdout.images[:], data.holdout.labels)
    print(f"accuracy on the test set: {accuracy:.4f}")
    about = {
        "name": f"grey28-{arguments.half}",
        "remark": f"a classifier of the {arguments.half} half of Fashion-MNIST's training images: comparable with "
        "numbers of the same network (by its hash) only",
        "channels": 1,
        "height": 28,
        "width": 28,
        "sha256_of_training_images": hashlib.sha256(images.numpy().tobytes()).hexdigest(),
        "test_accuracy": round(accuracy, 4),
        "recipe": f"{EPOCHS} epochs, batch {BATCH}, one-cycle AdamW up to {RATE}, shifts of up to {SHIFT} pixels",
    }
    save_network(network, arguments.out, about)


def fit(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """One-cycle AdamW on the cross-entropy."""
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            places = order[start : start + BATCH]
            loss = F.cross_entropy(model(eight_bits(shifted(images[places]))), labels[places], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)


def shifted(images: Tensor) -> Tensor:
    """The batch moved by up to SHIFT pixels, black following; half of the batches are left as they are."""
    if torch.rand(()) < 0.5:
        return images
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
    padded = F.pad(images, (SHIFT,) * 4)
    height, width = images.shape[2:]
    return padded[:, :, SHIFT + down : SHIFT + down + height, SHIFT + right : SHIFT + right + width]


@torch.no_grad()
def share_correct(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Of uint8 images."""
    found = torch.cat([model(eight_bits(part)).argmax(1) for part in torch.split(images, 1000)])
    return float((found == labels).double().mean())


if __name__ == "__main__":
    main()
