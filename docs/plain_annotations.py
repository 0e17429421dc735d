"""An extension of griffe, which reads the Python API for the site: `Annotated[str, Field(…)]` is shown as `str`.

What the rest of such an annotation checks is for pydantic; readers find it in the comment of the field.
"""

from dataclasses import fields, is_dataclass
from typing import Any

from griffe import Attribute, Expr, ExprSubscript, ExprTuple, Extension, Function


class PlainAnnotations(Extension):
    """Leaves out what stands in `Annotated` beside the type."""

    def on_attribute(self, *, attr: Attribute, **_: Any) -> None:
        attr.annotation = plain(attr.annotation)

    def on_function(self, *, func: Function, **_: Any) -> None:
        func.returns = plain(func.returns)
        for parameter in func.parameters:
            parameter.annotation = plain(parameter.annotation)


def plain(expression: Any) -> Any:
    """The expression, with each `Annotated[type, …]` in it replaced by its type."""
    if isinstance(expression, ExprSubscript) and str(expression.left).rpartition(".")[2] == "Annotated":
        inner = expression.slice
        return plain(inner.elements[0] if isinstance(inner, ExprTuple) else inner)
    if isinstance(expression, list):
        return [plain(part) for part in expression]
    if isinstance(expression, Expr) and is_dataclass(expression):
        for each in fields(expression):
            if each.name != "parent":
                setattr(expression, each.name, plain(getattr(expression, each.name)))
    return expression
