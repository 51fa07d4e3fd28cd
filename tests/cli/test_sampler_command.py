"""`snowmelt sampler`: tables as JSON and as text, certificates, and what `variance=analytic` needs."""

import json
import math

import pytest
from PIL import Image

from snowmelt.process.schedule import Schedule
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.solvers import solvers
from snowmelt.sampling.tableau import Tableau, save_tableau


def shown(snowmelt, *arguments):
    answer = snowmelt("sampler", "show", *arguments, "--json")
    assert answer.code == 0, answer
    return json.loads(answer.out)


def test_the_list_names_every_sampler_with_its_order_and_options(snowmelt):
    listed = json.loads(snowmelt("sampler", "list", "--json").out)
    assert [entry["name"] for entry in listed] == sorted(solvers.names())
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name["dpmpp-3m"]["order"] == 2
    assert by_name["unipc"]["order"] == 3
    assert by_name["ddpm"]["order"] is None
    assert by_name["heun"]["evaluations"] == 2
    assert all(entry["paper"] and entry["best"][0] < entry["best"][1] for entry in listed)
    text = snowmelt("sampler", "list").out
    assert all(name in text for name in (*by_name, "--set eta=", "--set final=", "karras"))


@pytest.mark.parametrize("name", solvers.names())
def test_a_table_is_shown_in_full_precision_at_the_canonical_scale(snowmelt, name):
    table = shown(snowmelt, name, "--steps", 60)
    assert Tableau.from_json(table) == make_tableau(name, Schedule("edm"), 60)
    for alpha, sigma in table["levels"]:
        assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-15)
    assert len(table["levels"]) == len(table["rows"]) + 1
    assert set(table["rows"][0]) == {"a", "b", "c", "done"}


def test_levels_of_any_scale_come_from_a_file(snowmelt, tmp_path):
    file = tmp_path / "levels.json"
    file.write_text("[[1, 80], [0.5, 1], [2, 0.02], [1, 0]]")
    levels = shown(snowmelt, "euler", "--levels", file)["levels"]
    ratios = [sigma / alpha for alpha, sigma in levels]
    assert ratios == pytest.approx([80, 2, 0.01, 0], rel=1e-14)
    file.write_text("[[0, 1], [1, 1], [1, 0.1]]")
    table = shown(snowmelt, "dpmpp-3m", "--levels", file)
    assert table["levels"][0] == [0.0, 1.0]
    assert table["levels"][-1][1] > 0.09


@pytest.mark.parametrize(
    ("levels", "match"),
    [
        ("[[1, 1], [1, 2]]", "each cleaner than the one before"),
        ("[[1, 1]]", "two noise levels or more"),
        ("[[1, 1], [1, -1]]", "pairs of numbers >= 0"),
        ("[[1, 1], [0, 0]]", "not both zero"),
        ("[[1, 1, 1], [1, 0, 0]]", "pairs of numbers"),
        ('[[1, "a"], [1, 0]]', "from noisy to clean"),
        ('{"levels": []}', "from noisy to clean"),
        ("[[1, 1], [1, NaN]]", "levels.json"),
        ("[[1, 1], [1, Infinity]]", "levels.json"),
        ("nonsense", "levels.json"),
    ],
)
def test_a_file_of_levels_that_is_none_is_told(refusal, tmp_path, levels, match):
    file = tmp_path / "levels.json"
    file.write_text(levels)
    assert match in refusal("sampler", "show", "ddim", "--levels", file)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("ddmp",), "Did you mean 'ddpm'"),
        (("ddim", "--steps", 0), "1 to 100,000 steps"),
        (("ddim", "--steps", -3), "1 to 100,000 steps"),
        (("ddim", "--schedule", "linear", "--steps", 1001), "only 1000 noise levels"),
        (("ddim", "--schedule", "linaer"), "Did you mean 'linear'"),
        (("ddim", "--grid", "karas"), "Did you mean 'karras'"),
        (("ddim", "--set", "order=2"), "takes no option 'order'"),
        (("ddim", "--set", "eta=2"), "eta must lie between 0 and 1"),
        (("lms", "--set", "order=5"), "order is 1 to 4"),
        (("lms", "--set", "order=two"), "order is a number such as 4, not 'two'"),
        (("deis", "--set", "order=4"), "order is 1 to 3"),
        (("unipc", "--set", "bh=3"), "bh is 1 or 2"),
        (("dpmpp-3m", "--set", "second=3"), "second is 1 or 2"),
        (("dpmpp-2m", "--set", "kind=x"), "Choices: midpoint, heun"),
        (("dpmpp-sde", "--set", "noise=x"), "Choices: path, two"),
        (("ddim", "--set", "final=x"), "Choices: ramp, last, full"),
        (("ddim", "--set", "first=x"), "expected analytic"),
        (("ddim", "--steps", 1, "--set", "first=analytic"), "two steps or more"),
        (("ddim", "--set", "first=analytic", "--set", "data_std=-1"), "data_std is a number that is not negative"),
        (("edm-stochastic", "--set", "S_churn=-1"), "S_churn >= 0"),
        (("restart", "--set", "t_max=100"), "from above t_max = 100"),
        (("restart", "--set", "t_min=1"), "0 < t_min < t_max"),
        (("repaint", "--set", "jump_length=0"), "1 or more"),
        (("consistency", "--set", "floor=-1"), "floor must not be negative"),
        (("ddpm", "--set", "variance=analytic"), "belong together"),
        (("ddpm", "--set", "variance=analytic", "--set", "error=none.json"), "none.json does not exist"),
        (("ddim", "--set", "eta=true"), "eta is a number such as 0, not True"),
        (("ddim", "--set", "eta=nan"), "eta is a number such as 0, not 'nan'"),
        (("ddim", "--set", "eta=null"), "eta is a number"),
        (("lms", "--set", "order=2.5"), "order is a whole number"),
        (("ddim", "--set", "first=analytic", "--set", "data_std=[1]"), "data_std is a number"),
        (("ddim", "--set", "first=analytic", "--set", "data_std=null"), "data_std is a number"),
        (("ddpm", "--set", "variance=analytic", "--set", "error=5"), "error is a file, not 5"),
        (("dpmpp-2m", "--set", "kind=2"), "kind is a word such as midpoint"),
        (("ddim", "--steps", "1.5"), "'1.5' is not a whole number"),
        (("ddim", "--set", "eta=[1]"), "eta"),
        (("none.json",), "none.json does not exist"),
    ],
    ids=str,
)
def test_what_is_no_sampler_is_told(refusal, arguments, match):
    assert match in refusal("sampler", "show", *arguments)


@pytest.mark.parametrize("option", ["unipc order=2.0", "lms order=4.0", "repaint jump_length=5.0", "restart K=2.0"])
def test_a_whole_number_may_be_written_as_a_float(snowmelt, option):
    name, setting = option.split()
    assert shown(snowmelt, name, "--steps", 20, "--set", setting)["rows"]


def test_what_says_where_to_stop_is_said_once(refusal, tmp_path):
    levels, table = tmp_path / "levels.json", tmp_path / "table.json"
    levels.write_text("[[1, 5], [1, 1], [1, 0]]")
    save_tableau(make_tableau("ddim", Schedule("edm"), 3), table)
    for more in (("--schedule", "cosine"), ("--zero-snr",)):
        assert "--levels says where to stop" in refusal("sampler", "show", "ddim", "--levels", levels, *more)
        assert "in it already" in refusal("sampler", "show", table, *more)


def test_options_reach_the_table(snowmelt):
    assert (
        shown(snowmelt, "dpmpp-3m", "--steps", 6)["rows"]
        != shown(snowmelt, "dpmpp-3m", "--steps", 6, "--set", "second=2")["rows"]
    )
    lengths = {
        final: [len(row["b"]) for row in shown(snowmelt, "deis", "--steps", 6, "--set", f"final={final}")["rows"]]
        for final in ("ramp", "last", "full")
    }
    assert lengths == {"ramp": [1, 2, 3, 3, 2, 1], "last": [1, 2, 3, 3, 3, 1], "full": [1, 2, 3, 3, 3, 1]}
    lms = [len(row["b"]) for row in shown(snowmelt, "lms", "--steps", 6, "--set", "final=full")["rows"]]
    assert lms == [1, 2, 3, 4, 4, 4]
    first = shown(snowmelt, "unipc", "--steps", 6, "--set", "first=analytic")["rows"][0]
    assert first["b"] == []
    a = math.hypot(0.5 * first["a"][0], 0)
    assert 0 < a < 1


@pytest.mark.parametrize("schedule", ["linear", "scaled-linear", "cosine", "sigmoid", "edm", "flow"])
def test_every_schedule_has_its_table(snowmelt, schedule):
    assert shown(snowmelt, "dpmpp-2m", "--schedule", schedule, "--steps", 5)["rows"]


def test_an_option_may_be_infinite(snowmelt):
    table = shown(snowmelt, "edm-stochastic", "--steps", 5, "--set", "S_max=inf")
    assert table["rows"][0]["b"] == []  # the first step is churned, too
    assert table["rows"][0]["c"] > 0


def test_zero_terminal_snr_starts_at_pure_noise(snowmelt):
    assert shown(snowmelt, "dpmpp-2m", "--schedule", "cosine", "--zero-snr", "--steps", 5)["levels"][0] == [0.0, 1.0]


def test_a_table_is_printed_for_the_eye(snowmelt):
    text = snowmelt("sampler", "show", "heun", "--steps", 3).out
    assert text.startswith("heun: 5 rows, 5 evaluations")
    assert text.count(" mid ") == 2
    assert "noise not that of its levels" in snowmelt("sampler", "show", "ddpm").out


# Certificates.


def test_a_sampler_is_certified_with_its_numbers_and_a_plot(snowmelt, tmp_path):
    answer = snowmelt("sampler", "certify", "unipc", "--set", "order=3", "--out", tmp_path / "c")
    assert answer.code == 0
    assert "order, Gaussian" in answer.out
    assert answer.out.rstrip().endswith("error.png")
    assert json.loads((tmp_path / "c" / "certificate.json").read_text())["passed"] is True
    Image.open(tmp_path / "c" / "error.png").load()


def test_no_certificate_or_statistics_are_written_over_unasked(snowmelt, refusal, finished_run, tmp_path):
    (tmp_path / "error.png").write_text("mine")
    command = ("sampler", "certify", "ddim", "--out", tmp_path)
    assert "error.png is there already" in refusal(*command)
    assert (tmp_path / "error.png").read_text() == "mine"
    assert snowmelt(*command, "--overwrite").code == 0
    statistics = ("sampler", "statistics", finished_run, "-n", 4, "--levels", 2, "--out")
    assert "certificate.json is there already" in refusal(*statistics, tmp_path / "certificate.json")
    assert "is a folder" in refusal(*statistics, tmp_path)


def test_a_certificate_with_an_endless_option_is_json(snowmelt, tmp_path):
    command = ("sampler", "certify", "edm-stochastic", "--set", "S_max=inf", "--json", "--out", tmp_path)
    answer = snowmelt(*command)
    assert answer.code == 0, answer
    assert json.loads(answer.out)["options"] == {"S_max": "inf"}
    assert json.loads((tmp_path / "certificate.json").read_text())["options"] == {"S_max": "inf"}


def test_a_table_off_by_one_percent_is_refused_with_exit_code_one(snowmelt, tmp_path):
    table = make_tableau("dpmpp-2m", Schedule("edm"), 10).to_json()
    save_tableau(Tableau.from_json(table), tmp_path / "good.json")
    assert snowmelt("sampler", "certify", tmp_path / "good.json").code == 0
    table["rows"][4]["b"][1] *= 1.01
    (tmp_path / "bad.json").write_text(json.dumps(table))
    answer = snowmelt("sampler", "certify", tmp_path / "bad.json", "--json")
    assert answer.code == 1
    failed = [check["name"] for check in json.loads(answer.out)["checks"] if check["passed"] is False]
    assert failed == ["signal consistency"]
    assert "NOT certified" in snowmelt("sampler", "certify", tmp_path / "bad.json").out


def test_options_of_a_file_are_refused(refusal, tmp_path):
    save_tableau(make_tableau("ddim", Schedule("edm"), 3), tmp_path / "t.json")
    assert "belongs to samplers by name" in refusal("sampler", "certify", tmp_path / "t.json", "--set", "eta=1")
    assert "already" in refusal("sampler", "show", tmp_path / "t.json", "--steps", 3)


# The analytic variance.


def test_statistics_are_measured_and_used(snowmelt, finished_run, tmp_path):
    file = tmp_path / "error.json"
    answer = snowmelt("sampler", "statistics", finished_run, "--out", file, "-n", 16, "--levels", 5)
    assert answer.code == 0, answer
    known = json.loads(file.read_text())
    assert len(known["log_snr"]) == len(known["error"]) == 5
    assert known["error"][0] > known["error"][-1] > 0  # the noisier, the farther off
    drawn = snowmelt(
        *("sample", finished_run, "-n", 1, "--out", tmp_path / "s", "--sampler", "ddpm", "--steps", 3),
        *("--set", "variance=analytic", "--set", f"error={file}"),
    )
    assert drawn.code == 0, drawn


@pytest.mark.parametrize(
    ("name", "said"), [("edm-stochastic", "S_noise=inf"), ("consistency", "floor=1e200"), ("restart", "K=1000000")]
)
def test_numbers_out_of_all_bounds_are_the_user_s_to_mend(refusal, name, said):
    message = refusal("sampler", "show", name, "--steps", 4, "--set", said)
    assert f"{name!r} cannot be made with" in message
