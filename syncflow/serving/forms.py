"""A request's fields and its file, from a form or from JSON."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from syncflow.json_types import JsonObject

#: The field of the file.
UPLOAD = "input_reference"


async def fields_of(request: Request) -> tuple[JsonObject, UploadFile | None]:
    """A request's fields, from a form or from JSON, and its file."""
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            found = await request.json()
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise HTTPException(400, "the body must be a JSON object")
        if UPLOAD in found:
            raise HTTPException(400, f"{UPLOAD} must be an uploaded file, not an address")
        return found, None
    form = await request.form(max_files=1, max_fields=32)
    upload = form.get(UPLOAD)
    if upload is not None and isinstance(upload, str):
        raise HTTPException(400, f"{UPLOAD} must be an uploaded file, not text")
    for key in form:
        if f"{key}[]" in form:
            both = f"{key!r:.80} and {key + '[]'!r:.80}"
            raise HTTPException(400, f"one field is given in two ways, {both}: leave one out")
    fields: JsonObject = {}
    for key, value in form.multi_items():
        if key.endswith("[]"):  # how OpenAI's client writes a list
            fields.setdefault(key[:-2], []).append(value)
        elif key != UPLOAD:
            fields[key] = value
    return fields, upload


async def kept(upload: UploadFile | None, folder: Path) -> Path | None:
    """An upload as a file with a name of ours: what the client calls it is not used."""
    if upload is None:
        return None
    path = folder / "given"
    with open(path, "wb") as file:
        while chunk := await upload.read(1 << 20):
            file.write(chunk)
    return path
