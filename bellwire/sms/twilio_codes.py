"""Twilio's error codes: the table of what a refusal means, in a response or in a later callback."""

from dataclasses import dataclass

from bellwire.deliveries import Fault, OutcomeKind
from bellwire.suppressions import SuppressionReason

#: The gateway's path of Twilio's callbacks; a delivery id or `inbound` follows.
CALLBACKS = "/callbacks/twilio"


@dataclass(frozen=True)
class CodeMeaning:
    """What an error code means for a delivery."""

    kind: OutcomeKind
    #: The number is gone, so the subscription is disabled.
    disable: bool = False
    #: Why the number is suppressed; None if it is not.
    suppress: SuppressionReason | None = None
    #: The operator has to fix the cause, so it is logged as an error.
    operator: bool = False
    #: The cause is the number, and not the text, Twilio, the operator, or an unsubscription.
    number: bool = False

    @property
    def fault(self) -> Fault:
        return Fault.RECEIVER if self.number else Fault.OPERATOR if self.operator else Fault.PROVIDER


LATER = CodeMeaning(OutcomeKind.DEFERRED)
NEVER = CodeMeaning(OutcomeKind.REJECTED)
UNREACHED = CodeMeaning(OutcomeKind.DEFERRED, number=True)
REFUSED = CodeMeaning(OutcomeKind.REJECTED, number=True)
GONE = CodeMeaning(OutcomeKind.REJECTED, disable=True, suppress=SuppressionReason.BOUNCED, number=True)
#: The subscription stays active and does not count as failing, since the recipient can return with START.
STOPPED = CodeMeaning(OutcomeKind.REJECTED, suppress=SuppressionReason.UNSUBSCRIBED)
OPERATOR = CodeMeaning(OutcomeKind.DEFERRED, operator=True)
AMBIGUOUS = CodeMeaning(OutcomeKind.UNKNOWN)

#: https://www.twilio.com/docs/api/errors. Twilio adds codes at times; the HTTP status decides for an unknown one.
BY_CODE: dict[int, CodeMeaning] = {
    20429: LATER,  # too many requests
    20500: LATER,  # internal server error
    21611: LATER,  # the sender's queue is full
    30001: LATER,  # queue overflow
    30003: UNREACHED,  # handset unreachable
    30036: UNREACHED,  # validity period expired
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
    20003: OPERATOR,  # credentials
    20005: OPERATOR,  # account not active
    20404: OPERATOR,  # no such account
    21212: OPERATOR,  # bad sender
    21408: OPERATOR,  # region not enabled
    21603: OPERATOR,  # no sender
    21606: OPERATOR,  # sender cannot send SMS
    21608: OPERATOR,  # trial account, unverified number
    21609: OPERATOR,  # bad URL of status callbacks
    21659: OPERATOR,  # sender is not the account's
    21660: OPERATOR,  # sender is another account's
    21661: OPERATOR,  # sender cannot send SMS
    # Messaging services: does not exist, has no senders, is not configured for SMS, …
    **dict.fromkeys(range(21701, 21722), OPERATOR),
    30002: OPERATOR,  # account suspended
    30032: OPERATOR,  # toll-free number not verified
    30034: OPERATOR,  # number not registered with the carriers
    63007: OPERATOR,  # no such sender
    90010: OPERATOR,  # account not active
}


def classify_refusal(status: int, code: int | None) -> CodeMeaning:
    """What a refusal means: by its HTTP status first, then by Twilio's code. A refused SMS was not accepted."""
    if status == 429:
        return LATER
    if status in {502, 504} and code is None:
        return AMBIGUOUS  # a gateway's response, not Twilio's: Twilio may have accepted the SMS
    if status >= 500:
        return LATER
    if code in BY_CODE:
        return BY_CODE[code]
    if status in {408, 409, 425}:
        return LATER
    # Without a known code, only 400 and 422 can be about this SMS. Others are about the account, the address of the API or what
    # is in between, and would be the same for the next SMS.
    return NEVER if status in {400, 422} else OPERATOR
