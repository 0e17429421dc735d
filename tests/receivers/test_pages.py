"""The guides for receivers agree with the code: the signed example, the table of responses, the programs that they show."""

import re
from datetime import UTC, datetime
from pathlib import Path

from activities.egress.retry_after import asks_to_throttle
from activities.webhook.responses import classify_status
from bellwire.deliveries import OutcomeKind
from bellwire.webhooks import verify

CHECKOUT = Path(__file__).parents[2]
PAGES = CHECKOUT / "docs" / "receivers"
INDEX = (PAGES / "index.md").read_text()


def test_the_request_that_the_guide_shows_is_signed_with_the_secret_beside_it() -> None:
    (request,) = re.findall(r"```http\n(.*?)\n```", INDEX, flags=re.DOTALL)
    head, body = request.split("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    (secret,) = re.findall(r"`(whsec_[^`…]+)`", INDEX)
    received_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert verify(secret, headers, body, now=received_at)["type"] == "order.paid"


def test_the_table_of_responses_says_what_the_channel_does_with_each_status() -> None:
    meant = {"is delivered": OutcomeKind.DELIVERED, "rejected": OutcomeKind.REJECTED, "again": OutcomeKind.DEFERRED}
    said: dict[int, OutcomeKind] = {}
    # The table goes from the particular to the general.
    for statuses, meaning in re.findall(
        r"^\| ((?:other )?[2-5][\dx, ]+) \| (The delivery .*) \|$", INDEX, re.MULTILINE
    ):
        kind = next(kind for phrase, kind in meant.items() if phrase in meaning)
        for each in re.findall(r"\d[\dx]{2}", statuses):
            first = int(each.replace("x", "0"))
            for status in range(first, first + 100) if "x" in each else [first]:
                said.setdefault(status, kind)
    (rest,) = re.findall(r"^\| any other status \| (The delivery .*) \|$", INDEX, re.MULTILINE)
    others = next(kind for phrase, kind in meant.items() if phrase in rest)
    assert {status: said.get(status, others) for status in range(200, 600)} == {
        status: classify_status(status) for status in range(200, 600)
    }


def test_the_guide_names_the_statuses_that_throttle() -> None:
    (named,) = re.findall(r"After ([\d, and]+), no other delivery", INDEX)
    assert {int(status) for status in re.findall(r"\d+", named)} == {
        status for status in range(200, 600) if asks_to_throttle(status, None)
    }
    (with_header,) = re.findall(r"A (\d+) with `Retry-After` has the same effect", INDEX)
    assert [int(with_header)] == [
        status for status in range(200, 600) if asks_to_throttle(status, 1.0) and not asks_to_throttle(status, None)
    ]


def test_every_example_is_shown_on_a_page() -> None:
    shown = {
        name for page in PAGES.glob("*.md") for name in re.findall(r'^--8<-- "(.+)"$', page.read_text(), re.MULTILINE)
    }
    programs = {
        file.relative_to(CHECKOUT).as_posix()
        for file in (CHECKOUT / "examples" / "receivers").rglob("*.*")
        if file.suffix in {".py", ".mjs", ".go", ".java"}
    }
    assert shown == programs
