"""Pickles written by hand, instruction by instruction: what runs code or eats memory elsewhere is refused here."""

import contextlib
import copyreg
import os
import pickle
import re
import shutil
import struct
import sys
import tracemalloc
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from parking.checkpoint import read_weights
from parking.checkpoint.restricted_pickle import ModuleStandIn, read_pickled
from parking.checkpoint.weights import torch_load
from parking.utils.errors import UserError

EXT_CODE = 0xF0
MIB = 2**20
MARKER = "ran"  # what a hostile file makes in the current folder


def write_archive(path: Path, pickled: bytes, records: dict[str, bytes] | None = None) -> Path:
    """What torch.save writes, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", sys.byteorder)
        archive.writestr("archive/version", "3\n")
        for key, data in (records or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


# Each of these is a piece of a pickle that leaves one value on the stack.
EMPTY = b")"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value) -> bytes:
    encoded = str(value).encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def binary(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def tuple_of(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def list_of(*values: bytes) -> bytes:
    return b"](" + b"".join(values) + b"e"


def dict_of(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def call(function: bytes, *args: bytes) -> bytes:
    return function + tuple_of(*args) + b"R"


def stack_global(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def new(kind: bytes) -> bytes:
    return kind + EMPTY + b"\x81"


def module(*state: tuple[bytes, bytes], kind=("models.common", "Conv")) -> bytes:
    return new(name(*kind)) + dict_of(*state) + b"b"


def storage(key="0", numel=1, kind="FloatStorage") -> bytes:
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), number(numel)) + b"Q"


def tensor(size=(1,), stride=(1,), **storage_args) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    shape = (tuple_of(*map(number, size)), tuple_of(*map(number, stride)))
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, storage(**storage_args), number(0), *shape, b"\x89", hooks)


def protocol(version: int, value: bytes) -> bytes:
    return b"\x80" + bytes([version]) + value + b"."


def checkpoint(model: bytes) -> bytes:
    return protocol(2, dict_of((text("model"), model)))


# What the classes of modules belong to, in files of YOLOv5 and, in their place, in those of YOLOv5u.
PACKAGES = {"models.common": "ultralytics.nn.modules.conv", "models.yolo": "ultralytics.nn.tasks"}
FORMATS = ["yolov5", "yolov5u"]


def in_format(format: str, pickled: bytes) -> bytes:
    """The same pieces with the classes of that format."""
    for own, other in PACKAGES.items() if format == "yolov5u" else ():
        pickled = pickled.replace(f"c{own}\n".encode(), f"c{other}\n".encode()).replace(text(own), text(other))
    return pickled


def named_in_format(format: str, message: str) -> str:
    """A pattern for the same message about a file of that format."""
    for own, other in PACKAGES.items() if format == "yolov5u" else ():
        message = message.replace(re.escape(own), re.escape(other))
    return message


def test_pieces_are_assembled_as_pickle_reads_them():
    value = dict_of((text("a"), list_of(number(10**12), tuple_of(binary(b"b"), number(-3)))))
    assert pickle.loads(protocol(2, value)) == {"a": [10**12, (b"b", -3)]}


@pytest.fixture
def marker(tmp_path) -> Path:
    """A folder or file that exists only if a hostile file has run its code."""
    return tmp_path / MARKER


@pytest.fixture
def hostile_modules(marker, monkeypatch):
    """``models.common``, its like in the other format, and ``on_import``, of which every use leaves the marker."""

    def run(*args, **kwargs):
        marker.mkdir(exist_ok=True)
        return 0

    def new_object(cls, *args, **kwargs):
        if args or kwargs:
            run()
        return object.__new__(cls)

    class Meta(type):
        __setattr__ = run

    called = ("append", "extend", "__setitem__", "__setstate__", "__hash__", "__init__")
    for package in PACKAGES.values():
        for i in range(package.count(".") + 1):
            parent = ".".join(package.split(".")[: i + 1])
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    for package in ("models.common", PACKAGES["models.common"]):
        conv = Meta("Conv", (), {"__new__": new_object, "__module__": package, **dict.fromkeys(called, run)})
        common = types.ModuleType(package)
        common.Conv, common.run = conv, run
        monkeypatch.setitem(sys.modules, package, common)
    (marker.parent / "on_import.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(marker.parent)
    monkeypatch.chdir(marker.parent)
    copyreg.add_extension("os", "mkdir", EXT_CODE)
    yield
    # remove_extension also forgets what was cached for the code.
    copyreg.remove_extension("os", "mkdir", EXT_CODE)
    sys.modules.pop("on_import", None)


class CallsMkdir:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


def calls(module: str, attribute: str, *args: bytes) -> tuple[bytes, str]:
    return call(name(module, attribute), *args), re.escape(f"{module}.{attribute}")


CONV = name("models.common", "Conv")
RAN = text(MARKER)
MKDIR = name("os", "mkdir")
EXPRESSION = text(f"__import__('os').mkdir('{MARKER}')")
IMPORT_OS = call(name("builtins", "__import__"), text("os"))
#: By what they do: a value that does it, and what the message must name.
HOSTILE = {
    # Function calls, by every way to name a function.
    "os.system": calls("os", "system", text(f"mkdir {MARKER}")),
    "eval": calls("builtins", "eval", EXPRESSION),
    "Python 2's name": calls("__builtin__", "eval", EXPRESSION),
    "getattr": (call(call(name("builtins", "getattr"), IMPORT_OS, text("mkdir")), RAN), r"builtins\.getattr"),
    "__import__": calls("builtins", "__import__", text("on_import")),
    "a mere name": (name("on_import", "os"), r"on_import\.os"),
    "stack global": (call(stack_global("os", "mkdir"), RAN), r"os\.mkdir"),
    "stack global from the memo": (call(text("mkdir") + b"\x940" + text("os") + b"h\x00\x93", RAN), r"os\.mkdir"),
    "a dotted name": (call(stack_global("torch.serialization", "os.mkdir"), RAN), r"serialization\.os\."),
    "a dotted name below an allowed module": (
        call(stack_global("torch.nn.modules.conv", "torch.os.mkdir"), RAN),
        r"torch\.nn\.modules\.conv\.torch\.os\.mkdir",
    ),
    "a dotted name below an allowed class": (
        call(stack_global("models.common", "Conv.__init__"), text("self")),
        r"models\.common\.Conv\.__init__",
    ),
    "a function of an allowed module": calls("models.common", "run", RAN),
    # A pickle in the pickle.
    "pickle.loads": calls("pickle", "loads", binary(pickle.dumps(CallsMkdir()))),
    # Other instructions that make something.
    "ext1": (b"\x82" + bytes([EXT_CODE]) + tuple_of(RAN) + b"R", "instruction EXT1"),
    "obj": (b"(" + MKDIR + RAN + b"o", r"os\.mkdir"),
    "obj of a stand-in": (b"(" + CONV + RAN + b"o", "instruction OBJ"),
    "inst": (b"(" + RAN + b"ios\nmkdir\n", "instruction INST"),
    "a persistent id that calls": (
        tuple_of(text("storage"), call(MKDIR, RAN), text("0"), text("cpu"), number(1)) + b"Q",
        r"os\.mkdir",
    ),
    # What is allowed, used otherwise.
    "a call of a stand-in": (call(CONV, text("argument")), r"a call of models\.common\.Conv"),
    "a stand-in with arguments": (
        CONV + tuple_of(number(1)) + b"\x81",
        r"a new object of models\.common\.Conv with arguments",
    ),
    "a stand-in with keywords": (CONV + EMPTY + dict_of((text("a"), b"N")) + b"\x92", "instruction NEWOBJ_EX"),
    "__setstate__": (new(CONV) + text("state") + b"b", "setting of attributes of a ModuleStandIn"),
    "attributes of a class": (
        CONV + tuple_of(b"N", dict_of((text("a"), b"N"))) + b"b",
        "setting of attributes of a _ModuleClass",
    ),
    "__setitem__": (new(CONV) + text("a") + b"Ns", "setting of items of a ModuleStandIn"),
    "__setitem__ of many": (new(CONV) + b"(" + text("a") + b"Nu", "setting of items of a ModuleStandIn"),
    "append": (new(CONV) + b"Na", "extension of a ModuleStandIn"),
    "extend": (new(CONV) + b"(Ne", "extension of a ModuleStandIn"),
    "__hash__": (dict_of((new(CONV), b"N")), "a ModuleStandIn as the key of a dict"),
}


def around(format: str, value: bytes) -> bytes:
    """A whole file's dict with ``value`` in it: where the older format has the model, or beside it in the newer one."""
    if format == "yolov5":
        return dict_of((text("model"), value))
    plain = [(text("date"), text("2026-01-01")), (text("version"), text("8.4.0"))]
    model = module((text("names"), dict_of((number(0), text("a")))), kind=("models.yolo", "DetectionModel"))
    return dict_of(*plain, (text("train_args"), dict_of((text("data"), value))), (text("model"), model))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.usefixtures("hostile_modules")
def test_hostile_files_run_nothing(case, format, marker, tmp_path):
    value, message = HOSTILE[case]
    message = named_in_format(format, message)
    # A name of Python 2 is translated for old protocols only.
    version = 2 if case == "Python 2's name" else 4
    path = write_archive(tmp_path / "hostile.pt", protocol(version, in_format(format, around(format, value))))
    with contextlib.suppress(Exception):  # of what comes after the code has run
        torch.load(path, weights_only=False)
    assert marker.exists(), "the file does run code where it is loaded without care"
    marker.rmdir() if marker.is_dir() else marker.unlink()
    sys.modules.pop("on_import", None)

    for other in (path, shutil.copy(path, tmp_path / "hostile.pth")):
        with pytest.raises(UserError, match=rf"hostile\.pth? are refused: the file asks for .*{message}"):
            read_weights(other)
        assert not marker.exists()
        with pytest.raises(UserError, match=r"hostile\.pth? are refused: the file asks for"):
            torch_load(other)
        assert not marker.exists()
        assert "on_import" not in sys.modules


def test_attributes_of_functions_are_not_set(tmp_path):
    function = torch._utils._rebuild_tensor_v2
    path = tmp_path / "hostile.pt"
    write_archive(path, checkpoint(name("torch._utils", function.__name__) + dict_of((text("touched"), b"N")) + b"b"))
    torch.load(path, weights_only=False)
    assert vars(function).pop("touched", "untouched") is None
    with pytest.raises(UserError, match="setting of attributes of a _Function"):
        read_weights(path)
    assert "touched" not in vars(function)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("hostile_modules")
def test_module_objects_and_discarded_values_do_nothing(tmp_path, marker, format):
    parts = [
        (text("_parameters"), dict_of((text("0"), b"N"))),
        (text("names"), call(name("builtins", "set"), list_of(new(CONV)))),
        (text("path"), call(name("pathlib", "PosixPath"), text("/"))),
        (text("score"), call(name("numpy.core.multiarray", "scalar"), name("numpy", "dtype"), binary(b"12345678"))),
        (text("_modules"), dict_of((text("model"), module()))),
    ]
    path = write_archive(tmp_path / "m.pt", in_format(format, checkpoint(module(*parts))))
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists()
    marker.rmdir()
    with pytest.raises(UserError, match=r"no model|no tensors?"):
        read_weights(path)
    assert not marker.exists()


@pytest.mark.usefixtures("hostile_modules")
def test_any_name_of_two_packages_stands_for_an_inert_object(tmp_path, marker):
    """Whatever a release calls its classes, and wherever it keeps them."""
    kinds = [
        *(("torch.nn", "Conv2d"), ("torch.nn.modules", "Conv2d"), ("torch.nn.modules.new_place.deep", "Layer2")),
        *(("torch.nn.functional", "silu"), ("ultralytics", "Thing"), ("ultralytics.a.b.c.d", "v8DetectionLoss")),
        ("ultralytics.nn.modules.conv", "Conv"),
    ]
    made = [module((text("a"), number(i)), kind=kind) for i, kind in enumerate(kinds)]
    # Its settings are a plain object, which is called into being.
    settings = call(name("ultralytics.nn.modules.conv", "Conv")) + dict_of((text("mode"), text("train"))) + b"b"
    model = dict_of((text("model.0.conv.weight"), tensor()))
    content = dict_of((text("model"), model), (text("args"), settings), (text("others"), list_of(*made)))
    path = write_archive(tmp_path / "m.pt", protocol(4, content), {"0": bytes(4)})
    others = read_pickled(path)["others"]
    assert [(type(other), other.kind, other.state) for other in others] == [
        (ModuleStandIn, ".".join(kind), {"a": i}) for i, kind in enumerate(kinds)
    ]
    settings = read_pickled(path)["args"]
    assert (type(settings), settings.kind, settings.state) == (ModuleStandIn, ".".join(kinds[-1]), {"mode": "train"})
    assert list(read_weights(path).state_dict) == ["backbone.bottom_up.stem.conv.weight"]
    assert not marker.exists()
    with pytest.raises(UserError, match="are refused: the file asks for"):
        torch_load(path)  # as --resume does


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (text("archive/data.pkl") + b"Q", "a persistent id"),
        (tuple_of(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu")) + b"Q", "a persistent id"),
        (tuple_of(text("module"), CONV, text("c.py"), text("source")) + b"Q", "a persistent id"),
        (tuple_of(text("storage"), name("torch._utils", "_rebuild_parameter"), *[text("0")] * 3) + b"Q", "persistent"),
        (b"Psome text\n", "instruction PERSID"),
        (b"I1\n", "instruction INT"),
        (b"\xff", "instruction 0xff"),
        (name("torch", "Tensor"), r"torch\.Tensor"),
        (name("torch.nn2", "Conv2d"), r"torch\.nn2\.Conv2d"),
        (name("torch", "nn"), r"torch\.nn"),
        (name("torch.nn..modules", "Conv2d"), r"torch\.nn\.\.modules"),
        (name("torch.nn.", "Conv2d"), r"torch\.nn\."),
        (name("ultralytics2", "Conv"), r"ultralytics2\.Conv"),
        (name("my.ultralytics.nn", "Conv"), r"my\.ultralytics\.nn"),
        (stack_global("ultralytics.nn", "Conv.run"), r"ultralytics\.nn\.Conv\.run"),
        (stack_global("ultralytics.nn", ""), r"ultralytics\.nn\."),
        (stack_global("ultralytics.nn\n", "Conv"), "ultralytics"),
        (stack_global("ultralytics.nn", "Conv\n"), "ultralytics"),
        (name("ultralytics.nn", "C" * 200), r"ultralytics\.nn\.CCC"),
        (call(CONV), r"a call of models\.common\.Conv"),
        (call(name("torch.nn", "Module")), r"a call of torch\.nn\.Module"),
        (name("models.common.x", "Conv"), r"models\.common\.x\.Conv"),
        (call(name("torch._utils", "_rebuild_parameter"), text("no tensor")), "a parameter that is not made from"),
        (call(name("torch._utils", "_rebuild_tensor_v2"), b"N", b"N", EMPTY, EMPTY), "a tensor that is not made from"),
        (tensor(size=(-1,)), "impossible shape"),
        (b"]" + CONV + list_of() + b"R", "a call without a tuple"),
        (call(text("system")), "a call of a str"),
        (tensor() + EMPTY + b"\x81", "a new object of Tensor"),
        (tensor() + dict_of() + b"b", "setting of attributes of a Tensor"),
        (call(name("collections", "OrderedDict")) + tuple_of(b"N", dict_of()) + b"b", "attributes of a OrderedDict"),
    ],
)
def test_everything_else_is_refused_by_name(tmp_path, value, message):
    with pytest.raises(UserError, match=f"are refused: the file asks for .*{message}"):
        read_weights(write_archive(tmp_path / "m.pt", checkpoint(value), {"0": bytes(4)}))


def test_messages_do_not_steer_a_terminal(tmp_path):
    path = write_archive(tmp_path / "m.pt", checkpoint(stack_global("os\x1b[2J", "system\nAll is well")))
    with pytest.raises(UserError, match="are refused") as error:
        read_weights(path)
    assert str(error.value).isprintable()


def parameter(value: bytes, key="model.0.conv.weight") -> bytes:
    """A checkpoint of one module, nested as the parts of ``key`` say, with that tensor."""
    *parents, last = key.split(".")
    kinds = [("models.yolo", "Model"), ("torch.nn.modules.container", "Sequential"), ("models.common", "Conv")]
    made = module((text("_parameters"), dict_of((text(last), value))), kind=("torch.nn.modules.conv", "Conv2d"))
    for parent, kind in zip(reversed(parents), reversed(kinds), strict=True):
        made = module((text("_modules"), dict_of((text(parent), made))), kind=kind)
    return checkpoint(made)


def state(value: bytes, key="model.0.conv.weight") -> bytes:
    return checkpoint(dict_of((text(key), value)))


def deep_modules(depth: int, name: str = "a", num_tensors: int = 1) -> bytes:
    """The name is told once, and referred to at each depth."""
    first = tensor(size=(0,))
    made = module((text("_parameters"), dict_of(*((text(i), first) for i in range(num_tensors)))))
    reference = b"h\xff"
    for _ in range(depth):
        made = module((text("_modules"), dict_of((reference, made))))
    return checkpoint(text(name) + b"q\xff0" + made)


def colliding_keys(count: int) -> bytes:
    """Integers with the same hash, which Python computes modulo this prime: a dict of n of them takes n² steps."""
    return dict_of(*((number(i * (2**61 - 1)), b"N") for i in range(1, count)))


def module_in_itself() -> bytes:
    parts = [(text("_parameters"), dict_of((text("a"), tensor()))), (text("_modules"), dict_of((text("0"), b"h\x01")))]
    return checkpoint(new(CONV) + b"q\x01" + dict_of(*parts) + b"b")


WHOLE = tensor(size=(64,), numel=64)
SHARED = checkpoint(module((text("_parameters"), dict_of(*((text(f"w{i}"), WHOLE) for i in range(9))))))
TWO_TYPES = checkpoint(dict_of((text("a"), tensor()), (text("b"), tensor(kind="IntStorage"))))
GREEDY = {
    "one storage for many parameters": (SHARED, 256, "tensors overlap: together they are larger than what the file"),
    "one storage of two types": (TWO_TYPES, 4, "storage '0' is of two types"),
    "a module that contains itself": (module_in_itself(), 4, r"its module 0\. occurs twice, or too deep"),
    "a tensor larger than its storage": (parameter(tensor(size=(10**12,))), 4, "damaged"),
    "a parameter that repeats its storage": (parameter(tensor((10**12,), (0,))), 4, "tensors overlap"),
    "a state dict that repeats a storage": (state(tensor((10**13,), (0,), kind="HalfStorage")), 2, "overlap"),
    "anchors to be multiplied with one another": (
        state(tensor((10**6,), numel=10**6), "model.24.anchors"),
        4 * 10**6,
        r"model\.24\.anchors",
    ),
    "bins that repeat their storage": (state(tensor((10**13,), (0,)), "model.24.dfl.conv.weight"), 4, "overlap"),
    "very many bins": (state(tensor((0, 10**12, 1, 1), (0,) * 4), "model.24.dfl.conv.weight"), 4, r"model\.24\.dfl"),
    "one long name for many classes": (
        checkpoint(text("torch.nn") + b"\x94" + text("A" * 10**6) + b"\x94(" + b"h\x00h\x01\x93" * 1000 + b"l"),
        4,
        r"torch\.nn\.A+, ",
    ),
    "more dimensions than a tensor has": (parameter(tensor((1,) * 10**4, (1,) * 10**4)), 4, "shape|dimension"),
    "a storage of fewer elements": (parameter(tensor(numel=2)), 4, "'0' has 4 bytes instead of 2 torch.float32"),
    "a storage that is not there": (parameter(tensor(key="1")), 4, "storage '1' is missing"),
    "a storage of another folder": (parameter(tensor(key="../version", numel=1)), 4, "storage '../version' is missing"),
    "a long text that is not there": (checkpoint(b"\x8d" + struct.pack("<Q", 2**62)), 4, "damaged"),
    "long bytes that are not there": (checkpoint(b"B" + struct.pack("<I", 2**32 - 1)), 4, "damaged"),
    "a long number": (checkpoint(b"\x8b" + struct.pack("<i", 2**31 - 1)), 4, "LONG4"),
    "a frame that is not there": (checkpoint(b"\x95" + struct.pack("<Q", 2**62)), 4, "damaged"),
    "nested tuples as a key": (checkpoint(dict_of((EMPTY + b"\x85" * 10**5, b"N"))), 4, "a tuple as the key of a dict"),
    "keys of one hash value": (checkpoint(colliding_keys(10)), 4, "key of a dict"),
    "thousands of nested modules": (deep_modules(5000), 4, "too deep inside others"),
    "long names of nested modules": (deep_modules(45, "a" * 10**5, num_tensors=10), 4, "name|too"),
}


@contextlib.contextmanager
def bounded_memory(num_bytes: int):
    """Bounds Python's memory. PyTorch's is not counted; for sizes as large as here, it raises no UserError."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < num_bytes
    finally:
        tracemalloc.stop()


# Once in each format, unless they name no class of a module.
GREEDY_CASES = [(case, "yolov5") for case in GREEDY]
GREEDY_CASES += [
    (case, "yolov5u") for case, (pickled, *_) in GREEDY.items() if in_format("yolov5u", pickled) != pickled
]


@pytest.mark.parametrize(("case", "format"), GREEDY_CASES)
def test_greedy_files_get_nothing(case, format, tmp_path):
    pickled, num_bytes, message = GREEDY[case]
    path = write_archive(tmp_path / "greedy.pt", in_format(format, pickled), {"0": bytes(num_bytes)})
    with bounded_memory(16 * MIB + 4 * path.stat().st_size), pytest.raises(UserError, match=f"greedy.pt .*({message})"):
        read_weights(path)
    with bounded_memory(16 * MIB + 4 * path.stat().st_size):
        try:
            loaded = torch_load(path)  # as --resume does
        except UserError as error:
            assert "greedy.pt" in str(error)
        else:
            assert sum(t.nbytes for t in loaded["model"].values()) <= num_bytes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: torch.zeros(10**9, 10**3, device="meta"), "meta"),
        (lambda: torch.sparse_coo_tensor(torch.zeros(1, 1).long(), [1.0], (10**9,)), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8), "."),
        (lambda: torch.zeros(4, dtype=torch.complex64), "."),
        (lambda: np.zeros(3), "numpy"),
        (lambda: nn.Linear(2, 2), "Linear"),
        (lambda: torch.zeros(1).expand(10**12), "repeats its storage"),
        (lambda: {1, 2}, "set"),
        (lambda: torch.float32, "."),
    ],
)
def test_a_resumed_checkpoint_holds_nothing_but_plain_tensors_and_values(tmp_path, make, shown):
    torch.save({"model": {"a": torch.zeros(1)}, "trainer": make()}, tmp_path / "m.pth")
    with bounded_memory(16 * MIB), pytest.raises(UserError, match=rf"m\.pth are refused: the file asks for .*{shown}"):
        torch_load(tmp_path / "m.pth")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: state(list_of(*[b"N"] * n)),
        lambda n: checkpoint(dict_of(*((text(f"a{i}"), tensor(size=(0,), numel=1)) for i in range(n)))),
        lambda n: checkpoint(dict_of(*((number(i), b"N") for i in range(n)))),
        lambda n: checkpoint(module((text("names"), list_of(*[text("a")] * n)))),
        lambda n: checkpoint(text("a" * n)),
    ],
)
def test_twice_the_file_is_twice_the_work(tmp_path, measure_work, make):
    def measure(n):
        path = write_archive(tmp_path / f"{n}.pt", make(n), {"0": bytes(4)})

        def read():
            with contextlib.suppress(UserError):
                read_weights(path)

        return measure_work(read)[0]

    counts = [measure(n) for n in (500, 1000, 2000)]
    assert counts[2] - counts[1] <= 2.2 * (counts[1] - counts[0]) + 200


def test_a_large_memo_number_takes_no_memory(tmp_path):
    pickled = parameter(tensor() + b"r" + struct.pack("<I", 2**32 - 1))
    path = write_archive(tmp_path / "m.pt", pickled, {"0": bytes(4)})
    with bounded_memory(16 * MIB):
        weights = read_weights(path)
    assert list(weights.state_dict) == ["backbone.bottom_up.stem.conv.weight"]
