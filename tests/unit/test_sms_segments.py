"""SMS segments of texts. The expected numbers are from Twilio's calculator, npm sms-segments-calculator 1.3.0."""

import pytest

from bellwire.targets.sms_segments import Encoding, segments

GSM, UCS = Encoding.GSM_7, Encoding.UCS_2
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
THUMB = "\U0001f44d\U0001f3fd"


@pytest.mark.parametrize(
    ("text", "encoding", "count", "units"),
    [
        ("", GSM, 1, 0),
        ("a", GSM, 1, 1),
        ("a" * 160, GSM, 1, 160),
        ("a" * 161, GSM, 2, 161),
        ("a" * 306, GSM, 2, 306),
        ("a" * 307, GSM, 3, 307),
        ("€" * 80, GSM, 1, 160),
        ("€" * 81, GSM, 2, 162),
        ("a" * 159 + "€", GSM, 2, 161),
        ("a" * 152 + "€" + "a" * 10, GSM, 2, 164),
        ("a" * 152 + "€" + "a" * 152, GSM, 3, 306),
        ("a" * 153 + "{" + "}" * 10, GSM, 2, 175),
        ("[{^~\\|}]", GSM, 1, 16),
        ("\f", GSM, 1, 2),
        ("\r\n" * 80, GSM, 1, 160),
        ("\r\n" * 81, GSM, 2, 162),
        ("Ünicode", GSM, 1, 7),
        ("à", GSM, 1, 1),
        ("ΔΦΓΛΩΠΨΣΘΞ", GSM, 1, 10),
        ("ê", UCS, 1, 1),
        ("`", UCS, 1, 1),
        ("Äàéèç Ç ñ", UCS, 1, 9),
        ("e\u0301", UCS, 1, 2),
        ("\u00a0", UCS, 1, 1),
        ("\u201cquoted\u201d", UCS, 1, 8),
        ("中" * 70, UCS, 1, 70),
        ("中" * 71, UCS, 2, 71),
        ("中" * 134, UCS, 2, 134),
        ("中" * 135, UCS, 3, 135),
        ("😀" * 35, UCS, 1, 70),
        ("😀" * 36, UCS, 2, 72),
        ("😀" * 67, UCS, 3, 134),
        ("中" + "😀" * 34 + "a", UCS, 1, 70),
        ("a" * 66 + "😀" + "a" * 10, UCS, 2, 78),
        ("a" * 66 + "😀" + "a" * 66, UCS, 3, 134),
        ("a" * 67 + "😀" + "a" * 65, UCS, 2, 134),
        ("a" * 68 + "😀", UCS, 1, 70),
        (FAMILY, UCS, 1, 11),
        ("a" * 66 + FAMILY + "a" * 50, UCS, 2, 127),
        (THUMB * 18, UCS, 2, 72),
    ],
)
def test_segments_are_counted_as_twilio_counts_them(text: str, encoding: Encoding, count: int, units: int) -> None:
    found = segments(text)
    assert (found.encoding, found.count, found.units) == (encoding, count, units)


@pytest.mark.parametrize(
    ("text", "room"), [("a", 160), ("a" * 200, 306), ("\u4e2d", 70), ("\u4e2d" * 71, 134), ("\u4e2d" * 150, 201)]
)
def test_the_room_is_that_of_all_segments(text: str, room: int) -> None:
    assert segments(text).room == room
