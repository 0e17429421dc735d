"""WrittenText: what a template wrote itself, as text."""


class WrittenText:
    """JSON, or text in a provider's markup, from the text of a template or from `tojson`. It is written as it is; every other
    value is written as a JSON value, or escaped.

    It is not a string: what filters, methods and operators make of it is ordinary text again, so no filter can turn data
    into structure.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = str(text)

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)
