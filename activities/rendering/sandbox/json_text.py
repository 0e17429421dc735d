"""JsonText: JSON that a template wrote itself, as text."""


class JsonText:
    """JSON from the text of a template or from `tojson`. A JSON template writes it as it is, and everything else as a JSON value.

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
