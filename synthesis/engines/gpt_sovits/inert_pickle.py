"""Reads the pickles inside torch checkpoints without Python's unpickler: nothing in a file can run.

Python's unpickler imports what a file names and calls it. This reader is a stack machine over the opcodes that
`pickletools` decodes: a global stays a pair of strings, and the few "calls" that torch writes are branches below that
build dicts and tensor descriptions. Code in the file is therefore not filtered out, there is nothing that could run it.

`torch.load(weights_only=True)` was the other choice. It imports and calls what its list allows, its list is long, it
sets attributes of allow-listed classes (upstream's `utils.HParams` would have to be one), and its zip reader is C++.
"""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from typing import IO, Any

import torch

from synthesis.engines.gpt_sovits.errors import HostileCheckpointError, ModelFileError

MAX_OPCODES = 2_000_000  # the largest published checkpoint (391 tensors) has about 20,000
_MAX_CONFIG_NODES = 10_000
_MAX_CONFIG_DEPTH = 16

_STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class GlobalName:
    """What a pickle wanted imported. It stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:120]


@dataclass(frozen=True, slots=True)
class Storage:
    """A piece of raw data elsewhere in the file."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view of a storage; the offset and the strides count elements and are not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class HyperParameters(dict[str, Any]):
    """What upstream's `utils.HParams` objects become. The class is never looked up by name."""


_ORDERED_DICT = GlobalName("collections", "OrderedDict")
_REBUILD_TENSOR = GlobalName("torch._utils", "_rebuild_tensor_v2")
_HYPER_PARAMETERS = GlobalName("utils", "HParams")
_STORAGES = {GlobalName("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()}
_ALLOWED = {_ORDERED_DICT, _REBUILD_TENSOR, _HYPER_PARAMETERS, *_STORAGES}


def read_pickle(stream: IO[bytes]) -> Any:
    """The value of the pickle at the stream's position, made of plain values, StoredTensor and HyperParameters.

    Leaves the stream behind the pickle. Raises HostileCheckpointError for a global, a call or an opcode outside the
    few that torch's checkpoints need, ModelFileError for a damaged stream.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise HostileCheckpointError("The checkpoint's pickle is longer than any model's.")
            machine.step(opcode.name, argument)
        return machine.result()
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error) as error:
        # A well-formed pickle gives none of these: they are pops from an empty stack, unknown memo entries and such.
        raise ModelFileError("The checkpoint's pickle is damaged.") from error


def plain(value: Any) -> Any:
    """A configuration as JSON-safe values: dicts with string keys, lists, strings, finite numbers, booleans, None.

    Raises ModelFileError for anything else, and where shared references would unfold into more than a configuration.
    """
    nodes = 0

    def convert(item: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > _MAX_CONFIG_NODES or depth > _MAX_CONFIG_DEPTH:
            raise HostileCheckpointError("The checkpoint's configuration is larger than any model's.")
        if item is None or isinstance(item, bool | str):
            return item
        if isinstance(item, int) and abs(item) < 1 << 63:
            return item
        if isinstance(item, float) and abs(item) < float("inf"):  # False for NaN too
            return item
        if isinstance(item, list | tuple):
            return [convert(part, depth + 1) for part in item]
        if isinstance(item, dict):
            return {str(key): convert(part, depth + 1) for key, part in item.items()}
        raise ModelFileError(f"The checkpoint's configuration holds a {type(item).__name__}, which is no plain value.")

    return convert(value, 0)


class _Mark:
    """Where a group of stack items begins."""


_MARK = _Mark()
_PUSHES_ARGUMENT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_LENGTHS = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:  # an IndexError when there is none
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop_last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("stack is too short")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _PUSHES_ARGUMENT:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLE_LENGTHS:
            stack.append(tuple(self.pop_last(_TUPLE_LENGTHS[opcode])))
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode == "TUPLE":
            stack.append(tuple(self.pop_to_mark()))
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode == "LIST":
            stack.append(self.pop_to_mark())
        elif opcode in ("APPEND", "APPENDS"):
            items = self.pop_last(1) if opcode == "APPEND" else self.pop_to_mark()
            _expect(stack[-1], list).extend(items)
        elif opcode == "EMPTY_DICT":
            stack.append({})
        elif opcode == "DICT":
            stack.append(_fill({}, self.pop_to_mark()))
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self.pop_last(2) if opcode == "SETITEM" else self.pop_to_mark()
            _fill(_expect(stack[-1], dict), items)
        elif opcode == "GLOBAL":
            stack.append(_allowed(*argument.split(" ", 1)))
        elif opcode == "STACK_GLOBAL":
            module, name = self.pop_last(2)
            stack.append(_allowed(_expect(module, str), _expect(name, str)))
        elif opcode == "BINPERSID":
            stack.append(_storage(*_expect(stack.pop(), tuple)))
        elif opcode in ("REDUCE", "NEWOBJ"):
            callee, arguments = self.pop_last(2)
            stack.append(_call(callee, _expect(arguments, tuple)))
        elif opcode == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif opcode == "POP":
            stack.pop()
        elif opcode == "POP_MARK":
            self.pop_to_mark()
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise HostileCheckpointError(f"The checkpoint's pickle uses {opcode}, which no model file needs.")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where a {kind.__name__} belongs")
    return value


def _fill(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):  # hashing a deep tuple would overflow the C stack
            raise TypeError("a key is neither a string nor a whole number")
        target[key] = value
    return target


def _allowed(module: str, name: str) -> GlobalName:
    wanted = GlobalName(module, name)
    if wanted not in _ALLOWED:
        raise HostileCheckpointError(f"The checkpoint asks for {wanted}, which no model file needs.", name=str(wanted))
    return wanted


def _storage(tag: Any, kind: Any, key: Any, _location: Any, elements: Any, view: Any = None) -> Storage:
    """torch's persistent id. `view` is in old files only, and was None in all but the oldest."""
    if tag != "storage" or _expect(kind, GlobalName) not in _STORAGES or view is not None:
        raise ValueError("an unknown kind of stored data")
    return Storage(_expect(key, str), _STORAGES[kind], _count(elements))


def _call(callee: Any, arguments: tuple[Any, ...]) -> Any:
    if callee == _ORDERED_DICT and not arguments:
        return {}
    if callee == _HYPER_PARAMETERS and not arguments:
        return HyperParameters()
    if callee == _REBUILD_TENSOR:
        storage, offset, shape, stride, *_ = arguments  # then requires_grad, and hooks: an empty OrderedDict
        tensor = StoredTensor(
            _expect(storage, Storage), _count(offset), tuple(map(_count, shape)), tuple(map(_count, stride))
        )
        if len(tensor.shape) != len(tensor.stride):
            raise ValueError("a tensor has another number of sizes than of strides")
        return tensor
    # Nothing but a name is worth printing, and other values could unfold into gigabytes of text.
    what = str(callee) if isinstance(callee, GlobalName) else f"a {type(callee).__name__}"
    raise HostileCheckpointError(f"The checkpoint calls {what} as no model file does.")


def _set_state(target: Any, state: Any) -> None:
    """`state` of HParams are its attributes; of a state dict they are `_metadata`, versions of torch modules."""
    if isinstance(target, HyperParameters) and isinstance(state, dict):
        target.update({_expect(key, str): value for key, value in state.items()})
    elif type(target) is not dict or not isinstance(state, dict) or state.keys() - {"_metadata"}:
        raise HostileCheckpointError(f"The checkpoint sets the state of a {type(target).__name__}.")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("a size is no natural number")
    return value
