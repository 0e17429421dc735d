"""`python -m activities.rendering.sandbox.child MEMORY SECONDS`: compiles and renders templates of tenants for `TenantTemplates`.

Asked on stdin: {"digest", "sources": {part: source}} to compile, or {"digest", "parts": [part], "context"} to render.
Answered on stdout: {"compiled": true}, {"texts": {part: text}}, {"unknown": true} for a digest that is not compiled here,
or {"fault": [what, part, line]}. It says {"ready": true} first, and ends when its stdin does.

The system holds it within MEMORY bytes of address space, SECONDS of processor time for each question, and the three files
it was born with: it can open neither another file nor a socket, and start no process.
"""

import gc
import json
import math
import os
import resource
import sys
from typing import Any

from activities.rendering.sandbox.compiled import WrittenParts
from activities.rendering.sandbox.framing import HEADER, frame, length
from activities.rendering.sandbox.output import Fault

#: What is rendered before the doors close, so that whatever is imported on first use is there.
_WARM_UP = {
    "email.html": "<p>{{ data | rows }}{{ time | moment }}<a href='x:{{ 1 }}'>{{ data | tojson | urlize | wordwrap }}</a></p>",
    "webhook.json": '{% for n in range(2) if n %}{{ "é" | urlencode | striptags | tojson }}{% endfor %}',
}


def answer_of(written: WrittenParts, asked: dict[str, Any]) -> dict[str, Any]:
    digest = asked["digest"]
    if "sources" in asked:
        found: Any = written.compile(digest, asked["sources"])
        return {"compiled": True} if found is None else _fault(found)
    if not written.has(digest):
        return {"unknown": True}
    found = written.render(digest, asked["parts"], asked["context"])
    return _fault(found) if isinstance(found, Fault) else {"texts": found}


def _fault(fault: Fault) -> dict[str, Any]:
    return {"fault": [fault.what, fault.template, fault.line]}


def confine(memory: int) -> None:
    """Close the doors: nothing more is opened, no process started, no core dumped, no memory taken beyond `memory`."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_NOFILE: 3,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (least, least))


def _allow(seconds: float) -> None:
    """So much more processor time; the system then ends this process, also if whoever asked is gone."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(spent.ru_utime + spent.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _read(size: int) -> bytes:
    """So many bytes of stdin; none if it has ended."""
    found = bytearray()
    while len(found) < size:
        piece = os.read(0, size - len(found))
        if not piece:
            return b""
        found += piece
    return bytes(found)


def _say(value: Any) -> None:
    rest = memoryview(frame(value))
    while rest:
        rest = rest[os.write(1, rest) :]


def main(memory: int, seconds: float) -> None:
    written = WrittenParts()
    written.compile("", _WARM_UP)
    for data in ({"a": [1, "é"]}, {"a": "<!-- href=javascript: -->"}):
        written.render("", list(_WARM_UP), {"data": data, "time": "2026-11-23T08:00:00Z"})
    written.compile("", {"sms.text": "{% if"})
    written.compile("", {"sms.text": "{{ missing }}"})
    written.render("", ["sms.text"], {})
    gc.collect()
    gc.freeze()
    confine(memory)
    _say({"ready": True})
    while header := _read(HEADER):
        asked = json.loads(_read(length(header)))
        _allow(seconds)
        _say(answer_of(written, asked))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
