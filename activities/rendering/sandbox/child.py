"""The child process that compiles and renders templates of tenants for `TenantRenderer`.

    python -m activities.rendering.sandbox.child MEMORY SECONDS

It writes {"ready": true} to stdout, then reads requests from stdin and writes one response to each, until stdin ends:

    {"digest", "sources": {name: source}}        compile: {"compiled": true}
    {"digest", "names": [name], "context"}       render: {"texts": {name: text}}, or {"unknown": true} if this process has
                                                 not compiled the digest
    {"html", "with_text"}                        finish HTML that was rendered elsewhere: {"html", "text"}
    each of them                                 {"fault": [problem, name, line]}

Each response has "cpu_seconds" too.

The operating system limits it to MEMORY bytes of address space, SECONDS of CPU time for each request, and the three file
descriptors that it starts with: it cannot open files or sockets, or start processes.
"""

import gc
import json
import math
import os
import resource
import sys
import time
from typing import Any

from activities.rendering.html.final import finish
from activities.rendering.sandbox.compiled import CompiledTemplates
from activities.rendering.sandbox.faults import Fault, fault_of
from activities.rendering.sandbox.framing import HEADER, frame, length

#: How much this process yields to the worker: a template that runs to its deadline must not slow everything else down.
NICENESS = 5

#: Templates that are rendered before the limits apply, so that modules which are imported on first use are loaded.
_WARM_UP = {
    "email.html": "<style>p { color: red } a:hover { color: rgb(1, 2, 3) }</style>"
    "<p>{{ data | rows }}{{ time | format_time }}</p><a href='x:{{ 1 }}'>"
    "{{ data | tojson | urlize | wordwrap }}</a>",
    "webhook.json": '{% for n in range(2) if n %}{{ "é" | urlencode | striptags | tojson }}{% endfor %}',
}


def handle(templates: CompiledTemplates, request: dict[str, Any]) -> dict[str, Any]:
    """The response to one request."""
    if "html" in request:
        return _finished(request["html"], with_text=request["with_text"])
    digest = request["digest"]
    if "sources" in request:
        fault = templates.compile(digest, request["sources"])
        return {"compiled": True} if fault is None else _fault(fault)
    if not templates.has(digest):
        return {"unknown": True}
    found = templates.render(digest, request["names"], request["context"])
    return _fault(found) if isinstance(found, Fault) else {"texts": found}


def _finished(html: str, *, with_text: bool) -> dict[str, Any]:
    try:
        final = finish(html, with_text=with_text)
    except Exception as error:  # the page comes from untrusted data, and the process must go on
        return _fault(fault_of(error, lambda _: None))
    return {"html": final.html, "text": final.text}


def _fault(fault: Fault) -> dict[str, Any]:
    return {"fault": [fault.problem, fault.template, fault.line]}


def confine(memory: int) -> None:
    """Limit this process: no new files, sockets or processes, no core dump, at most `memory` bytes of address space; and let
    other processes of the machine go first.
    """
    os.nice(NICENESS)
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
    """Limit CPU time to so many more seconds. The system ends the process at the limit, even if the parent is gone."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(spent.ru_utime + spent.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _read(size: int) -> bytes:
    """The next `size` bytes of stdin; empty at its end."""
    found = bytearray()
    while len(found) < size:
        piece = os.read(0, size - len(found))
        if not piece:
            return b""
        found += piece
    return bytes(found)


def _write(value: Any) -> None:
    pending = memoryview(frame(value))
    while pending:
        pending = pending[os.write(1, pending) :]


def main(memory: int, seconds: float) -> None:
    templates = CompiledTemplates()
    templates.compile("", _WARM_UP)
    for data in ({"a": [1, "é"]}, {"a": "<!-- href=javascript: -->"}):
        templates.render("", list(_WARM_UP), {"data": data, "time": "2026-11-23T08:00:00Z"})
    templates.compile("", {"sms.text": "{% if"})
    templates.compile("", {"sms.text": "{{ missing }}"})
    templates.render("", ["sms.text"], {})
    gc.collect()
    gc.freeze()
    confine(memory)
    _write({"ready": True})
    while header := _read(HEADER):
        request = json.loads(_read(length(header)))
        _allow(seconds)
        began = time.process_time()
        response = handle(templates, request)
        _write({**response, "cpu_seconds": round(time.process_time() - began, 4)})


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
