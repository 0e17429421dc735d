"""Why a connection or a TLS handshake failed, as one of a few fixed texts: never a text of the other side."""

import errno
import re
import ssl
from collections.abc import Iterator

#: By errno. Others are named by their symbol.
_ERRNO = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ECONNABORTED: "connection aborted",
    errno.EPIPE: "connection closed",
    errno.EHOSTUNREACH: "host unreachable",
    errno.EHOSTDOWN: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.EADDRNOTAVAIL: "no local address or port",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.EACCES: "not permitted here",
    errno.EPERM: "not permitted here",
}
#: By OpenSSL's code of a certificate that is not accepted (X509_V_ERR_*).
_CERTIFICATE = {
    9: "certificate not valid yet",
    10: "certificate expired",
    18: "certificate self-signed",
    19: "certificate authority unknown",
    20: "certificate authority unknown",
    21: "certificate chain incomplete",
    23: "certificate revoked",
    62: "certificate for another name",
    64: "certificate for another address",
}
#: By words in OpenSSL's name of an error; the first that matches counts.
_TLS = (
    (("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH"), "no TLS on this port"),
    (("CERTIFICATE_REQUIRED",), "client certificate required"),
    (("BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA", "CERTIFICATE_EXPIRED"), "client certificate refused"),
    (("UNRECOGNIZED_NAME",), "name unknown to the server"),
    (("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"), "no common TLS version"),
    (("HANDSHAKE_FAILURE", "NO_SHARED_CIPHER"), "handshake refused"),
    (("UNEXPECTED_EOF",), "connection closed in the handshake"),
    (("DH_KEY_TOO_SMALL", "EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"), "key too weak"),
)
#: The connector's text where the addresses of a name failed in different ways.
_IN_TEXT = re.compile(r"\[Errno (\d{1,3})\]")


def is_tls_failure(error: BaseException) -> bool:
    """Whether TLS failed, perhaps after the handshake: there, an endpoint checks the client's certificate."""
    return any(isinstance(each, ssl.SSLError) for each in _chain(error))


def cause_of(error: BaseException) -> str | None:
    """Why a connection failed; None if that is not known."""
    for each in _chain(error):
        # aiohttp's own classes are TLS errors too, without their attributes.
        if isinstance(code := getattr(each, "verify_code", None), int):
            return _CERTIFICATE.get(code, "certificate not accepted")
        if isinstance(each, ssl.SSLError) and (name := getattr(each, "reason", None)):
            return _tls_cause(name)
    for each in _chain(error):
        if isinstance(each, TimeoutError) and each.errno is None:
            return "timeout"
        if isinstance(each, OSError) and (number := _errno(each)) is not None:
            return _ERRNO.get(number) or errno.errorcode.get(number)
    return None


def _tls_cause(name: str) -> str:
    found = (cause for words, cause in _TLS if any(word in name for word in words))
    return next(found, None) or name.lower().replace("_", " ")[:40]


def _errno(error: OSError) -> int | None:
    if error.errno is not None:
        return error.errno
    # Several addresses, each with an error of its own: the first one.
    found = _IN_TEXT.search(" ".join(each for each in error.args if isinstance(each, str)))
    return int(found[1]) if found else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what aiohttp wraps in it, and its causes."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [getattr(each, "certificate_error", None), getattr(each, "os_error", None)]
            waiting += [each.__cause__, each.__context__]
