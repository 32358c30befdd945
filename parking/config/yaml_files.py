"""Read config files: plain yaml of limited size, merged with the files that ``_BASE_`` names."""

import os
from typing import Any, NoReturn

import yaml

from parking.utils.errors import UserError
from parking.utils.files import UnusableFileError
from parking.utils.limits import MAX_CONFIG_BYTES, MAX_CONFIG_DEPTH, MAX_CONFIG_FILES
from parking.utils.text import printable
from parking.utils.text_files import read_text_file

from .compat import upgrade_config

_BASE = "_BASE_"
_MERGE_KEY = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """A safe yaml loader that also refuses aliases, merge keys, deep nesting, and repeated keys of a mapping.

    With aliases and merge keys, a few lines could expand to any number of values; deep nesting could exhaust the stack;
    and if a key is repeated, yaml would silently use its last value.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            _refuse(f"aliases (*{event.anchor}) are not supported, write it out", event)
        self._depth += 1
        if self._depth > MAX_CONFIG_DEPTH:
            _refuse(f"lists and mappings are nested deeper than {MAX_CONFIG_DEPTH}", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.tag == _MERGE_KEY:
                _refuse("merge keys (<<) are not supported, write the keys out", key)
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                _refuse(f"the key {key.value} occurs twice", key)
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def _refuse(problem: str, where: yaml.Event | yaml.Node) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


class ConfigFiles:
    """Reads a config file and its ``_BASE_`` files, whose number and total size are limited."""

    def __init__(self):
        self._num_files = self._num_bytes = 0

    def load(self, filename: str) -> Any:
        """Read a file and its ``_BASE_`` files and merge them; values in the file override those in ``_BASE_`` files.

        The files may be of different versions; the returned keys have today's names.

        Raises:
            UserError: a file cannot be read or is not plain yaml in UTF-8, or a limit is exceeded.
        """
        content = self._read(filename)
        if not isinstance(content, dict):
            return content
        content = upgrade_config(content, f"config file {printable(filename)}")
        if _BASE not in content:
            return content
        bases = content.pop(_BASE)
        merged: dict = {}
        for base in bases if isinstance(bases, list) else [bases]:
            if not isinstance(base, str):
                raise UserError(f"config file {printable(filename)}: _BASE_ must be a path or a list of paths.")
            path = _find_base(filename, base)
            loaded = self.load(path)
            if not isinstance(loaded, dict):
                raise UserError(f"config file {printable(path)} does not hold a mapping of config keys; see configs/.")
            _merge(loaded, merged, path)
        _merge(content, merged, filename)
        return merged

    def _read(self, filename: str) -> Any:
        text = read_config_text(filename)
        self._num_files += 1
        self._num_bytes += len(text)
        if self._num_files > MAX_CONFIG_FILES or self._num_bytes > MAX_CONFIG_BYTES:
            raise UserError(
                f"config file {printable(filename)}: _BASE_ leads to more than {MAX_CONFIG_FILES} files or "
                f"{MAX_CONFIG_BYTES:,} bytes, or back to a file that names it; use fewer."
            )
        return parse_config(text, filename)


def read_config_text(filename: str) -> str:
    """Read the text of a config file; raise a UserError if it cannot be read or is not text."""
    if "://" in filename:
        raise UserError(f"config file {printable(filename)}: addresses are not opened; give the path of a local file.")
    try:
        return read_text_file(filename, max_bytes=MAX_CONFIG_BYTES)[0]
    except UnusableFileError as e:
        raise UserError(f"config file {printable(filename)} {e.detail}.") from e


def parse_config(text: str, filename: str) -> Any:
    """Parse yaml to plain values; raise a UserError if ``text`` is not plain yaml."""
    name = printable(filename)
    try:
        return yaml.load(text, Loader=_Loader)  # safe, because _Loader is a subclass of SafeLoader
    except yaml.YAMLError as e:
        raise UserError(f"config file {name} is not plain yaml: {' '.join(str(e).split())}") from e
    # PyYAML also raises other errors, such as a ValueError for a text that looks like a date but is not one.
    except Exception as e:
        raise UserError(
            f"config file {name} does not hold a mapping of config keys in UTF-8: {e}; see configs/."
        ) from e


def _find_base(filename: str, base: str) -> str:
    if "://" in base:
        return base  # read_config_text will raise an error that names this address
    return os.path.join(os.path.dirname(filename), os.path.expanduser(base))


def _merge(new: dict, into: dict, filename: str) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and key in into:
            if not isinstance(into[key], dict):
                raise UserError(f"config file {printable(filename)}: {key} is a mapping, but a value in its _BASE_.")
            _merge(value, into[key], filename)
        else:
            into[key] = value
