"""A request's fields, read from a form, without a server."""

import asyncio

import pytest

pytest.importorskip("fastapi")

from fastapi import Request  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402

from syncflow.serving.forms import fields_of  # noqa: E402


def read(body: bytes):
    async def receive():
        return {"type": "http.request", "body": body}

    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    return asyncio.run(fields_of(Request(scope, receive)))


def test_lists_and_texts():
    fields = {"prompt": "a ball", "contacts": ["0.2", "0.4"]}
    assert read(b"prompt=a+ball&contacts[]=0.2&contacts[]=0.4") == (fields, None)


@pytest.mark.parametrize(
    "body", [b"contacts=0.1&contacts[]=0.2", b"contacts[]=0.2&contacts=0.1", b"seed[]=1&seed=2"]
)
def test_a_field_in_two_ways_is_refused(body):
    name = body.replace(b"[]", b"").split(b"=")[0].decode()
    with pytest.raises(HTTPException) as refused:
        read(body)
    assert refused.value.status_code == 400
    assert f"in two ways, '{name}' and '{name}[]'" in refused.value.detail
