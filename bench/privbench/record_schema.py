"""The JSON Schema of records, from the code that reads them."""

from __future__ import annotations

import json

from privbench.record import SCHEMA_VERSION, Record


def schema_text() -> str:
    """JSON Schema (2020-12) of an identification or inversion record, as stable text."""
    body = Record.model_json_schema()
    body |= {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"privbench record, schema {SCHEMA_VERSION}",
    }
    body["properties"]["schema_version"] |= {"const": SCHEMA_VERSION}
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
