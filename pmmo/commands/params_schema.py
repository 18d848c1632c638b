"""The JSON Schema of params.yaml, from the rules that check it: editors complete and check by it.

What no schema can say stays with `load_params`: the form of an address, a source that DVC deletes,
a setting that no layer gives, a reference that is no row, and that 3.0 is no whole number.
"""

import json
from typing import Any

from pmmo.config.engine import ADDRESS, GPU_SHARE_RULE, LOCAL, RAY
from pmmo.config.settings import LARGEST, SMALLEST, SYSTEMS, Rule, tunable
from pmmo.params import (
    AUTO,
    DATA_RULES,
    FOLLOWING,
    HASHED_COLUMNS,
    IN_FILE,
    LONGEST_LABEL,
    LONGEST_SOURCE,
    MOST_MIRRORS,
    REPORT_RULES,
    ROW_NAME,
    SCALE_RULE,
    SCALES,
    SHA256,
    TAKEN,
    UNITS_RULE,
    WIDTHS,
)

Schema = dict[str, Any]
NUMBER: Schema = {  # one that a 32-bit float holds: neither 0, unless it is, nor infinite
    "type": "number",
    "minimum": -LARGEST,
    "maximum": LARGEST,
    "not": {
        "anyOf": [
            {"exclusiveMinimum": 0, "exclusiveMaximum": SMALLEST},
            {"exclusiveMinimum": -SMALLEST, "exclusiveMaximum": 0},
        ]
    },
}
SOURCE: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_SOURCE}


def params_schema() -> str:
    return json.dumps(of_file(), indent=1, ensure_ascii=False)


def of_file() -> Schema:
    settings = {key: of_setting(key, *setting) for key, setting in tunable().items()}
    top = {
        "scale": of_rule(SCALE_RULE),
        "reference": pattern(ROW_NAME.pattern),
        "engine": {"anyOf": [{"enum": [LOCAL, RAY]}, pattern(ADDRESS.pattern)]},
        "gpu_share": of_rule(GPU_SHARE_RULE),
        "system": ref("system"),
        **{key: or_auto(ref(key), settings[key]) for key in settings if key != "system"},
        "data": of_data(),
        **{name: block(of_rules(rules)) for name, rules in REPORT_RULES.items()},
        "scales": block({scale: ref("sizes") for scale in SCALES}),
        "systems": block({system: ref(f"{system}_settings") for system in SYSTEMS}),
        "variants": {
            "type": "object",
            "propertyNames": pattern(ROW_NAME.pattern) | {"not": {"enum": list(TAKEN)}},
            "additionalProperties": of_variant(),
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "params.yaml of pmmo",
        "description": "Written by `python -m pmmo params --schema`; tests compare the two.",
        **block(top),
        "allOf": [if_system(system, {"properties": not_of(system)}) for system in SYSTEMS],
        "definitions": {
            "number": NUMBER,
            **settings,
            **{f"{system}_settings": block(of_system(system), []) for system in SYSTEMS},
            "sizes": of_scale(),
        },
    }


def of_rule(rule: Rule) -> Schema:
    """The values that the rule allows, in the rule's own words."""
    bounds = {
        "minimum": rule.low,
        "maximum": rule.high,
        "exclusiveMinimum": rule.above,
        "exclusiveMaximum": rule.below,
    }
    number: Schema = {"type": "integer"} if rule.kind is int else {"allOf": [ref("number")]}
    number |= {key: bound for key, bound in bounds.items() if bound is not None}
    names: Schema = {"enum": list(rule.choices)}
    kinds = [names] * bool(rule.choices) + [number] * (rule.kind is not None)
    return (kinds[0] if len(kinds) == 1 else {"anyOf": kinds}) | {"description": str(rule)}


def of_rules(rules: dict[str, Rule]) -> dict[str, Schema]:
    return {key: of_rule(rule) for key, rule in rules.items()}


def of_setting(key: str, rule: Rule, systems: tuple[str, ...]) -> Schema:
    schema = of_rule(IN_FILE.get(key, rule))
    if systems != SYSTEMS:
        schema["description"] += f" (systems: {', '.join(systems)})"
    return schema


def of_system(system: str) -> dict[str, Schema]:
    """Its settings."""
    return {
        key: ref(key)
        for key, (_, systems) in tunable().items()
        if system in systems and key != "system"
    }


def not_of(system: str) -> dict[str, Schema]:
    """What stays `auto` at the top of the file while that system is under study."""
    return {
        key: {"const": AUTO}
        for key, (_, systems) in tunable().items()
        if system not in systems and key not in FOLLOWING
    }


def of_data() -> Schema:
    rows, sha256 = of_rule(DATA_RULES["rows"]), pattern(f"{SHA256.pattern}|")
    return block(
        {
            "source": SOURCE,
            **of_rules(DATA_RULES),
            "rows": or_auto(rows, rows),
            "mirrors": {"type": "array", "maxItems": MOST_MIRRORS, "items": SOURCE},
            "sha256": block(dict.fromkeys(HASHED_COLUMNS, sha256)),
        }
    )


def of_scale() -> Schema:
    every = {key: ref(key) for key in tunable() if key != "system"}
    needed: dict[str, Schema] = {
        "data": block({"source": SOURCE, "rows": of_rule(DATA_RULES["rows"])}),
        "widths": block(dict.fromkeys(WIDTHS, of_rule(UNITS_RULE))),
        "all": block(every, []),
    }
    own = {s: {"anyOf": [ref(f"{s}_settings"), {"type": "null"}]} for s in SYSTEMS}
    return block(needed | own, list(needed))


def of_variant() -> Schema:
    label = {"type": "string", "minLength": 1, "maxLength": LONGEST_LABEL}
    named = {"label": label, "system": ref("system")}
    rows = [if_system(s, block(named | of_system(s), [])) for s in SYSTEMS]
    needed = ["label", "system", "width"]
    return {"type": "object", "required": needed, "properties": named, "allOf": rows}


def block(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    """A mapping of these keys, all of them unless `required` names fewer, and no others."""
    return {
        "type": "object",
        "required": list(properties) if required is None else required,
        "properties": properties,
        "additionalProperties": False,
    }


def if_system(system: str, then: Schema) -> Schema:
    chosen = {"required": ["system"], "properties": {"system": {"const": system}}}
    return {"if": chosen, "then": then}


def or_auto(schema: Schema, described: Schema) -> Schema:
    words = f"{AUTO}, {described['description']}"
    return {"anyOf": [schema, {"const": AUTO}], "description": words}


def pattern(whole: str) -> Schema:
    """Text that matches as a whole; JavaScript has other named groups."""
    return {"type": "string", "pattern": f"^({whole.replace('?P<port>', '')})$"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
