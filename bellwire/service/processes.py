"""What a worker process needs from its operating system: signals, threads, garbage collection, and ports of its own."""

import asyncio
import gc
import resource
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from bellwire.service.settings import SettingsInvalid

#: Maximum of --processes.
MAX_PROCESSES = 64
#: Seconds beyond BELLWIRE_SHUTDOWN_GRACE until a process that does not stop is killed.
SHUTDOWN_MARGIN = 10.0
#: DNS look-ups at the same time.
LOOKUP_THREADS = 64
#: Allocations until a garbage collection, and collections of each generation until one of the next.
COLLECT_AFTER = (10_000, 20, 50)
#: Files and connections that a process may have open, if the system lets it. The usual limit, 1,024, is too low for a burst.
OPEN_FILES = 16_384
#: One more than the highest port number.
PORTS = 65536


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def tune_process() -> None:
    """Adapt the process to deliveries. Call it once, in the event loop, when everything is imported."""
    # With the defaults, garbage collection takes a fifth of the time: deliveries make many objects and few cycles.
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    _raise_open_files()
    # Names are looked up in threads. A slow name server of one tenant must not make the others wait.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUP_THREADS, "lookup"))


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def addresses_of_process(nth: int, addresses: Mapping[str, str | None], *, number: int) -> dict[str, str]:
    """The addresses on which the nth of `number` processes listens, by setting: each on the port after the one before.

    Settings without an address are left out. Raises SettingsInvalid if there are not enough ports.
    """
    own, taken = dict[str, str](), set[str]()
    for name, address in addresses.items():
        if not address:
            continue
        host, _, port = address.rpartition(":")
        all_addresses = [f"{host}:{int(port) + each}" for each in range(number)]
        if int(port) + number > PORTS or not taken.isdisjoint(all_addresses):
            raise SettingsInvalid(
                f"BELLWIRE_{name.upper()}: {number} processes need {number} ports from {port} on, up to {PORTS - 1} and "
                "different from those of the other address"
            )
        taken.update(all_addresses)
        own[name] = all_addresses[nth]
    return own
