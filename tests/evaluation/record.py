"""Record torch-fidelity's and prdc's numbers for `recorded_features`.

pip install torch-fidelity prdc        # and the torch and torchvision they need
python tests/evaluation/record.py
"""

import json
from pathlib import Path

from prdc import compute_prdc
from recorded_features import CASES, features_of
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

COMMON = {"verbose": False}

recorded = {}
for name in CASES:
    real, fake = features_of(name)
    fid = fid_statistics_to_metric(fid_features_to_statistics(fake), fid_features_to_statistics(real), False)
    size = min(1000, len(real), len(fake))
    kid = kid_features_to_metric(fake, real, kid_subset_size=size, rng_seed=2020, **COMMON)
    prc = prc_features_to_metric(fake, real, prc_neighborhood=3, **COMMON)
    prdc = compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    recorded[name] = {
        "frechet": float(fid["frechet_inception_distance"]),
        "kernel_mean": float(kid["kernel_inception_distance_mean"]),
        "kernel_deviation": float(kid["kernel_inception_distance_std"]),
        "precision": float(prc["precision"]),
        "recall": float(prc["recall"]),
        "density": float(prdc["density"]),
        "coverage": float(prdc["coverage"]),
    }
(Path(__file__).parent / "recorded.json").write_text(json.dumps(recorded, indent=2) + "\n")
print(json.dumps(recorded, indent=2))
