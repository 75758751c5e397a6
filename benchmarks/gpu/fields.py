"""The models' configs where pydantic is not installed, as on a bare machine with a GPU.

A benchmark makes configs from known numbers and reads their fields; it checks and parses none.
Where the library is missing, `ensure_pydantic` puts as little in its place.
"""

import sys
import types


class _Fields:
    """Keyword arguments over the class's defaults, as attributes."""

    def __init__(self, **values: object) -> None:
        for kind in reversed(type(self).__mro__):
            for name in getattr(kind, "__annotations__", {}):
                if name in values or hasattr(type(self), name):
                    setattr(self, name, values.get(name, getattr(type(self), name, None)))


def _unchanged(*_: object, **__: object):
    return lambda function: function


def _default(default: object = None, *, default_factory=None, **_: object) -> object:
    return default_factory() if default_factory else default


def _made(name: str, __base__: type, **fields: tuple[object, object]) -> type:
    body = {"__annotations__": {k: kind for k, (kind, _) in fields.items()}}
    return type(name, (__base__,), body | {k: default for k, (_, default) in fields.items()})


def ensure_pydantic() -> None:
    """Make `import pydantic` succeed, for `syncflow.config`."""
    try:
        import pydantic  # noqa: F401
    except ImportError:
        stand_in = types.ModuleType("pydantic")
        stand_in.BaseModel, stand_in.ConfigDict, stand_in.Field = _Fields, dict, _default
        stand_in.ValidationError, stand_in.model_validator = ValueError, _unchanged
        stand_in.field_validator, stand_in.create_model = _unchanged, _made
        stand_in.Discriminator = stand_in.Tag = lambda of: of
        sys.modules["pydantic"] = stand_in
