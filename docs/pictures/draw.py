"""Draws the diagrams of the documentation: `python -m docs.pictures.draw` writes the SVG files. A test compares them."""

from pathlib import Path

from bellwire.deliveries import SETTLED, DeliveryState
from docs.pictures.picture import Picture

FOLDER = Path(__file__).parent


def flow() -> Picture:
    picture = Picture(
        "flow",
        548,
        "How an event flows",
        "A service publishes an event. The workflow Notify stores it and matches subscriptions, attempts up to 20 deliveries"
        " inline, and then works in rounds: activities on one queue per channel send to mail relays, endpoints, and"
        " providers of SMS, push and chat."
        " When more than 1,000 subscriptions match, Dispatch child workflows each take a page.",
    )
    picture.box(150, 14, 180, 36, "#your service", kind="other")
    picture.arrow("M240 50 L240 84")
    picture.text(250, 72, "~publish", anchor="start")
    picture.frame(14, 86, 304, 288, "#Notify")
    picture.text(306, 106, "`event/<source>/<id>", anchor="end")
    picture.box(28, 120, 276, 58, "#resolve", "store the event, match subscriptions")
    picture.arrow("M170 178 L170 200")
    picture.box(28, 202, 276, 58, "#inline send", "up to 20, SMS excepted, 0.5 s")
    picture.arrow("M170 260 L170 282")
    picture.box(28, 284, 276, 76, "#rounds", "all that is due, in chunks of 200;", "one timer to the next retry")
    picture.box(342, 120, 126, 58, "#registry", "~SQLite, PostgreSQL", kind="other")
    picture.arrow("M306 149 L340 149", both=True)
    picture.box(
        342, 232, 126, 128, "#Dispatch", "`…#page-1, 2, …", "the same rounds;", "a run for each", "1,000 deliveries"
    )
    picture.arrow("M318 296 L340 296")
    for x, queue, network, target in (
        (14, "bellwire-email", "SMTP", "mail relay"),
        (172, "bellwire-webhook", "HTTPS", "endpoint"),
        (330, "bellwire-sms, …", "HTTPS", "SMS, push, chat"),
    ):
        picture.arrow(f"M170 360 C170 384 {x + 68} 378 {x + 68} 402")
        picture.arrow(f"M405 360 C405 384 {x + 68} 378 {x + 68} 402")
        picture.box(x, 404, 136, 38, f"`{queue}")
        picture.arrow(f"M{x + 68} 442 L{x + 68} 488")
        picture.text(x + 76, 470, f"~{network}", anchor="start")
        picture.box(x, 490, 136, 38, f"#{target}", kind="other")
    return picture


def delivery_states() -> Picture:
    settled = "delivered, rejected, exhausted and cancelled"
    picture = Picture(
        "delivery-states",
        464,
        "States of a delivery",
        "A delivery is pending when it is recorded, sending while an attempt is under way, waiting after an attempt that was"
        f" deferred, and settled when it is {settled}. A settled delivery becomes pending again when an operator redelivers it.",
    )
    kinds = {DeliveryState.DELIVERED: "good", DeliveryState.REJECTED: "bad", DeliveryState.EXHAUSTED: "bad"}

    def state(of: DeliveryState, x: int, y: int, width: int = 100) -> None:
        kind = kinds.get(of, "other" if of in SETTLED else "wait" if of is DeliveryState.WAITING else "box")
        picture.box(x, y, width, 40, kind=kind)
        picture.text(x + width / 2, y + 24.5, f"#{of}", extra="state")

    picture.notes(192, 28, "resolve records it")
    picture.arrow("M184 14 L184 40")
    state(DeliveryState.PENDING, 134, 42)
    picture.arrow("M184 82 L184 160")
    picture.notes(192, 116, "an attempt begins")
    state(DeliveryState.SENDING, 134, 162)
    state(DeliveryState.WAITING, 366, 162)
    picture.arrow("M234 174 L364 174")
    picture.text(299, 166, "~deferred, unknown")
    picture.arrow("M366 192 L236 192")
    picture.text(299, 208, "~due, or retry now")
    picture.frame(24, 262, 442, 112, "#settled")
    for of, x, begin, label in (
        (DeliveryState.DELIVERED, 36, "M152 202 L92 294", "accepted"),
        (DeliveryState.REJECTED, 144, "M184 202 L192 294", "refused for good"),
        (DeliveryState.EXHAUSTED, 252, "M216 202 L292 294", "schedule over"),
        (DeliveryState.CANCELLED, 360, "M416 202 L410 294", "cancel"),
    ):
        picture.arrow(begin)
        state(of, x, 296, 98)
        picture.text(x + 49, 356, f"~{label}")
    picture.arrow("M24 318 L12 318 L12 62 L132 62")
    picture.notes(20, 54, "redeliver")
    picture.notes(
        24,
        398,
        "sending is recorded before an SMS attempt, and for email and",
        "webhook attempts that take longer than 0.5 s. The others are",
        "recorded when they end. A cancel also settles a pending delivery,",
        "and a sending one if its attempt does not settle it.",
    )
    return picture


def run_life() -> Picture:
    picture = Picture(
        "run-life",
        622,
        "Life of a run",
        "A run resolves, hands pages to child runs when more than 1,000 deliveries match, attempts the first round, and then"
        " alternates between a timer and a round until everything is settled. With a long history it continues as new.",
    )
    picture.box(24, 16, 250, 58, "#resolve", "a local activity; ids come back")
    picture.arrow("M274 45 L312 45")
    picture.box(
        314, 16, 152, 92, "#Dispatch", "~when over 1,000 match:", "~a child run per page,", "~20 start at a time"
    )
    picture.arrow("M149 74 L149 104")
    picture.box(24, 106, 250, 76, "#first round", "up to 20: inline, within 0.5 s;", "SMS and the rest: activities")
    picture.arrow("M149 182 L149 232")
    picture.box(24, 234, 250, 44, "#is everything settled?", kind="other")
    picture.arrow("M274 256 L312 256")
    picture.text(293, 248, "~yes")
    picture.box(314, 226, 152, 60, "#Completed", "result: the counts", kind="good")
    picture.arrow("M149 278 L149 322")
    picture.text(158, 304, "~no", anchor="start")
    picture.box(24, 324, 250, 44, "#is the history long?", kind="other")
    picture.arrow("M274 346 L312 346")
    picture.text(293, 338, "~yes")
    picture.box(314, 316, 152, 76, "#continue as new", "takes the unsettled", "deliveries along", kind="wait")
    picture.arrow("M149 368 L149 412")
    picture.text(158, 394, "~no", anchor="start")
    picture.box(24, 414, 250, 58, "#timer", "to the earliest delivery that is due", kind="wait")
    picture.box(314, 414, 152, 58, "#updates", "~retry_now, pause,", "~resume, cancel", kind="other")
    picture.arrow("M314 443 L276 443")
    picture.text(295, 435, "~wake")
    picture.arrow("M149 472 L149 502")
    picture.box(24, 504, 250, 58, "#round", "activities on the channels' queues")
    picture.arrow("M24 533 L10 533 L10 256 L22 256")
    picture.notes(
        24, 588, "Running means that something is unsettled.", "A run with open children never continues as new."
    )
    return picture


def crash() -> Picture:
    picture = Picture(
        "crash",
        500,
        "What a crash does",
        "Worker A is killed while it sends a chunk of six deliveries: two outcomes are recorded, one was sent and not recorded,"
        " one is in flight, two have not begun. After 15 seconds without a heartbeat worker B takes the chunk, skips the two"
        " recorded ones and attempts the other four, with the same ids.",
    )
    left, step = 112, 60
    for number in range(6):
        picture.text(left + number * step + 28, 30, f"#{number + 1}")
    picture.notes(14, 30, "delivery")

    def row(y: int, name: str, note: str, cells: tuple[tuple[str, str], ...]) -> None:
        picture.text(14, y + 21, f"#{name}", anchor="start")
        picture.notes(14, y + 37, note)
        for number, (kind, text) in enumerate(cells):
            picture.box(left + number * step, y, 56, 48, *(f"~{word}" for word in text.split()), kind=kind)

    nothing = ("other", "-")
    row(
        44,
        "worker A",
        "attempts",
        (("good", "sent"), ("good", "sent"), ("good", "sent"), ("wait", "in flight"), nothing, nothing),
    )
    for number in range(2):
        picture.arrow(f"M{left + number * step + 28} 92 L{left + number * step + 28} 114")
    row(116, "registry", "outcomes", (("good", "on record"), ("good", "on record"), nothing, nothing, nothing, nothing))
    picture.box(14, 184, 452, 38, "#worker A is killed", kind="bad")
    picture.arrow("M240 222 L240 260")
    picture.text(250, 246, "~15 s without a heartbeat, then a retry", anchor="start")
    row(
        262,
        "worker B",
        "retries",
        (
            ("other", "skips"),
            ("other", "skips"),
            ("wait", "sends again"),
            ("wait", "sends again"),
            ("good", "sends"),
            ("good", "sends"),
        ),
    )
    picture.notes(
        14,
        342,
        "Outcomes are recorded every 50 ms, so few are sent and not recorded.",
        "Attempts are repeated with the same webhook-id or Message-ID.",
        "",
        "SMS: the intent is recorded before each attempt. Worker B asks the",
        "provider what it has sent; if that is unknown, nothing is sent again.",
        "",
        "Inline send: an attempt that takes longer than 0.5 s has a lease of 15 s,",
        "renewed every 5 s. Other workers wait until its outcome is recorded",
        "or the lease has expired.",
    )
    return picture


def pictures() -> dict[str, str]:
    """The text of each file, by its name."""
    return {f"{picture.name}.svg": str(picture) for picture in (flow(), delivery_states(), run_life(), crash())}


if __name__ == "__main__":
    for name, text in pictures().items():
        (FOLDER / name).write_text(text)
