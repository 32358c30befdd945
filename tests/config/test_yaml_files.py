import os

import pytest

from parking.config import get_cfg
from parking.config.yaml_files import ConfigFiles, parse_config, read_config_text
from parking.utils.errors import UserError
from parking.utils.limits import MAX_CONFIG_FILES


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_bases_are_merged_in_their_order(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub/a.yaml", "A: 1\nB: {C: 1, D: 1}\n")
    write(tmp_path / "b.yaml", "A: 2\nB: {D: 2}\n")
    path = write(tmp_path / "c.yaml", "_BASE_: [sub/a.yaml, b.yaml]\nB: {E: 3}\n")
    assert ConfigFiles().load(path) == {"A": 2, "B": {"C": 1, "D": 2, "E": 3}, "VERSION": 3}
    write(tmp_path / "b.yaml", "B: 2\n")
    with pytest.raises(UserError, match=r"c\.yaml: B is a mapping"):
        ConfigFiles().load(path)


def test_bases_that_fan_out_are_read_a_bounded_number_of_times(tmp_path, monkeypatch):
    # Twenty files of a few bytes would be read a million times.
    for i in range(20):
        write(tmp_path / f"{i}.yaml", f"_BASE_: [{i + 1}.yaml, {i + 1}.yaml]\n")
    write(tmp_path / "20.yaml", "SEED: 1\n")
    read = []
    monkeypatch.setattr(
        "parking.config.yaml_files.read_config_text", lambda name: read.append(name) or read_config_text(name)
    )
    with pytest.raises(UserError, match=f"more than {MAX_CONFIG_FILES} files"):
        ConfigFiles().load(str(tmp_path / "0.yaml"))
    assert len(read) == MAX_CONFIG_FILES + 1


def test_a_long_chain_of_bases_ends_in_a_sentence(tmp_path):
    for i in range(2000):
        write(tmp_path / f"{i}.yaml", f"_BASE_: {i + 1}.yaml\n")
    with pytest.raises(UserError, match=f"more than {MAX_CONFIG_FILES} files"):
        ConfigFiles().load(str(tmp_path / "0.yaml"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A: " + "[" * 100_000, "nested deeper"),
        ("SEED: " + "1" * 9000, "integer string conversion"),
        ("A: " + "{a: " * 100_000, "nested deeper"),
        ("- " * 50_000, "nested deeper"),
        ("A: &a [1]\nB: *a\n", r"aliases \(\*a\)"),
        ("SEED: 1\nSEED: 2\n", "SEED occurs twice"),
        ("SOLVER: {MAX_ITER: 1, MAX_ITER: 2}\n", "MAX_ITER occurs twice"),
    ],
    ids=lambda text: text[:10],
)
def test_what_is_refused_in_yaml(text, word, measure_work):
    def parse():
        with pytest.raises(UserError, match=word):
            parse_config(text, "c.yaml")

    # Text that is nested too deep is not read to its end.
    assert measure_work(parse)[0] < 100_000


def test_other_files_under_the_name_of_a_config(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zip.yaml").write_bytes(b"PK\3\4" + bytes(100))
    (tmp_path / "utf16.yaml").write_bytes("SEED: 1\n".encode("utf-16"))
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(10**10)
    for name, word in [("fifo", "FIFO"), ("zip", "zip"), ("utf16", "UTF-16"), ("sparse", "10,000,000,000")]:
        for path in (f"{name}.yaml", write(tmp_path / "based.yaml", f"_BASE_: {name}.yaml\n")):
            with pytest.raises(UserError, match=rf"{name}\.yaml.*{word}"):
                get_cfg().merge_from_file(str(tmp_path / path))
    with pytest.raises(UserError, match="device"):
        get_cfg().merge_from_file("/dev/zero")
