"""What attempts sent and received, printed as other HTTP and SMTP clients do: `>` is sent, `<` is received."""

from collections.abc import Iterator, Sequence

from bellwire.deliveries import Attempt
from bellwire.exchanges import Exchange
from starter.cli.terminal import console, note, printable


def exchanges_as_json(exchanges: Sequence[Exchange]) -> list[dict[str, str]]:
    """Exchanges as `--json` prints them."""
    return [exchange.model_dump() for exchange in exchanges]


def print_last_exchanges(attempts: Sequence[Attempt], *, number: int | None = None) -> None:
    """Print the exchanges of the attempt with this number, or of the last one that has any, and note which others have some."""
    kept = {attempt.number: attempt.outcome.exchanges for attempt in attempts if attempt.outcome.exchanges}
    shown = number if number is not None else max(kept, default=None)
    if shown is None:
        return
    if shown not in kept:
        note(f"attempt {shown} has no exchange; BELLWIRE_KEEP_EXCHANGES says which attempts keep theirs")
        return
    console().print(f"attempt {shown}")
    print_exchanges(kept[shown])
    if others := sorted(kept.keys() - {shown}):
        note(f"--attempt shows those of other attempts: {', '.join(map(str, others))}")


def print_exchanges(exchanges: Sequence[Exchange]) -> None:
    """Print each exchange, without control characters."""
    for exchange in exchanges:
        console().print("\n".join(_lines(exchange)), soft_wrap=True)


def _lines(exchange: Exchange) -> Iterator[str]:
    for mark, head, body in (
        (">", exchange.request, exchange.request_body),
        ("<", exchange.response or "(no response)", exchange.response_body),
    ):
        for line in (*head.split("\n"), *(("", *body.splitlines()) if body else ())):
            yield f"{mark} {printable(line)}".rstrip()
    yield ""
