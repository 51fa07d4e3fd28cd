"""The command line as a stranger meets it: help, slips of the keyboard, errors."""

import os
import resource
import subprocess
import sys

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli import main


def fresh(*arguments, code="from snowmelt.cli.main import main; main()", encoding="utf-8"):
    """A command in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONIOENCODING": encoding},
    )


def used_by_children():
    """Seconds of a processor: what else the machine does does not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_is_there_at_once_and_without_torch():
    code = "import sys; from snowmelt.cli.main import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    seconds = []
    for arguments in (["--help"], ["train", "--help"], ["sample", "--help"]):
        began = used_by_children()
        answer = fresh(*arguments, code=code)
        seconds.append(used_by_children() - began)
        assert answer.stdout.startswith("Usage: snowmelt")
        assert answer.stdout.endswith("False\n")
    assert min(seconds) < 0.5, seconds


def test_a_bare_command_shows_what_there_is(snowmelt):
    answer = snowmelt()
    assert answer.code == 0
    assert all(name in answer.out for name in ("demo", "train", "sample", "doctor"))


def test_the_version_is_told(snowmelt):
    assert snowmelt("--version").out.count(".") == 2


@pytest.mark.parametrize("arguments", [("sampler", "show", "ddim", "--json"), ("sampler", "list"), ("train",)])
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_gone_ends_nothing(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    answer = subprocess.run(
        [sys.executable, *(["-u"] if unbuffered else []), "-m", "snowmelt", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(writing)
    assert answer.returncode == (2 if arguments == ("train",) else 0)
    assert "BrokenPipe" not in answer.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "CUDA out of memory."),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 4 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes.",
        ),
        (MemoryError("Unable to allocate 1.00 TiB for an array"), "Unable to allocate 1.00 TiB for an array."),
    ],
)
def test_what_does_not_fit_the_memory_is_told_with_a_way_out(
    error, words, refusal, finished_run, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("snowmelt.sampling.plan.sample_batch", full)
    said = refusal("sample", finished_run, "-n", 1, "--out", tmp_path / "s")
    assert f"The memory does not suffice: {words}" in said
    assert "--batch" in said


@pytest.mark.parametrize(
    ("command", "near"),
    [
        (["trian", "x"], '"train"'),
        (["train", "x", "--lrr", 1], "--lr"),
        (["train", "x", "--micro_bach", 1], "--micro-batch"),
        (["sample", "x", "--samplr", "ddim"], "--sampler"),
        (["train", "x", "--fit", "cropp"], '"crop"'),
        (["sample", "x", "--format", "pngg"], '"png"'),
        (["sample", "x", "--weights", "eme"], '"ema"'),
        (["train", "digits", "--preset", "tinyy"], "'tiny'"),
        (["train", "digits", "--predict", "epss"], "'eps'"),
        (["train", "digits", "--schedule", "cosin"], "'cosine'"),
        (["train", "digits", "--weight", "minsnr"], "'min-snr'"),
        (["train", "digits", "--weight", "edm+lerned"], "+learned"),
        (["train", "digits", "--density", "lognorml"], "'lognormal'"),
        (["train", "digits", "--loss", "hubert"], "'huber'"),
        (["train", "digitz"], "digits"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_slip_of_the_keyboard_is_answered_with_the_nearest_match(refusal, command, near):
    assert near in refusal(*command)


@pytest.mark.parametrize(
    ("options", "near"),
    [
        (["--sampler", "dpmpp2m"], "'dpmpp-2m'"),
        (["--grid", "karas"], "'karras'"),
        (["--set", "slopee=3"], "'slope'"),
        (["--sampler", "ddim", "--set", "etta=1"], "'eta'"),
        (["--sampler", "ddpm", "--set", "variance=smal"], "small"),
        (["--class", "sneeker"], "'Sneaker'"),
    ],
    ids=str,
)
def test_a_slip_in_sampling_is_too(refusal, finished_run, options, near):
    assert near in refusal("sample", finished_run, "-n", 1, *options)


@pytest.mark.parametrize("command", ["data check", "data", "sampler show", "train"])
def test_the_help_that_is_named_is_that_of_the_command(refusal, command):
    assert f"`snowmelt {command} --help` lists" in refusal(*command.split(), "x", "--nonsense")


def test_names_that_no_terminal_can_show_are_shown_as_escapes(tmp_path, shoes):
    folder = tmp_path / os.fsdecode(b"shoes\xff")
    folder.symlink_to(shoes)
    answer = fresh("data", "check", folder, "--preview", tmp_path / "p.png", encoding="utf-8:strict")
    assert answer.returncode == 0, answer
    assert rf"Next: snowmelt train '{tmp_path}/shoes\udcff'" in answer.stdout


def test_a_typo_is_told_before_any_image_is_read(refusal):
    assert "Unknown loss" in refusal("train", "no-such-folder", "--loss", "l3")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--lr", value) for value in ("abc", "-1", "nan", "11")),
        *(("--batch", value) for value in ("0", "-1", "few", "10000000")),
        *(("--micro-batch", value) for value in ("0", "half")),
        *(("--steps", value) for value in ("0", "-3", "many")),
        *(("--minutes", value) for value in ("0", "-1", "nan", "inf")),
        *(("--images", value) for value in ("0", "many", "-2M")),
        *(("--size", value) for value in ("0", "-1", "33x", "x", "1x2x3", "99999", "big")),
        *(("--channels", value) for value in ("0", "7")),
        *(("--holdout", value) for value in ("1", "-0.1")),
        *(("--decay", value) for value in ("2", "-1")),
        *(("--warmup", value) for value in ("soon", "-1")),
        *(("--ema", value) for value in ("power:1", "often")),
        *(("--dropout", value) for value in ("1", "-0.1")),
        *(("--label-dropout", value) for value in ("2",)),
        *(("--noise-levels", value) for value in ("0", "some", "10000000")),
        *(("--seed", value) for value in ("-1", str(2**63))),
        *(("--keep", value) for value in ("0",)),
        *(("--log-every", value) for value in ("0",)),
        *(("--checkpoint-minutes", value) for value in ("-1",)),
        *(("--precision", value) for value in ("fp64", "fp16")),
        *(("--device", value) for value in ("gpu", "cuda:99", "meta")),
        *(("--log", value) for value in ("wandb", "tensorbord")),
        *(("--labels", value) for value in ("yes", "no.csv")),
    ],
)
def test_a_number_or_name_out_of_range_is_named_with_its_flag(refusal, tmp_path, minimal, grey_file, flag, value):
    budget = () if flag in ("--minutes", "--images", "--steps") else ("--steps", 1)
    message = refusal(
        "train", grey_file, "--out", tmp_path / "run", "--preset", minimal, "--predict", "eps", *budget, flag, value
    )
    assert flag.strip("-").replace("-", " ") in message.replace("-", " ").lower() or "budget" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budgets", [("--steps", 1, "--minutes", 1), ("--images", 1, "--steps", 1)])
def test_two_budgets_are_one_too_many(refusal, grey_file, budgets):
    assert "one of --minutes, --images and --steps" in refusal("train", grey_file, *budgets)


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(SnowmeltError):
        main.run(["sample", "no-such-run"], debug=True)


def test_an_error_of_our_own_is_told_apart_from_the_users(snowmelt, monkeypatch):
    from snowmelt.data.sources import fashion_mnist

    monkeypatch.setattr(fashion_mnist, "FOLDER", None)
    answer = snowmelt("doctor")
    assert answer.code == 1
    assert "AttributeError" in answer.err
    assert "--debug" in answer.err
    assert "Traceback" not in answer.err


def test_a_reader_that_has_gone_is_no_error():
    command = f"{sys.executable} -m snowmelt doctor | head -1"
    answer = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert answer.stderr == ""


def test_doctor_says_what_is_here(snowmelt):
    answer = snowmelt("doctor")
    assert answer.code == 0
    for name in ("snowmelt", "python", "torch", "cpu", "disk", "fashion-mnist", "[log]"):
        assert f"\n{name} " in "\n" + answer.out


def test_a_tilde_after_a_flag_is_the_user_s_folder(snowmelt, finished_run, tmp_path, monkeypatch):
    """No shell puts it there: only where a word begins with it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    answer = snowmelt("sample", finished_run, "-n", 1, "--steps", 1, "--out=~/pictures")
    assert answer.code == 0, answer
    assert (tmp_path / "home" / "pictures" / "000000.png").is_file()
    assert not (tmp_path / "~").exists()
