"""The judge: a small classifier of 28x28 grey images, whose penultimate features every system is measured in.

It is plain on purpose and belongs to no system under test. It learns from a fixed half of the training set;
the other half, which it has never seen, gives the floor: how far real images are from the test set.

    python -m benchmarks.time_to_quality.classifier       trains it (about a minute), prints accuracy and
    floor
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.time_to_quality import data
from benchmarks.time_to_quality.metrics import frechet, kid, statistics

CACHE = Path(__file__).parents[1] / "cache" / "time_to_quality"
FEATURES, EPOCHS, BATCH, PEAK_RATE, SEED = 64, 6, 128, 3e-3, 0


class Classifier(nn.Module):
    """Two convolution blocks, one dense layer of 64 features, ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 7 * 7, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, 10] of images [B, 1, 28, 28] in [-1, 1]."""
        return self.head(self.body(x))


def halves(count: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the half that the classifier learns from, and of the half that it never sees."""
    order = np.random.default_rng(SEED).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _tensor(images: np.ndarray) -> torch.Tensor:
    # 8-bit images only: a system whose samples were never quantised would be scored on what nobody can save.
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise ValueError(f"expected uint8 images [N, 28, 28], got {images.dtype} {images.shape}")
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1)[:, None]


def features(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Penultimate features [N, 64], float64, of uint8 images [N, 28, 28]."""
    with torch.inference_mode():
        return torch.cat([model.body(batch) for batch in _tensor(images).split(500)]).double().numpy()


def train() -> Classifier:
    """Train from scratch, the same way each time (bits may differ between machines and thread counts)."""
    images, labels = data.load("train")
    mine, _ = halves(len(images))
    x, y = _tensor(images[mine]), torch.from_numpy(labels[mine].astype(np.int64))
    torch.manual_seed(SEED)
    model = Classifier()
    optimiser = torch.optim.Adam(model.parameters(), lr=PEAK_RATE)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            loss = F.cross_entropy(model(x[index]), y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"classifier: epoch {epoch + 1}/{EPOCHS}, loss {total / (len(x) // BATCH):.3f}", flush=True)
    return model.eval()


def accuracy(model: Classifier) -> float:
    """Share of the test images that it names rightly."""
    images, labels = data.load("t10k")
    with torch.inference_mode():
        guesses = torch.cat([model(batch).argmax(1) for batch in _tensor(images).split(500)])
    return float((guesses.numpy() == labels).mean())


def weights_hash(model: Classifier) -> str:
    """First 16 hex digits of the SHA-256 of all weights: rows with different ones must not be compared."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


def load() -> tuple[Classifier, dict]:
    """The cached classifier and its record (hash, accuracy), trained first where there is none."""
    weights, record = CACHE / "classifier.npz", CACHE / "classifier.json"
    model = Classifier().eval()
    if weights.exists() and record.exists():
        with np.load(weights) as stored:
            model.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
        facts = json.loads(record.read_text())
        if weights_hash(model) != facts["hash"]:
            raise SystemExit(f"{weights} does not match the hash in {record.name}: delete both to train it again.")
        return model, facts
    model = train()
    facts = {"hash": weights_hash(model), "test_accuracy": accuracy(model), "torch": torch.__version__}
    CACHE.mkdir(parents=True, exist_ok=True)
    np.savez(weights, **{name: value.numpy() for name, value in model.state_dict().items()})
    record.write_text(json.dumps(facts, indent=2) + "\n")
    return model, facts


@dataclass
class Judge:
    """The classifier with the reference (10,000 test images) and the unseen half of the training set."""

    model: Classifier
    record: dict
    reference: np.ndarray
    real: np.ndarray

    @classmethod
    def load(cls) -> Judge:
        """Load or train the classifier and compute the reference features."""
        model, record = load()
        images, _ = data.load("train")
        _, unseen = halves(len(images))
        return cls(model, record, features(model, data.load("t10k")[0]), features(model, images[unseen]))

    def floor(self, n: int, draws: int = 5) -> tuple[float, float]:
        """Frechet distance of n real training images to the test set: mean and spread over random draws."""
        rng = np.random.default_rng(n)
        picks = (rng.choice(len(self.real), n, replace=False) for _ in range(draws))
        target = statistics(self.reference)
        values = [frechet(statistics(self.real[pick]), target) for pick in picks]
        return float(np.mean(values)), float(np.std(values, ddof=1))

    def score(self, images: np.ndarray) -> dict:
        """All that is measured of uint8 images [N, 28, 28]."""
        ours = features(self.model, images)
        estimate, low, high = kid(ours, self.reference)
        floor, spread = self.floor(len(images))
        real_kid = kid(self.real[: len(images)], self.reference)
        return {
            "frechet": frechet(statistics(ours), statistics(self.reference)),
            "frechet_floor": floor,
            "frechet_floor_std": spread,
            "kid": estimate,
            "kid_low": low,
            "kid_high": high,
            "kid_of_real": list(real_kid),
            "classifier": self.record["hash"],
        }


def main() -> None:
    """Train or load the classifier; print its accuracy and the floors."""
    judge = Judge.load()
    print(f"classifier {judge.record['hash']}: test accuracy {judge.record['test_accuracy']:.4f}")
    for n in (1000, 2000, 5000, 10_000):
        mean, spread = judge.floor(n)
        estimate, low, high = kid(judge.real[:n], judge.reference)
        interval = f"KID {estimate:.5f} [{low:.5f}, {high:.5f}]"
        print(f"floor at n = {n:6d}: Frechet {mean:.3f} +- {spread:.3f}, {interval}")


if __name__ == "__main__":
    main()
