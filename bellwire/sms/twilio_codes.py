"""Twilio's codes: the one table that says what a refusal means, at once or in a later callback; and where it calls back."""

from dataclasses import dataclass

from bellwire.deliveries import OutcomeKind
from bellwire.suppressions import SuppressionReason

#: The path of the gateway behind which Twilio names a delivery, or `inbound`.
CALLBACKS = "/callbacks/twilio"


@dataclass(frozen=True)
class CodeMeaning:
    """What a refusal means."""

    kind: OutcomeKind
    #: The number is gone, so the subscription is to be disabled.
    disable: bool = False
    #: Why the number is to be written to no more; None if it may.
    suppress: SuppressionReason | None = None
    #: It is for the operator to mend, so it is logged as an error.
    operator: bool = False
    #: It says something about the number, and not about the text, Twilio, us, or what its owner wishes.
    number: bool = False


LATER = CodeMeaning(OutcomeKind.DEFERRED)
NEVER = CodeMeaning(OutcomeKind.REJECTED)
UNREACHED = CodeMeaning(OutcomeKind.DEFERRED, number=True)
REFUSED = CodeMeaning(OutcomeKind.REJECTED, number=True)
GONE = CodeMeaning(OutcomeKind.REJECTED, disable=True, suppress=SuppressionReason.BOUNCED, number=True)
#: The subscription stays, and has not failed: START brings the recipient back.
STOPPED = CodeMeaning(OutcomeKind.REJECTED, suppress=SuppressionReason.UNSUBSCRIBED)
OPERATOR = CodeMeaning(OutcomeKind.DEFERRED, operator=True)
AMBIGUOUS = CodeMeaning(OutcomeKind.UNKNOWN)

#: https://www.twilio.com/docs/api/errors. Twilio splits codes now and then: a new one is judged by its HTTP status.
BY_CODE: dict[int, CodeMeaning] = {
    20429: LATER,  # too many requests
    20500: LATER,  # internal server error
    21611: LATER,  # the sender's queue is full
    30001: LATER,  # queue overflow
    30003: UNREACHED,  # handset unreachable
    30036: UNREACHED,  # validity period ran out
    21211: GONE,  # not a number
    21610: STOPPED,  # unsubscribed: STOP
    21614: GONE,  # not a mobile number
    30005: GONE,  # unknown handset
    30006: GONE,  # landline
    21602: NEVER,  # no body
    21617: NEVER,  # longer than 1,600 characters
    21619: NEVER,  # no body, media or content
    30004: REFUSED,  # blocked
    30007: REFUSED,  # filtered by the carrier
    30034: NEVER,  # number not registered with the carriers
    20003: OPERATOR,  # credentials
    20404: OPERATOR,  # no such account
    21212: OPERATOR,  # bad sender
    21408: OPERATOR,  # region not enabled
    21606: OPERATOR,  # sender cannot send SMS
    21608: OPERATOR,  # trial account, unverified number
    21659: OPERATOR,  # sender is not the account's
    30002: OPERATOR,  # account suspended
}


def ruling(status: int, code: int | None) -> CodeMeaning:
    """What a refusal means: by its HTTP class first, then by Twilio's code. What Twilio refuses it did not accept."""
    if status == 429:
        return LATER
    if status in {502, 504} and code is None:
        return AMBIGUOUS  # a gateway's word, not Twilio's: what is behind it may have accepted the SMS
    if status >= 500:
        return LATER
    if code in BY_CODE:
        return BY_CODE[code]
    if status < 400 or status in {401, 403, 404}:
        return OPERATOR
    return LATER if status in {408, 409, 425} else NEVER
