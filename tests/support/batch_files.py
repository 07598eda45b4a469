"""Small batch files, and results as they stand in journals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupmix.batch.columns import Columns
from soupmix.batch.inputs import InputFile, open_input
from soupmix.batch.line import CHAT

REFUSED: dict[str, Any] = {
    "response": {"status_code": 403, "body": {}},
    "error": {"code": "refused-by-rule", "message": "not for minors"},
}


def source(path: Path, *columns: str, limit: int = 2048) -> InputFile:
    return open_input(path, path.with_name("out.jsonl"), Columns.parse(columns, limit=limit, model="tiny"))


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def good(custom_id: str = "a", url: str = CHAT, **body: object) -> dict[str, object]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def result(answer: str, granted: Mapping[str, str]) -> dict[str, Any]:
    body = {"choices": [{"message": {"content": answer}}], "soup": {"granted": dict(granted)}}
    return {"response": {"status_code": 200, "body": body}, "error": None}
