"""Parses and compiles expressions (CESQL 1.0 §2 and §3.6)."""

from collections.abc import Callable, Sequence
from typing import NoReturn

from bellwire.filters.cesql import functions, nodes
from bellwire.filters.cesql.errors import CesqlError, ErrorKind
from bellwire.filters.cesql.nodes import Node
from bellwire.filters.cesql.tokens import Kind, Token, tokens
from bellwire.filters.cesql.values import LARGEST

MAX_CHARACTERS = 4_096
#: Literals, attributes, operations and calls of functions.
MAX_NODES = 1_000
#: Levels of parentheses within each other, and of operations.
MAX_DEPTH, MAX_OPERATIONS = 50, 100
#: Characters of the name of an attribute; the same that an event may have.
MAX_NAME = 64

_COMPARISONS = ("=", "!=", "<>", ">=", "<=", "<", ">")
_PRECEDENCE = {
    **dict.fromkeys(("AND", "OR", "XOR"), 1),
    **dict.fromkeys(_COMPARISONS, 2),
    **dict.fromkeys(("+", "-"), 3),
    **dict.fromkeys(("*", "/", "%"), 4),
}
_LOGIC: dict[str, Callable[[Sequence[Node]], Node]] = {
    "AND": nodes.conjunction,
    "OR": nodes.disjunction,
    "XOR": nodes.exclusion,
}


class Parser:
    """Parses one text. What it finds is in `attributes` and `problems`."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            message = f"the expression has {len(text):,} characters, the limit is {MAX_CHARACTERS:,}; shorten it"
            raise CesqlError(ErrorKind.PARSE, message)
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0
        self._nodes = 0
        #: The attributes that the expression reads, in order.
        self.attributes: dict[str, None] = {}
        #: Calls that fail on every event.
        self.problems: list[CesqlError] = []

    def parse(self) -> Node:
        """Return the whole expression. Raises CesqlError."""
        found = self._expression()
        if self._token.kind is not Kind.END:
            self._fail("expected an operator or the end")
        return found

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _expression(self, lowest: int = 1) -> Node:
        """Operands joined by operators of this precedence or a higher one, from left to right where it is the same."""
        found = self._tested()
        while (precedence := self._precedence()) >= lowest:
            symbol = self._token.text
            self._next += 1
            operand = self._expression(precedence + 1)
            if symbol in _LOGIC:
                terms = [found, operand]
                while self._takes(Kind.KEYWORD, symbol):
                    terms.append(self._expression(precedence + 1))
                found = self._counted(_LOGIC[symbol](terms))
            elif symbol in _COMPARISONS:
                found = self._counted(nodes.comparison(symbol, found, operand))
            else:
                found = self._counted(nodes.arithmetic(symbol, found, operand))
        return found

    def _precedence(self) -> int:
        """That of the next token; 0 if it is no operator between operands."""
        return 0 if self._token.kind in {Kind.STRING, Kind.NAME} else _PRECEDENCE.get(self._token.text, 0)

    def _tested(self) -> Node:
        """An operand and the LIKE and IN after it."""
        found = self._unary()
        while True:
            negated = self._token[:2] == (Kind.KEYWORD, "NOT") and self._tokens[self._next + 1].text in {"LIKE", "IN"}
            self._next += negated
            if self._takes(Kind.KEYWORD, "LIKE"):
                pattern = self._take(Kind.STRING, "expected the pattern of LIKE, which is a string in quotes")
                found = self._counted(nodes.matching(found, pattern, not negated))
            elif self._takes(Kind.KEYWORD, "IN"):
                if not self._takes(Kind.SYMBOL, "("):
                    self._fail("expected the list of IN, such as ('a', 'b')")
                found = self._counted(nodes.membership(found, self._list(), not negated))
            else:
                return found

    def _unary(self) -> Node:
        negations: list[Callable[[Node], Node]] = []
        while True:
            if self._takes(Kind.KEYWORD, "NOT"):
                negations.append(nodes.negation)
            elif (sign := self._token).text in {"+", "-"} and sign.kind is Kind.SYMBOL:
                self._next += 1
                if self._token.kind is Kind.INTEGER and self._token.start == sign.end:
                    found = self._integer(-1 if sign.text == "-" else 1)
                    break
                if sign.text == "+":
                    self._fail("expected the digits of a number after +")
                negations.append(nodes.minus)
            else:
                found = self._primary()
                break
        for negate in reversed(negations):
            found = self._counted(negate(found))
        return found

    def _primary(self) -> Node:
        kind, text, start, _ = self._token
        match kind, text:
            case Kind.STRING, _:
                self._next += 1
                return self._counted(nodes.literal(text))
            case Kind.INTEGER, _:
                return self._integer(1)
            case Kind.KEYWORD, "TRUE" | "FALSE":
                self._next += 1
                return self._counted(nodes.literal(text == "TRUE"))
            case Kind.KEYWORD, "EXISTS":
                self._next += 1
                name = self._name()
                return self._counted(nodes.exists(name))
            case Kind.SYMBOL, "(":
                self._next += 1
                self._deeper()
                found = self._expression()
                self._close()
                return found
            case Kind.NAME, _ if self._tokens[self._next + 1][:2] == (Kind.SYMBOL, "("):
                self._next += 2
                return self._call(text, start)
            case Kind.NAME, _:
                return self._counted(nodes.attribute(self._name()))
            case _:
                raise self._problem("expected a value, the name of an attribute, or (")

    def _integer(self, sign: int) -> Node:
        digits = self._token.text.lstrip("0")
        if len(digits) > 10 or not -LARGEST - 1 <= sign * int(digits or "0") <= LARGEST:
            self._fail("the number is out of range (32-bit integer)", instead=False)
        self._next += 1
        return self._counted(nodes.literal(sign * int(digits or "0")))

    def _name(self) -> str:
        """The name of an attribute. Upper case is taken as lower case."""
        name = self._token.text
        if self._token.kind is not Kind.NAME:
            self._fail("expected the name of an attribute")
        if "_" in name or len(name) > MAX_NAME:
            message = f"{name[:MAX_NAME]} is not the name of an attribute; write 1 to {MAX_NAME} letters and digits"
            self._fail(message, instead=False)
        self._next += 1
        self.attributes[name.lower()] = None
        return name.lower()

    def _call(self, written: str, start: int) -> Node:
        name = written.upper()
        if not name.replace("_", "A").isalpha() or name.startswith("_"):
            raise CesqlError(ErrorKind.PARSE, f"{written[:MAX_NAME]} is not the name of a function", start + 1)
        given = [] if self._takes(Kind.SYMBOL, ")") else self._list()
        function = functions.find(name, len(given))
        if function is None:
            problem = CesqlError(ErrorKind.MISSING_FUNCTION, functions.unknown(name, len(given)), start + 1)
            self.problems.append(problem)
            return self._counted(functions.missing(name, len(given)))
        return self._counted(functions.call(function, given))

    def _list(self) -> list[Node]:
        """Expressions between commas, up to the closing parenthesis."""
        self._deeper()
        found = [self._expression()]
        while self._takes(Kind.SYMBOL, ","):
            found.append(self._expression())
        self._close()
        return found

    def _close(self) -> None:
        if not self._takes(Kind.SYMBOL, ")"):
            self._fail("expected )")
        self._depth -= 1

    def _takes(self, kind: Kind, *texts: str) -> str | None:
        """The text of the next token, which is taken if it is one of these."""
        token = self._token
        if token.kind is not kind or token.text not in texts:
            return None
        self._next += 1
        return token.text

    def _take(self, kind: Kind, problem: str) -> str:
        if self._token.kind is not kind:
            self._fail(problem)
        self._next += 1
        return self._tokens[self._next - 1].text

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"the expression is nested deeper than {MAX_DEPTH} levels; flatten it", instead=False)

    def _counted(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(f"the expression has more than {MAX_NODES:,} parts; shorten it", instead=False)
        if node.depth > MAX_OPERATIONS:
            self._fail(f"the expression is nested deeper than {MAX_OPERATIONS} operations; flatten it", instead=False)
        return node

    def _fail(self, problem: str, *, instead: bool = True) -> NoReturn:
        raise self._problem(problem, instead=instead)

    def _problem(self, problem: str, *, instead: bool = True) -> CesqlError:
        """An error at the next token."""
        kind, text, start, _ = self._token
        seen = "the end" if kind is Kind.END else "a string" if kind is Kind.STRING else text[:MAX_NAME]
        return CesqlError(ErrorKind.PARSE, f"{problem}, not {seen}" if instead else problem, start + 1)
