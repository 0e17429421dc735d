"""The two manners of model: what travels, and what people write by hand."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """A frozen value that travels between processes. Unknown fields are ignored, so that old code reads new payloads."""

    model_config = ConfigDict(frozen=True)


class Written(BaseModel):
    """A frozen value that a person or an API caller wrote. Unknown fields are errors, so that a typing mistake is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
