from types import SimpleNamespace
from typing import Any

import pytest

from snowmelt.base import registry as module
from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry


@pytest.fixture
def tools() -> Registry[Any]:
    tools: Registry[Any] = Registry("tool")
    tools.register("hammer", "drives nails", "Paper 2020", {"weight": "in grams", "width": "in mm"})("the hammer")
    tools.register("saw", "cuts")("the saw")
    return tools


def test_a_registered_object_is_found_with_its_metadata(tools):
    assert tools.get("hammer") == "the hammer"
    entry = tools.entry("hammer")
    assert (entry.summary, entry.paper, list(entry.options)) == ("drives nails", "Paper 2020", ["weight", "width"])
    assert tools.names() == [entry.name for entry in tools] == ["hammer", "saw"]


def test_an_unknown_name_lists_the_choices_and_the_nearest(tools):
    with pytest.raises(SnowmeltError, match=r"Unknown tool 'hamer'. Did you mean 'hammer'\?\n  Choices: hammer, saw"):
        tools.get("hamer")


def test_an_unknown_option_lists_those_there_are(tools):
    tools.check_options("hammer", {"weight": 1})
    with pytest.raises(SnowmeltError, match=r"'weigth'. Did you mean 'weight'\?\n  Choices: weight, width"):
        tools.check_options("hammer", {"weigth": 1})
    with pytest.raises(SnowmeltError, match="tool 'saw' takes no option 'weight'\n  It takes none at all"):
        tools.check_options("saw", {"weight": 1})


def test_a_second_object_of_one_name_is_refused_and_changes_nothing(tools):
    with pytest.raises(ValueError, match="tool 'saw' is registered twice"):
        tools.register("saw", "another")("another saw")
    assert tools.get("saw") == "the saw"


def test_decorating_leaves_the_function_as_it_is():
    functions: Registry[Any] = Registry("function")

    @functions.register("f", "a function")
    def f() -> int:
        return 7

    assert f() == 7
    assert functions.get("f") is f


def test_plugins_are_loaded_once_and_only_when_a_name_is_missing(monkeypatch):
    saws: Registry[Any] = Registry("power tool")
    loaded = []

    class Point:
        def load(self) -> None:
            loaded.append(1)
            saws.register("chainsaw", "from a plugin")("the chainsaw")

    groups = []
    monkeypatch.setattr(module, "entry_points", lambda group: groups.append(group) or [Point()])
    saws.register("saw", "cuts")("the saw")
    saws.get("saw")
    assert not loaded
    assert saws.get("chainsaw") == "the chainsaw"
    assert saws.names() == ["saw", "chainsaw"]
    assert (groups, len(loaded)) == (["snowmelt.power_tool"], 1)


def test_a_plugin_that_cannot_be_loaded_is_named_and_the_others_work(monkeypatch):
    saws: Registry[Any] = Registry("saw")
    saws.register("jigsaw", "cuts")("the jigsaw")

    class Broken:
        name, dist = "fretsaw", SimpleNamespace(name="rusty-saws")

        def load(self) -> None:
            raise ModuleNotFoundError("No module named 'teeth'")

    monkeypatch.setattr(module, "entry_points", lambda group: [Broken()])
    with pytest.warns(UserWarning, match=r"saw fretsaw of rusty-saws cannot be loaded: .*teeth"):
        assert saws.names() == ["jigsaw"]
