"""The command line: names of commands, and what an error looks like. Commands are imported when they are called."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import user_path
from snowmelt.cli.output import outlive_readers

app = App(
    name="snowmelt",
    help="Train, sample, measure, edit and serve diffusion models of images.",
    help_epilogue="Start with: snowmelt demo",
    version=lambda: version("snowmelt"),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
app.command("snowmelt.cli.demo:demo", name="demo", help="About a minute: train on the bundled digits, sample, report.")
app.command("snowmelt.cli.explain:explain", name="explain", help="Show how diffusion models work, in eight pages.")
app.command("snowmelt.cli.train:train", name="train", help="Train a model on a folder of images, or resume a run.")
app.command("snowmelt.cli.plan:plan", name="plan", help="Measure a few steps: speed, hours, memory and disk of a run.")
app.command("snowmelt.cli.sample:sample", name="sample", help="Draw images from a trained model.")
app.command("snowmelt.cli.eval:evaluate", name="eval", help="Measure a model, or samples beside real images.")
sampler = App(name="sampler", help="List, show and certify samplers: tables of numbers.", help_format="plaintext")
sampler.command("snowmelt.cli.sampler:list_samplers", name="list", help="Show every sampler and its options.")
sampler.command("snowmelt.cli.sampler:show", name="show", help="Print a sampler's table.")
sampler.command("snowmelt.cli.sampler:certify", name="certify", help="Prove a sampler on data known exactly.")
sampler.command("snowmelt.cli.sampler:statistics", name="statistics", help="Measure what variance=analytic needs.")
app.command(sampler)
edit = App(name="edit", help="Paint into, vary, interpolate, enlarge and colour pictures.", help_format="plaintext")
edit.command("snowmelt.cli.edit:inpaint", name="inpaint", help="Paint the white part of a mask anew.")
edit.command("snowmelt.cli.edit:vary", name="vary", help="Draw pictures like a given one.")
edit.command("snowmelt.cli.edit:interpolate", name="interpolate", help="Draw the way between two pictures or seeds.")
edit.command("snowmelt.cli.edit:upscale", name="upscale", help="Enlarge a small picture to the model's size.")
edit.command("snowmelt.cli.edit:colorize", name="colorize", help="Give a grey picture colours.")
app.command(edit)
app.command("snowmelt.cli.convert:convert", name="convert", help="Read another library's model, or write one for it.")
app.command("snowmelt.cli.push:push", name="push", help="Put a model on Hugging Face.")
app.command("snowmelt.cli.export:export", name="export", help="Write a model as ONNX, with a page that draws.")
data = App(name="data", help="What is in a folder of images, before a run.", help_format="plaintext")
data.command("snowmelt.cli.data:check", name="check", help="Say what a data set holds, and what is broken in it.")
data.command("snowmelt.cli.data:cache", name="cache", help="List or delete the decoded images that are kept.")
app.command(data)
app.command("snowmelt.cli.doctor:doctor", name="doctor", help="Show versions, devices and what they can do.")

OWN_FAULT = 1
USER_ERROR = 2
INTERRUPTED = 130


def main() -> None:
    """Run a command and exit: 0 for well, 2 for what the user can mend, 1 for our own faults, 130 if interrupted."""
    outlive_readers()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    sys.exit(run([argument for argument in arguments if argument != "--debug"], debug))


def run(arguments: list[str], debug: bool = False) -> int:
    """Run a command; returns its exit code. With `debug`, errors keep their traceback."""
    arguments = [_with_home(argument) for argument in arguments]
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(f"{error}\n  `snowmelt {_command(arguments)}--help` lists what there is.", error, debug)
    except SnowmeltError as error:
        return _fail(str(error), error, debug)
    except OSError as error:
        return _fail(str(error), error, debug)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if _lacks_memory(error):
            hint = "Ask for less at once (--batch, --micro-batch, -n, where the command has them) or another --device."
            said = re.sub(r"^\[.*?\] (err == 0\. )?", "", str(error)).split("\n")[0].split(". ")[0].rstrip(".")
            told = SnowmeltError(f"The memory does not suffice: {said}.", hint)
            return _fail(str(told), error, debug)
        what = f"{type(error).__name__}: {error}\n  This is a fault of snowmelt. Add --debug to see where it lies."
        return _fail(what, error, debug, OWN_FAULT)
    return result if isinstance(result, int) else 0


def _with_home(argument: str) -> str:
    """--out=~/x with the user's folder for ~, which shells put there only where a word begins with it."""
    flag, _, value = argument.partition("=")
    at_home = flag.startswith("--") and (value == "~" or value.startswith("~/"))
    return f"{flag}={user_path(value)}" if at_home else argument


def _lacks_memory(error: Exception) -> bool:
    """Whether it is about memory, the processor's or a device's, which torch says by words alone."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    said = isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    return said or isinstance(error, MemoryError)


def _fail(message: str, error: Exception, debug: bool, code: int = USER_ERROR) -> int:
    if debug:
        raise error
    print(f"snowmelt: {message}", file=sys.stderr)
    return code


def _command(arguments: list[str]) -> str:
    """The command as far as it is one, with a blank behind each of its words."""
    place, words = app, ""
    for argument in arguments:
        if argument.startswith("-") or argument not in place:
            break
        place, words = place[argument], f"{words}{argument} "
    return words
