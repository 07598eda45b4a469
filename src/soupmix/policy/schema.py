"""The JSON Schema of a policy document, for editors and other tools."""

from typing import Any

from soupmix.policy.documents import Document

__all__ = ["document_schema"]


def document_schema() -> dict[str, Any]:
    """The schema of a document as people write it; numbers may be text, as soupmix reads every scalar as text."""
    made = Document.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "soupmix policy document"} | {
        key: value for key, value in made.items() if key != "title"
    }
