"""Read the classes from the ``categories`` of COCO-like jsons, for all tools; needs neither torch nor detectron2.

Names stay as they are stored. They are compared by :func:`~parking.utils.class_names.class_key`: two files whose names
differ only in hidden characters have the same classes, and no two classes of a data set look the same.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from parking.data.checking.findings import Finding
from parking.data.datasets.json_io import find_list, is_too_large_id, shorten
from parking.utils.class_names import class_key, shown_name


class Categories(NamedTuple):
    """The classes of a json.

    Attributes:
        names: by category id, in the order of the contiguous classes.
        findings: what is wrong with the json's ``categories``.
    """

    names: dict[int, str]
    findings: list[Finding]


class CategoryFacts(NamedTuple):
    """What a json says about its categories.

    Attributes:
        names: by category id, in the order of the ids.
        parents: the ``class_key`` of each category's ``supercategory``, by category id.
        used: the category ids that occur in the json's annotations.
        findings: what is wrong with single entries.
    """

    names: dict[int, str]
    parents: dict[int, str]
    used: set
    findings: list[Finding]


def read_categories(content: Mapping[str, Any]) -> Categories:
    """Return the classes of one json; see :func:`settle_categories`."""
    return settle_categories([collect_categories(content)])[0]


def collect_categories(content: Mapping[str, Any]) -> CategoryFacts:
    """Collect what a parsed json says about its categories."""
    entries, problem = find_list(content, "categories")
    used = _collect_used_ids(content)
    if problem or not entries:
        detail = problem or "'categories' is empty; list the classes of the data set there"
        return CategoryFacts({}, {}, used, [Finding("json_structure", "the json", detail)])
    names, parents, findings = {}, {}, []

    def note(kind: str, detail: str) -> None:
        findings.append(Finding(kind, "the json", detail))

    for entry in entries:
        if not isinstance(entry, dict) or "id" not in entry or "name" not in entry:
            note("json_structure", f"has the category {shorten(entry)}, which needs an 'id' and a 'name'")
            continue
        category_id, name = entry["id"], entry["name"]
        if type(category_id) is not int or is_too_large_id(category_id):
            note("json_structure", f"has the category id {shorten(category_id)}, which is not an integer of 64 bits")
        elif category_id in names:
            note("json_structure", f"has the category id {category_id} twice; each category needs an id of its own")
        elif type(name) in (int, float) and math.isfinite(name):
            names[category_id] = json.dumps(name)
            findings.append(Finding("class_name_number", f"category {category_id}", f"has the name {shorten(name)}"))
        elif not isinstance(name, str):
            note("json_structure", f"has the category {category_id} with the name {shorten(name)}, which is not a text")
        elif any("\ud800" <= c <= "\udfff" for c in name):
            detail = f"has the category {category_id} with half a character in its name '{shown_name(name)}'"
            note("json_structure", detail)
        else:
            names[category_id] = name
        parent = entry.get("supercategory")
        parents[category_id if type(category_id) is int else None] = class_key(parent) if type(parent) is str else ""
    return CategoryFacts(dict(sorted(names.items())), parents, used, findings)


def find_other_names(content: Mapping[str, Any], names: Mapping[int, str]) -> list[Finding]:
    """Find the categories that have another name in ``names`` (category id -> name) than in the json."""
    findings = []
    for category_id, own in collect_categories(content).names.items():
        name = names.get(category_id, own)
        if class_key(own) != class_key(name):
            detail = f"has the name '{shown_name(own)}', but is used as '{shown_name(name)}'"
            findings.append(Finding("class_name_other", f"category {category_id}", detail))
    return findings


def settle_categories(facts: Sequence[CategoryFacts]) -> list[Categories]:
    """Return the classes of jsons that are used together; the first json decides about their order and spelling.

    A category that has annotations in none of the jsons is left out if it only groups others (it is the
    ``supercategory`` of another category) or repeats the name of another. Two categories with the same name that both
    have annotations are an error. If the classes of a json differ from those of the first, it keeps
    its own classes, in the order of its own ids.
    """
    used = {(i, class_key(one.names[i])) for one in facts for i in one.used if i in one.names}
    settled = [_settle(one, used) for one in facts]
    first = {class_key(name): name for name in settled[0].names.values()} if settled else {}
    aligned = []
    for names, findings in settled:
        ids = {class_key(name): category_id for category_id, name in names.items()}
        if len(first) == len(settled[0].names) == len(names) and ids.keys() == first.keys():
            differing = sum(name != first[class_key(name)] for name in names.values())
            if differing:
                detail = f"spells {differing} class names unlike the first json, whose spelling is used"
                findings.append(Finding("class_name_differs", "the json", detail))
            names = {ids[key]: name for key, name in first.items()}
        aligned.append(Categories(names, findings))
    return aligned


def _settle(facts: CategoryFacts, used: set[tuple[int, str]]) -> Categories:
    findings = list(facts.findings)
    keys = {category_id: class_key(name) for category_id, name in facts.names.items()}
    unused = {category_id for category_id, key in keys.items() if (category_id, key) not in used}
    children = defaultdict(set)
    for category_id, parent in facts.parents.items():
        children[parent].add(category_id)
    groups = {i for i in unused if keys[i] and facts.parents[i] != keys[i]}
    groups = {i for i in groups if len(children[keys[i]]) > (i in children[keys[i]])}
    by_key = defaultdict(list)
    for category_id, key in keys.items():
        by_key[key].append(category_id)
    repeats, only_groups = {}, {}
    for ids in by_key.values():
        annotated = [i for i in ids if i not in unused]
        if len(annotated) > 1:
            first, second = (f"{i} ('{shown_name(facts.names[i])}')" for i in annotated[:2])
            detail = f"has the categories {first} and {second}, whose names look the same; rename one of them"
            findings.append(Finding("class_name_twice", "the json", detail))
        # If none of the categories with this name has annotations, keep one that is not a group, if possible.
        kept = annotated[0] if annotated else next((i for i in ids if i not in groups), ids[0])
        others = [i for i in ids if i != kept and i not in annotated]
        repeats |= dict.fromkeys(others, f"repeats the name of category {kept} and has no annotation")
        if kept in groups:
            only_groups[kept] = "only groups others and has no annotation"
    left_out = repeats | only_groups if len(repeats) + len(only_groups) < len(keys) else repeats
    for category_id, why in sorted(left_out.items()):
        name = shown_name(facts.names[category_id])
        findings.append(Finding("category_left_out", f"category {category_id}", f"({name}) {why}"))
    names = {i: name for i, name in facts.names.items() if i not in left_out}
    for category_id, name in names.items():
        if name != keys[category_id] or not name:
            detail = f"has the name '{shown_name(name)}', compared as '{shown_name(keys[category_id])}'"
            findings.append(Finding("class_name_unclear", f"category {category_id}", detail))
    return Categories(names, findings)


def _collect_used_ids(content: Mapping[str, Any]) -> set:
    annotations, _ = find_list(content, "annotations")
    # Ids of other types are reported when the annotations are inspected.
    ids = (entry.get("category_id") for entry in annotations if isinstance(entry, dict))
    return {i for i in ids if type(i) is int or (type(i) is float and i.is_integer())}
