"""The JSON Schema of records, from the code that reads them."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from privbench.audit_record import MembershipRecord
from privbench.record import SCHEMA_VERSION, Record


def schema_text() -> str:
    """JSON Schema (2020-12) of a record of either kind, as stable text."""
    body = TypeAdapter(Record | MembershipRecord).json_schema()
    for kind in (Record, MembershipRecord):
        fields = body["$defs"][kind.__name__]
        fields["properties"]["schema_version"] |= {"const": SCHEMA_VERSION}
        if kind is MembershipRecord:  # what tells them apart
            fields["required"] = sorted({*fields["required"], "task"})
    body |= {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"privbench record, schema {SCHEMA_VERSION}",
    }
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
