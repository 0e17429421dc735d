"""PatternError: what is wrong with a pattern, and where."""


class PatternError(ValueError):
    """A pattern is not valid. `path` leads to the part of it: order.amount.0.numeric."""

    def __init__(self, path: tuple[str, ...], problem: str) -> None:
        super().__init__(f"{'.'.join(path)}: {problem}" if path else problem)
        self.path = path
        self.problem = problem
