"""Reads PyTorch files of other projects without running any code that a file names.

Such a file is a pickle: a program for a small interpreter, and the program may import and call anything. The
interpreter here has only the instructions and functions that make tensors, plain containers and stand-ins for module
objects. Any other instruction or function raises an error.
"""

import io
import os
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from parking.utils.errors import UserError
from parking.utils.files import open_regular
from parking.utils.text import printable

from .foreign_files import explain_class
from .tensor_archive import ArchiveError, TensorArchive

# Objects of these classes become stand-ins that hold the attributes, because the code of the classes is not needed.
_MODULE_CLASSES = re.compile(
    r"(yolov5\.)?models\.(common|experimental|yolo) [A-Z]\w*|(torch\.nn|ultralytics)(\.\w+)* \w+", re.ASCII
)
# A class name may have this many characters. It is limited because a file may store a name once and use it a million
# times, and each use makes a new string.
_MAX_NAME = 200
# A file makes some objects of ultralytics by calling their class without arguments; they become stand-ins, too.
_CALLED = "ultralytics."

# Classes and functions that make the harmless values which files hold beside the weights, such as paths and scores.
# These values are not needed, so they are not made: one empty object, _DISCARD, takes the place of all of them.
_DISCARDED = {
    "builtins set",
    "__builtin__ set",
    "torch Size",
    "torch device",
    "_codecs encode",
    "numpy dtype",
    "numpy ndarray",
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"{module} {system}Path" for module in ("pathlib", "pathlib._local") for system in ("Posix", "Windows")),
}


class PickleRefused(Exception):
    """Raised if the file uses a class, function or instruction that weights do not need; the message says which."""


class ModuleStandIn:
    """Stands in for an object, mostly a module: holds the attributes of the object as a dict, and has no code.

    Attributes:
        kind: what the file calls the class, such as ``models.common.Conv``.
        state: the object's attributes by name.
    """

    __slots__ = ("kind", "state")

    def __init__(self, kind: str):
        self.kind = kind
        self.state: dict[str, Any] = {}


# An object of one of the next four classes takes the place of a class or function that a file names. The object cannot
# be changed, and only the code below can call the class or function.
class _ModuleClass(NamedTuple):
    kind: str


class _Function(NamedTuple):
    call: Callable[..., Any]


class _StorageType(NamedTuple):
    dtype: torch.dtype


class _Discarded(NamedTuple):
    """Stands for a class or function of ``_DISCARDED``, and for everything that a file makes with it."""


_DISCARD = _Discarded()
_MAX_DIMS = 8
# A number as a key of a dict must be below this. The hashes of numbers are known: a file could choose large numbers
# that have the same hash and make the dict as slow as a list.
_MAX_NUMBER_AS_KEY = 2**20
_STORAGES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


def _rebuild_tensor(storage, offset, size, stride, requires_grad=False, backward_hooks=None, metadata=None) -> Tensor:
    if not isinstance(storage, Tensor) or type(size) is not tuple or type(stride) is not tuple:
        raise PickleRefused("a tensor that is not made from a storage and tuples")
    numbers = (offset, *size[:_MAX_DIMS], *stride[:_MAX_DIMS])
    if max(len(size), len(stride)) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in numbers):
        raise PickleRefused("a tensor with an impossible shape")
    # This is safe: the result shares the storage's memory, and torch raises an error if it would reach beyond that.
    return storage.as_strided(size, stride, offset)


def _rebuild_parameter(data, requires_grad=False, backward_hooks=None) -> Tensor:
    if not isinstance(data, Tensor):
        raise PickleRefused("a parameter that is not made from a tensor")
    return data


_FUNCTIONS = {
    # Accept no arguments for an OrderedDict, because a file could use them to copy one long list into thousands of
    # dicts. Items are added later, one by one.
    "collections OrderedDict": lambda: OrderedDict(),
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
}


def read_pickled(path: str | os.PathLike, *, only_plain: bool = False) -> Any:
    """Read what ``torch.save`` wrote to ``path``: tensors on the CPU, and each module as a :class:`ModuleStandIn`.

    Args:
        only_plain: whether to refuse module objects, values that would be discarded, and tensors that are larger than
            their storage; checkpoints of our own trainings have none of these.

    Raises:
        UserError: the file is not of torch.save, is damaged, or asks for anything that weights do not need.
    """
    try:
        with open_regular(path) as file:
            archive = TensorArchive(file)
            return RestrictedUnpickler(io.BytesIO(archive.read_pickle()), archive, only_plain=only_plain).load()
    except PickleRefused as e:
        raise UserError(
            f"weights {printable(path)} are refused: the file asks for {e}, which weights do not need."
        ) from e
    except ArchiveError as e:
        raise UserError(f"weights {printable(path)} cannot be read: {e}.") from e
    except OSError as e:
        raise UserError(f"weights {printable(path)} cannot be read ({e.strerror}).") from e
    except Exception as e:  # a damaged file makes the parsers raise almost any exception
        raise UserError(f"weights {printable(path)} cannot be read: the file is damaged ({type(e).__name__}).") from e


class RestrictedUnpickler(pickle._Unpickler):
    """An unpickler that knows only the few instructions that weights need, and checks everything that they do.

    This class extends Python's unpickler that is written in Python. The faster unpickler in C is not safe: it takes
    extension codes that were used before from a cache, and allocates as much memory as a memo number in the file says.
    """

    def __init__(self, file, archive: TensorArchive, *, only_plain: bool = False):
        super().__init__(file)
        self._archive = archive
        self._only_plain = only_plain

    def load(self) -> Any:
        """Return the object in the file; raise PickleRefused, or almost any exception if the file is damaged."""
        try:
            return super().load()
        except KeyError as e:
            # Most instructions are missing in ``dispatch`` on purpose; each of these raises a KeyError with its number.
            if isinstance(e.args[0], int) and e.args[0] not in self.dispatch:
                raise PickleRefused(f"the instruction {_name_instruction(e.args[0])}") from e
            raise

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module} {name}"
        if full_name in _FUNCTIONS:
            return _Function(_FUNCTIONS[full_name])
        if full_name in _STORAGES:
            return _StorageType(_STORAGES[full_name])
        if full_name in _DISCARDED and not self._only_plain:
            return _DISCARD
        if len(full_name) <= _MAX_NAME and _MODULE_CLASSES.fullmatch(full_name) and not self._only_plain:
            return _ModuleClass(f"{module}.{name}")
        # Escape the name, because it may hold control characters that change the terminal.
        raise PickleRefused(ascii(f"{module}.{name}"[:200])[1:-1] + explain_class(module))

    def persistent_load(self, pid: Any) -> Tensor:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), str(), int(numel)):
                return self._archive.read_storage(key, dtype, numel)
        raise PickleRefused("a persistent id that is not a tensor's storage")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if type(args) is not tuple:
            raise PickleRefused("a call without a tuple of arguments")
        if isinstance(function, _Function):
            self.stack[-1] = made = function.call(*args)
            if self._only_plain and isinstance(made, Tensor) and made.nbytes > made.untyped_storage().nbytes():
                raise PickleRefused("a tensor that repeats its storage")
        elif isinstance(function, _ModuleClass) and function.kind.startswith(_CALLED) and args == ():
            self.stack[-1] = ModuleStandIn(function.kind)
        elif function is not _DISCARD:
            kind = f"of {function.kind}" if isinstance(function, _ModuleClass) else f"of a {type(function).__name__}"
            raise PickleRefused(f"a call {kind}")

    def load_newobj(self) -> None:
        args = self.stack.pop()
        cls = self.stack[-1]
        if not isinstance(cls, _ModuleClass) or args != ():
            kind = cls.kind if isinstance(cls, _ModuleClass) else type(cls).__name__
            raise PickleRefused(f"a new object of {kind}" + (" with arguments" if args != () else ""))
        self.stack[-1] = ModuleStandIn(cls.kind)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, ModuleStandIn) and type(state) is dict:
            target.state = state
        # Discard the attributes of an OrderedDict: PyTorch sets only `_metadata`, which is not needed.
        elif not (type(target) is OrderedDict and type(state) is dict) and target is not _DISCARD:
            raise PickleRefused(f"the setting of attributes of a {type(target).__name__}")

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleRefused(f"the extension of a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._update(zip(items[0::2], items[1::2], strict=True))

    def _update(self, pairs) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise PickleRefused(f"the setting of items of a {type(self.stack[-1]).__name__}")
        for key, value in pairs:
            # Weights need only keys of these types. Hashing a deeply nested tuple would recurse without limit.
            if not isinstance(key, str | int | float | None):
                raise PickleRefused(f"a {type(key).__name__} as the key of a dict")
            if isinstance(key, int | float) and not abs(key) < _MAX_NUMBER_AS_KEY:
                raise PickleRefused("a large number as the key of a dict")
            self.stack[-1][key] = value

    # Use Python's handlers for numbers, text, empty containers, tuples, the memo, and names of classes and functions.
    # Use the methods above for the instructions that make or change objects.
    dispatch: ClassVar[dict[int, Callable]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (
            *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
            *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2),
            *(pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
            *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_LIST, pickle.EMPTY_DICT),
            *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
            *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
            *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
        )
    }
    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def _name_instruction(code: int) -> str:
    known = pickletools.code2op.get(chr(code))
    return known.name if known else f"{code:#04x}"
