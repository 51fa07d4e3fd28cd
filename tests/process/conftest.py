import pytest

from snowmelt.process.schedule import Schedule

DISCRETE = [Schedule(name, 1000) for name in ("linear", "scaled-linear", "cosine", "sigmoid")]
CONTINUOUS = [Schedule(name) for name in ("linear", "scaled-linear", "cosine", "sigmoid", "edm", "flow")]
ZERO_SNR = [
    *(Schedule(name, 1000, zero_snr=True) for name in ("linear", "scaled-linear", "cosine", "sigmoid")),
    *(Schedule(name, zero_snr=True) for name in ("linear", "scaled-linear", "cosine", "sigmoid", "flow")),
]


def title(schedule: Schedule) -> str:
    return f"{schedule.name}-{schedule.steps or 'continuous'}{'-zero' if schedule.zero_snr else ''}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`schedule` is every kind of schedule there is; `chain` every discrete one."""
    if "schedule" in metafunc.fixturenames:
        metafunc.parametrize("schedule", DISCRETE + CONTINUOUS + ZERO_SNR, ids=title)
    if "chain" in metafunc.fixturenames:
        chains = [one for one in DISCRETE + ZERO_SNR if one.steps is not None]
        metafunc.parametrize("chain", chains, ids=title)
