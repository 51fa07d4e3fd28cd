import dataclasses
import threading

import numpy as np
import pytest
import torch

from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source


def test_every_image_keeps_its_label_through_the_split():
    source = open_source("digits")
    data = load_data("digits", holdout=0.1)
    labels_of = {}
    for pixels, label in zip(source.items.pixels, source.labels, strict=True):
        labels_of.setdefault(pixels.tobytes(), set()).add(int(label))
    for images, labels in ((data.training.images, data.training.labels), (data.holdout.images, data.holdout.labels)):
        assert labels.dtype == torch.int64
        for image, label in zip(images[:].numpy(), labels.tolist(), strict=True):
            assert label in labels_of[image.tobytes()]
    assert len(data.training.images) + len(data.holdout.images) == 1797


def test_the_same_data_has_the_same_fingerprint_and_other_data_another(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 9), np.uint8)

    def fingerprint(images, targets, **options):
        np.savez(tmp_path / "a.npz", images=images, labels=targets)
        return load_data(tmp_path / "a.npz", holdout=0, **options).fingerprint

    labels = np.arange(20) % 4
    first = fingerprint(images, labels)
    assert first == fingerprint(images, labels)
    changed = images.copy()
    changed[3, 4, 5] ^= 1
    others = [
        fingerprint(changed, labels),
        fingerprint(images, labels[::-1]),
        fingerprint(images, labels, labels="none"),
        fingerprint(images, labels, size=8),
        fingerprint(images[::-1], labels),
        fingerprint(images.astype(np.uint16), labels),
    ]
    assert len({first, *others}) == 7


def test_the_same_folder_is_the_same_data_whatever_the_threads_do(tmp_path, picture):
    for number in range(150):
        picture(tmp_path / f"{number}.jpg", "RGB", (40, 30), seed=number)
    runs = [load_data(tmp_path) for _ in range(3)]
    assert len({data.fingerprint for data in runs}) == 1


def test_progress_counts_to_the_total_in_the_callers_thread():
    seen = []
    load_data("digits", progress=lambda done, total: seen.append((done, total, threading.get_ident())))
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][:2] == (2 * 1797, 2 * 1797)
    assert {ident for _, _, ident in seen} == {threading.get_ident()}
    seen.clear()
    inspect("digits", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * 1797, 2 * 1797)


def test_ctrl_c_stops_the_work_and_leaves_no_thread(tmp_path, picture):
    for number in range(300):
        picture(tmp_path / f"{number}.png", "L", (8, 8))
    before = threading.active_count()

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(tmp_path, progress=interrupt)
    assert threading.active_count() == before


def test_data_that_does_not_fit_is_decoded_as_it_is_used(monkeypatch):
    whole = load_data("digits", size=16, holdout=0)
    monkeypatch.setattr("snowmelt.data.memory.available_memory", lambda: 1797 * 256 / 0.6 - 1)
    live = load_data("digits", size=16, holdout=0)
    monkeypatch.undo()
    assert not live.training.images.resident
    assert live.training.images[5:40].equal(whole.training.images[5:40])
    assert any("decoded each time they are used" in line for line in live.report.lines())
    monkeypatch.setattr("snowmelt.data.memory.available_memory", lambda: 1797 * 256 / 0.6 + 1)
    assert load_data("digits", size=16, holdout=0).training.images.resident


def test_a_check_needs_no_memory_for_the_data(monkeypatch):
    monkeypatch.setattr("snowmelt.data.memory.available_memory", lambda: 1)
    assert inspect("digits").report.readable == 1797


def test_data_cannot_be_changed():
    data = load_data("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "x"
