"""What all models of answers have in common."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A part of an answer. Fields that this version doesn't know are kept, and written out again."""

    model_config = ConfigDict(
        extra="allow", protected_namespaces=(), validate_by_name=True, validate_by_alias=True
    )
