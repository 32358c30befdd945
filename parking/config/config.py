"""The config object: a ``CfgNode`` that runs no code from yaml, fetches nothing, and explains mistakes."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode as _CfgNode

from parking.utils.constants import HEAD_GROUPS
from parking.utils.errors import UserError
from parking.utils.text import printable, show

from .checks import find_value
from .compat import upgrade_config, upgrade_key
from .defaults import make_defaults
from .plain import flatten
from .yaml_files import ConfigFiles


class CfgNode(_CfgNode):
    """detectron2's ``CfgNode`` with these differences:

    1. yaml tags never run code (detectron2 defaults to ``allow_unsafe=True``), and a value that contains ``://`` is
       refused, because other code might open this address.
    2. A key whose default is a float accepts an int.
    3. Keys of older versions are translated (``compat.py``).
    4. An unknown key, a value of the wrong type or an unreadable file raises a :class:`UserError`, which names the file
       or key; for an unknown key, it suggests the most similar one.
    """

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a yaml file and its ``_BASE_`` files; detectron2's argument ``allow_unsafe`` must be False."""
        if allow_unsafe:
            raise ValueError("yaml that runs code is never loaded here")
        loaded = ConfigFiles().load(os.fspath(cfg_filename))
        self.merge_from_dict(loaded, source=f"config file {printable(cfg_filename)}")

    def merge_from_list(self, cfg_list: list[str]) -> None:
        """Merge ``[KEY, VALUE, KEY, VALUE, ...]`` from a command line."""
        if len(cfg_list) % 2:
            raise UserError(f"command line: KEY VALUE pairs are expected, and {cfg_list[-1]!r} has no value.")
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            self.merge_from_dict(nested, source="command line")
        self._refuse_keys_of_other_heads(typed_keys(cfg_list))

    def _refuse_keys_of_other_heads(self, keys: Iterable[str]) -> None:
        # Refuse only keys of the command line: files may inherit keys of another head from their _BASE_.
        head = self.MODEL.HEAD.NAME
        readers = {f"MODEL.{group}.": name for name, group in HEAD_GROUPS.items() if name != head}
        for key in sorted(keys) if head in HEAD_GROUPS else ():
            reader = next((name for prefix, name in readers.items() if key.startswith(prefix)), None)
            if reader:
                raise UserError(
                    f"command line: {key} is read by {reader} only, and MODEL.HEAD.NAME is {head}; leave it out."
                )

    def merge_from_dict(self, loaded: Mapping[str, Any], *, source: str) -> None:
        """Merge nested plain values; translate keys of older versions.

        Args:
            source: words for error messages that say where the values come from.
        """
        if isinstance(loaded, Mapping):
            loaded = upgrade_config(loaded, source)
        self._merge(loaded, self, (), source)

    def _merge(self, loaded: Mapping[str, Any], root: "CfgNode", path: tuple[str, ...], source: str) -> None:
        if not isinstance(loaded, Mapping):
            place = ".".join(path) or "the top level"
            raise UserError(f"{source}: {place} must be a mapping of keys, not of type {type(loaded).__name__}.")
        for key, value in loaded.items():
            full_key = ".".join((*path, key if isinstance(key, str) else show(key)))
            if key not in self:
                raise UserError(f"{source}: there is no config key {full_key}; {_suggest(full_key, root)}")
            old = self[key]
            if isinstance(old, CfgNode):
                old._merge(value, root, (*path, key), source)
                continue
            value = self._decode(value, old, full_key, source)
            if type(value) is not type(old):
                raise UserError(
                    f"{source}: {full_key} must be of type {type(old).__name__}, such as {old!r}, not {show(value)}."
                )
            self[key] = value

    def _decode(self, value: Any, old: Any, full_key: str, source: str) -> Any:
        try:
            value = self._decode_cfg_value(value)
            if (type(old), type(value)) in ((float, int), (list, tuple), (tuple, list)):
                value = type(old)(value)
        except (TypeError, MemoryError, RecursionError, OverflowError) as e:
            raise UserError(f"{source}: {full_key} cannot be read ({type(e).__name__}); write a plain value.") from e
        if address := _find_address(value):
            raise UserError(f"{source}: {full_key} holds an address ({address[:100]!r}); only local files are read.")
        return value


def _find_address(value: Any) -> str | None:
    if isinstance(value, str):
        return value if "://" in value else None
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value
    return next(filter(None, map(_find_address, parts)), None) if isinstance(parts, list | tuple | set) else None


def _suggest(full_key: str, root: CfgNode) -> str:
    candidates = [key for key, _ in flatten(root)]
    near = difflib.get_close_matches(full_key, candidates, n=1, cutoff=0.6)
    if not near:
        by_name = {c.rsplit(".", 1)[-1]: c for c in candidates}
        near = [by_name[n] for n in difflib.get_close_matches(full_key.rsplit(".", 1)[-1], by_name, n=1)]
    return f"did you mean {near[0]}?" if near else "parking/config/defaults.py lists them."


def get_typed(opts: Sequence[str], key: str) -> Any:
    """Return the value of ``key`` on the command line, in the key's type; None if the command line lacks the key.

    Args:
        opts: KEY VALUE pairs of a command line. If they give several values for ``key``, the last one counts, as in
            :meth:`CfgNode.merge_from_list`. Other keys are not checked.
        key: full name of a key of the default config.

    Raises:
        UserError: a value for ``key`` is wrong.
    """
    typed = [text for pair in zip(opts[0::2], opts[1::2], strict=False) if upgrade_key(pair[0]) == key for text in pair]
    if not typed:
        return None
    cfg = get_cfg()
    cfg.merge_from_list(typed)
    return find_value(cfg, key)


def typed_keys(opts: Sequence[str]) -> set[str]:
    """Return the keys of KEY VALUE pairs, with names of older versions translated to today's."""
    return {upgrade_key(key) for key in opts[0::2]}


def get_cfg() -> CfgNode:
    """Return a new config with the defaults."""
    return CfgNode(make_defaults())
