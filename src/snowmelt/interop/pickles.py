"""A pickle read as data: what it would call is written down and never called.

A pickle is a program for a small stack machine. This one runs the part of it that builds plain values; where a class or
function would be called, a `Made` stands instead, with its name and what it was given. Nothing is imported.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from snowmelt.base.errors import SnowmeltError

# A network of a thousand modules has about a hundred thousand.
MAX_OPCODES = 1_000_000
PERSISTENT = "persistent"
NUMBERS_AND_TEXTS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A class or function by its name, module.name; nobody has looked whether it exists."""

    text: str


@dataclass(eq=False)
class Made:
    """What a call would have returned.

    name   of what would be called; PERSISTENT for an object that is kept elsewhere
    given  its arguments
    state  what it would be told afterwards, mostly its attributes
    items  what would be put into it by key
    """

    name: str
    given: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


def read_pickle(file: BinaryIO, allowed: Callable[[str], bool], where: str) -> Any:
    """The value of the pickle that begins at the file's position; the position is behind it afterwards.

    file     one whose `read` returns no more than there is, whatever is asked for
    allowed  whether a name may occur in it at all
    Sets are lists here, and only texts, numbers and None may be keys: nothing is ever hashed that could be deep.
    Raises SnowmeltError where it is damaged, names what is not allowed, or holds what no network needs.
    """
    machine = _Machine(allowed, where)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number > MAX_OPCODES:
                raise SnowmeltError(f"{where} has more than {MAX_OPCODES:,} instructions: it was not read.")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise SnowmeltError(
            f"{where} is damaged, or no pickle: {reason}.", "Copy it again from where it came."
        ) from error
    raise SnowmeltError(f"{where} ends too early.", "Copy it again from where it came.")


class _Machine:
    """The stack, the stacks below the marks, and what was memorised."""

    def __init__(self, allowed: Callable[[str], bool], where: str) -> None:
        self.allowed = allowed
        self.where = where
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in NUMBERS_AND_TEXTS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self._gather(TUPLES[name])
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            self.stack.append([])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "TUPLE":
            items = self._above_mark()
            self.stack.append(tuple(items))
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items([self.stack.pop(-2), self.stack.pop()] if name == "SETITEM" else self._above_mark())
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            self._append([self.stack.pop()] if name == "APPEND" else self._above_mark())
        elif name in ("POP", "POP_MARK"):
            _ = self.stack.pop() if name == "POP" else self._above_mark()
        elif name not in ("PROTO", "FRAME"):
            self._name_or_call(name, argument)

    def _name_or_call(self, name: str, argument: Any) -> None:
        """The instructions by which code would be run."""
        if name == "GLOBAL":
            self._name(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL":
            module, attribute = self.stack.pop(-2), self.stack.pop()
            self._name(module, attribute)
        elif name in ("REDUCE", "NEWOBJ"):
            called, given = self.stack.pop(-2), self.stack.pop()
            self.stack.append(self._made(called, given))
        elif name == "BUILD":
            state = self.stack.pop()
            self._top(Made).state = state
        elif name == "BINPERSID":
            self.stack.append(Made(PERSISTENT, (self.stack.pop(),)))
        else:
            raise SnowmeltError(f"{self.where} holds {name}, which no network's pickle needs: it was not read.")

    def _name(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("a name that is no text")
        text = f"{module}.{attribute}"
        if not self.allowed(text):
            raise SnowmeltError(
                f"{self.where} asks for {text[:100]!r}, which no network needs and which may be there to run code: "
                "it was not opened, and nothing was run.",
                "Ask its author for the weights alone, best as .safetensors.",
            )
        self.stack.append(Name(text))

    def _made(self, called: Any, given: Any) -> Made:
        if not isinstance(called, Name) or not isinstance(given, tuple):
            raise ValueError("a call of what has no name")
        return Made(called.text, given)

    def _gather(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("an empty stack")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def _above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} is expected")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        place = self.stack[-1]
        target = place.items if isinstance(place, Made) else self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | bytes | None):
                raise ValueError(f"a key that is a {type(key).__name__}")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)
