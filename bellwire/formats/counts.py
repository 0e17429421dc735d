"""Counts as text: a number with its noun."""


def counted(number: int, noun: str) -> str:
    """`1 delivery`, `2,000 deliveries`."""
    return f"{number:,} {plural(noun, number)}"


def plural(noun: str, number: int) -> str:
    """The noun for a number of things: `delivery` or `deliveries`."""
    if number == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
