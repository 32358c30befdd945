"""Files that are damaged, cut off, larger than they look or of another kind: always one sentence, never a traceback."""

import gzip
import io
import pickle
import random
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from parking.checkpoint import Weights, read_weights, tensor_archive
from parking.checkpoint import weights as weights_module
from parking.utils.errors import UserError

MIB = 2**20
SUFFIXES = (".pt", ".pth")


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path) -> Path:
    """Where a test writes the file that it reads, with either ending of PyTorch's files."""
    return tmp_path / f"m{request.param}"


HEADS = {
    "yolov5": {"model.24.anchors": torch.ones(3, 3, 2)},
    "yolov5u": {
        "model.24.cv2.0.2.bias": torch.ones(64),
        "model.24.dfl.conv.weight": torch.arange(16.0).view(1, -1, 1, 1),
    },
}


@pytest.fixture(scope="module", params=HEADS)
def sound_file(request, tmp_path_factory) -> Path:
    """A small state dict in a published layout."""
    path = tmp_path_factory.mktemp("sound") / "sound.pt"
    state = {
        "model.0.conv.weight": torch.arange(12.0).view(3, 4).half(),
        "model.0.bn.num_batches_tracked": torch.tensor(7),
        **HEADS[request.param],
    }
    torch.save({"model": state, "epoch": -1, "names": ["a", "b"], "train_args": {"lr0": 0.01}, "date": "today"}, path)
    assert read_weights(path).family.name.lower() == request.param
    return path


def read_parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def write_parts(path: Path, parts: dict[str, bytes], compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def refused_or_sound(path: Path) -> bool:
    """Whether it was read; any exception but a UserError fails the test."""
    try:
        weights = read_weights(path)
    except UserError:
        return False
    assert type(weights) is Weights
    for tensor in weights.state_dict.values():
        tensor.clone()
    return True


def test_cut_off_anywhere(sound_file, path):
    whole = sound_file.read_bytes()
    for length in (*range(0, 64), *range(64, len(whole), 31), *range(len(whole) - 64, len(whole))):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{path.name} cannot be read"):
            read_weights(path)


def read_with_a_wrong_bit(path: Path, whole: bytes, count: int) -> None:
    """Read it ``count`` times, with another bit wrong each time."""
    rng = random.Random(0)
    for _ in range(count):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        refused_or_sound(path)


def test_a_wrong_byte_anywhere(sound_file, path):
    read_with_a_wrong_bit(path, sound_file.read_bytes(), 150)


def test_a_wrong_byte_that_the_checksum_does_not_show(sound_file, path):
    parts = read_parts(sound_file)
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    rng = random.Random(0)
    num_read = 0
    for _ in range(300):
        damaged = bytearray(parts[pickled])
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        num_read += refused_or_sound(write_parts(path, {**parts, pickled: bytes(damaged)}))
    assert 0 < num_read < 300, "some changes matter, and some (of a number, say) do not"


def make_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"0000"))


def make_torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


OTHER_ORDER = b"big" if sys.byteorder == "little" else b"little"
ONE = torch.zeros(1)
#: By kind: what is in the file (bytes; a dict of the parts of a zip; what torch.save is given, in a list; or a function
#: that writes the file), and what the message must say.
OTHER_FILES = {
    "empty": (b"", "it is empty"),
    "text": (b"weights\n", "file of torch.save"),
    "the start of a zip": (b"PK\x03\x04broken", "cannot be read"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a web page": (b"\n<!DOCTYPE html><title>Not Found</title>", "web page"),
    "json": (b'{"a": 1}', "json or yaml"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(300), "ONNX"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "gzip": (gzip.compress(b"abc"), "gzip; unpack"),
    "a pickle": (pickle.dumps({"model": {"a": np.zeros(3)}}), "bare pickle"),
    "safetensors": (safetensors.torch.save({"a": torch.zeros(3)}), "safetensors file; give it"),
    "a packed file": ({"best.pt": b"1"}, "zip file with weights"),
    "before PyTorch 1.6": (
        lambda path: torch.save({"a": ONE}, path, _use_new_zipfile_serialization=False),
        "the format of PyTorch before 1.6",
    ),
    "tar": (make_tar, "cannot be read: it is "),
    "TorchScript": (make_torchscript, "TorchScript"),
    "image": (lambda path: Image.new("RGB", (8, 8)).save(path, "PNG"), "picture"),
    "numpy": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), "it has no data.pkl"),
    "a zip without data.pkl": ({"a/version": b"3"}, "it has no data.pkl in one folder"),
    "data.pkl deep inside": ({"a/b/data.pkl": b"N."}, "no data.pkl in one folder"),
    "data.pkl twice": (
        {"a/data.pkl": b"N.", "b/data.pkl": b"N."},
        r"cannot be read: it is a zip file, but not one that torch\.save",
    ),
    "another byte order": ({"a/data.pkl": b"N.", "a/byteorder": OTHER_ORDER}, "another byte order"),
    "a list": ([[ONE]], "hold a list, not a checkpoint"),
    "a module": ([nn.Linear(1, 1)], r"hold a torch\.nn\.modules\.linear\.Linear"),
    "a tensor": ([ONE], "hold a Tensor, not a checkpoint"),
    "other values": ([{"model": {"a": 1}}], "hold no model"),
    "nothing": ([{}], "hold no model"),
    "numbers as names": ([{"model": {0: ONE}}], "hold no model"),
    "a module that is none of ours": (
        [{"model": nn.Linear(2, 2)}],
        "cannot be used: its tensor weight belongs to no YOLOv5",
    ),
    "a module without tensors": ([{"model": nn.ReLU()}], "no model|no tensor"),
    "published names of other layers": (
        [{"model.99.conv.weight": ONE}],
        r"its tensor model\.99\.conv\.weight belongs to no YOLOv5",
    ),
    "YOLOX, another backbone": (
        [{"model": {"head.cls_preds.0.weight": ONE, "backbone.backbone.dark1.0.weight": ONE.clone()}}],
        r"its tensor backbone\.backbone\.dark1\.0\.weight belongs to no YOLOX",
    ),
    "YOLOX, another stem": (
        [{"model": {"backbone.backbone.stem.conv.conv.weight": torch.zeros(8, 3, 6, 6)}}],
        r"stem\.conv\.conv\.weight has shape \(8, 3, 6, 6\)",
    ),
    "YOLOX, a single number": (
        [{"model": {"backbone.backbone.stem.conv.conv.weight": torch.tensor(1.0)}}],
        "has shape",
    ),
    "YOLOX, norms folded": (
        [{"model": {"backbone.backbone.dark2.0.conv.bias": ONE}}],
        r"norms are folded .*dark2\.0\.conv\.bias",
    ),
    "YOLOX, not a number": ([{"model": {"head.cls_preds.0.bias": ONE / 0}}], r"class_predictors\.0\.bias .*NaN"),
    "YOLOX, under two names": (
        [{"model": {"head.cls_preds.0.bias": ONE, "module.head.cls_preds.0.bias": ONE.clone()}}],
        "differ only by a part 'module'",
    ),
    "ours, norms folded": ([{"backbone.bottom_up.stem.conv.bias": ONE}], r"norms are folded .*bottom_up\.stem"),
    "published, norms folded": (
        [{"model.0.conv.weight": ONE, "model.0.conv.bias": ONE.clone()}],
        r"norms are folded .*model\.0\.conv\.bias",
    ),
    "a single number for anchors": ([{"model.24.anchors": torch.tensor(1.0)}], r"model\.24\.anchors"),
    "a row of anchors": ([{"model.24.anchors": torch.ones(3)}], r"model\.24\.anchors"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files(path, kind):
    content, message = OTHER_FILES[kind]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        write_parts(path, content)
    elif isinstance(content, list):
        torch.save(*content, path)
    else:
        content(path)
    with pytest.raises(UserError, match=rf"^weights .*{path.name}.*({message})"):
        read_weights(path)


def test_compressed_parts(path, measure_work):
    # 64 MiB of zeros in a file of less than 100 kB.
    write_parts(path, {"a/data.pkl": b"N.", "a/data/0": bytes(64 * MIB)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000

    def read():
        with pytest.raises(UserError, match=r"cannot be read: its part 'a/data.pkl' is compressed"):
            read_weights(path)

    assert measure_work(read)[1] < 4 * MIB


def directory_entries(data: bytearray) -> list[int]:
    """Where the entries of the zip's directory start."""
    return [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]


def test_parts_larger_than_the_file(sound_file, path):
    data = bytearray(sound_file.read_bytes())
    for entry in directory_entries(data):
        struct.pack_into("<II", data, entry + 20, 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(UserError, match="its parts claim to be larger than the file"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".safetensors"])
def test_more_than_the_memory_holds(sound_file, tmp_path, suffix, monkeypatch):
    """A sparse file of many GB takes no room on the disk."""
    path = tmp_path / f"m{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file({"a": torch.zeros(10**6)}, path)
    else:
        shutil.copy(sound_file, path)
    read_weights(path)
    for module in (tensor_archive, weights_module):
        monkeypatch.setattr(module, "available_memory", lambda: 20)
    with pytest.raises(UserError, match=r"GB of memory, and 0\.0 GB are free"):
        read_weights(path)


def test_a_description_of_absurd_size(sound_file, path, monkeypatch):
    shutil.copy(sound_file, path)
    monkeypatch.setattr(tensor_archive, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(UserError, match=r"its description of the tensors has \d+ bytes, which is absurd"):
        read_weights(path)


class TestSafetensors:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file({"a": torch.arange(3.0)}, path, {"format": "pt", "class_names": '["x"]'})
        assert read_weights(path).class_names == ["x"]
        return path

    def test_cut_off_anywhere(self, path):
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(UserError, match=r"m\.safetensors cannot be read"):
                read_weights(path)

    def test_a_wrong_byte_anywhere(self, path):
        read_with_a_wrong_bit(path, path.read_bytes(), 200)

    @pytest.mark.parametrize("length", [0, 10**6, 2**64 - 1])
    def test_a_header_of_another_length(self, path, length):
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
        with pytest.raises(UserError, match="cannot be read"):
            read_weights(path)

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', "cannot be read"),
            ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', "cannot be read"),
            ("[]", "cannot be read"),
            ("{}", "cannot be read|hold no model"),
            ("[" * 100_000, "cannot be read"),
        ],
    )
    def test_a_hostile_header(self, path, header, message):
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
        with pytest.raises(UserError, match=message):
            read_weights(path)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("class_names", "{", "cannot be read"),
            ("class_names", '"car"', "their class_names are not a list of str"),
            ("category_ids", '["1"]', "their category_ids are not a list of int"),
            ("category_ids", "[1, 2]", "unequal numbers of class names and category ids"),
            ("config", '"SEED: !!python/name:os.system"', "their config is not a mapping"),
            ("config", "[]", "their config is not a mapping"),
            ("origin", "7", "their origin is not a mapping"),
            ("config", "[" * 100_000, "cannot be read"),
            ("config", "9" * 10_000, "cannot be read"),
        ],
    )
    def test_hostile_metadata(self, path, key, value, message):
        safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"class_names": '["x"]', key: value})
        with pytest.raises(UserError, match=message):
            read_weights(path)

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            (None, r"\.safetensors file.*\.pt"),
            (zlib.compress(bytes(100)), r"\.safetensors file"),
            (b"<!DOCTYPE html>" + b" " * 100, "web page"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ],
    )
    def test_another_file_under_that_ending(self, sound_file, path, content, word):
        path.write_bytes(sound_file.read_bytes() if content is None else content)
        with pytest.raises(UserError, match=word):
            read_weights(path)
