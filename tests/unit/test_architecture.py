"""Who may import whom, and that what is declared is what runs."""

import ast
import base64
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import SecretStr
from temporalio import activity
from temporalio.testing import WorkflowEnvironment

import worker
from activities.channels import open_channels
from activities.email.opening import dkim_signer
from activities.handler.calls import HandlerCalling
from activities.handler.registration import HandlerRegistry
from activities.recalling import Recaller
from activities.replaying import Replayer
from activities.resolve import Resolver
from activities.sending.inline import InlineSender
from activities.sending.recalls import Recalls
from activities.sending.test_sends import TestSends
from activities.ticks import Ticks
from bellwire import contract
from bellwire.client import Client
from bellwire.nexus.following import Follower, follow_event
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.targets import SPECS, WORKER_CHANNELS

CHECKOUT = Path(__file__).parents[2]
APPLICATION = ("workflows", "activities", "starter", "worker")
#: What each part of the application must not import; the arrows of the design.
FORBIDDEN = {
    "bellwire": {*APPLICATION, "tests", "docs", "benchmarks", "examples"},
    "workflows": {"activities", "starter", "worker", "tests", "docs", "benchmarks", "examples"},
    "activities": {"workflows", "starter", "worker", "tests", "docs", "benchmarks", "examples"},
    "starter": {"workflows", "activities", "worker", "tests", "docs", "benchmarks", "examples"},
    "worker.py": {"starter", "tests", "docs", "benchmarks", "examples"},
    "examples": {*APPLICATION, "tests", "docs", "benchmarks"},
}
#: Libraries that talk to something, or bring what does.
IO_LIBRARIES = {
    "aiohttp",
    "aiosmtplib",
    "alembic",
    "asyncpg",
    "httpx",
    "jinja2",
    "pydantic_settings",
    "requests",
    "sqlalchemy",
    "structlog",
    "twilio",
    "urllib3",
}
#: What dials, or makes a client that does.
DIALLERS = {
    *("ClientSession", "TCPConnector", "UnixConnector", "open_connection", "create_connection", "urlopen"),
    *("AsyncClient", "HTTPConnection", "HTTPSConnection"),
}
#: The folder that makes the client for untrusted addresses.
GUARD = {"activities/egress"}
#: Folders that make clients for addresses that operators configure: providers, services of the embedded stack, and
#: a developer's own program.
TRUSTED_CLIENTS = {
    *(
        "activities/providers",
        "activities/push",
        "bellwire/cli",
        "bellwire/http",
        "starter/gateway",
        "starter/local",
        "starter/local/receivers/providers",
        "starter/local/receivers",
        "starter/local/receivers/providers",
    )
}
#: `worker.py` composes without touching the registry.
NO_REGISTRY = cast(Registry, None)
#: What the workflows' own worker runs.
LOCAL_ACTIVITIES = [
    *Resolver(NO_REGISTRY).activities,
    *Replayer(NO_REGISTRY).activities,
    *Recaller(NO_REGISTRY, cast(Any, None)).activities,
    *Ticks(NO_REGISTRY).activities,
    InlineSender(NO_REGISTRY, {}, limit=1).send_inline,
    *HandlerCalling(NO_REGISTRY).activities,
    *HandlerRegistry(NO_REGISTRY).activities,
    Follower(cast(Client, None)).follow_event,
]

STUBS = {
    definition.name: stub
    for stub in [*vars(contract).values(), *contract.SEND.values(), follow_event]
    if callable(stub) and (definition := activity._Definition.from_callable(stub)) and definition.name
}


def sources(*parts: str) -> Iterator[Path]:
    for part in parts:
        found = CHECKOUT / part
        yield from [found] if found.is_file() else sorted(found.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Dotted names that a file imports, at any depth of its code; of `from a import b` both `a` and `a.b`."""
    names: set[str] = set()
    package = file.relative_to(CHECKOUT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def modules_after(statement: str) -> set[str]:
    """Top-level names that a fresh interpreter has loaded by the statement, and had not before."""
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in found.stdout.split()}


def called(file: Path) -> set[str]:
    """Last names of what a file calls or makes subclasses of."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    used = [node.func for node in nodes if isinstance(node, ast.Call)]
    used += [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
    dotted = {each.attr for each in used if isinstance(each, ast.Attribute)}
    return dotted | {each.id for each in used if isinstance(each, ast.Name)}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_follow_the_arrows(part: str) -> None:
    wrong = {
        f"{file.relative_to(CHECKOUT)} imports {name}"
        for file in sources(part)
        for name in imported(file)
        if name.partition(".")[0] in FORBIDDEN[part]
    }
    assert not wrong


def test_only_the_entry_points_read_settings() -> None:
    readers = {
        file.relative_to(CHECKOUT).parts[0]
        for file in sources("bellwire", "workflows", "activities", "starter", "worker.py", "examples")
        if file.name != "settings.py" and "bellwire.service.settings.Settings" in imported(file)
    }
    assert readers == {"starter", "worker.py"}


def test_only_settings_read_the_environment() -> None:
    readers = {
        str(file.relative_to(CHECKOUT))
        for file in sources("bellwire", "workflows", "activities", "worker.py")
        if re.search(r"\bos\.(environ|getenv)\b", file.read_text())
    }
    assert readers == {"bellwire/service/settings.py"}


def test_untrusted_addresses_are_dialled_through_the_guard_only() -> None:
    """`Egress.session` makes the client for addresses that tenants choose."""
    makers = {
        str(file.parent.relative_to(CHECKOUT))
        for file in sources("bellwire", "activities", "starter", "worker.py")
        if DIALLERS & called(file)
    }
    assert makers == GUARD | TRUSTED_CLIENTS


def test_workflows_bring_no_library_that_does_io() -> None:
    assert not modules_after("import workflows") & IO_LIBRARIES


def test_importing_bellwire_needs_nothing_but_its_base_dependencies() -> None:
    needed = _closure({"pydantic", "temporalio"})
    by_module = packages_distributions()
    third_party = {
        name: {canonicalize_name(distribution) for distribution in by_module[name]}
        for name in modules_after("import bellwire, bellwire.client, bellwire.webhooks")
        if name in by_module and name not in {"bellwire", *sys.stdlib_module_names}
    }
    assert {name for name, distributions in third_party.items() if not distributions & needed} == set()
    assert {"pydantic", "temporalio"} <= third_party.keys()


def _closure(names: set[str]) -> set[str]:
    """The distributions and all that they require here, without extras."""
    closed: set[str] = set()
    while names - closed:
        name = (names - closed).pop()
        closed.add(name)
        found = map(Requirement, requires(name) or ())
        names |= {
            canonicalize_name(each.name) for each in found if each.marker is None or each.marker.evaluate({"extra": ""})
        }
    return closed


def test_every_stub_has_exactly_one_channel_or_is_run_by_the_workflow_worker() -> None:
    sends = {_name(stub) for stub in contract.SEND.values()}
    local = {_name(implementation) for implementation in LOCAL_ACTIVITIES}
    assert contract.SEND.keys() == set(WORKER_CHANNELS)
    assert len(sends) == len(contract.SEND)
    assert not sends & local
    # Every channel sends tests, by one implementation, and some take messages back.
    of_channels = {contract.send_test.__name__, contract.recall_messages.__name__}
    assert sends | local | of_channels == STUBS.keys()


async def test_every_stub_has_one_implementation_of_its_name_and_types() -> None:
    async with open_channels(Settings(), NO_REGISTRY) as senders:
        implementations = [
            *LOCAL_ACTIVITIES,
            *(sender.activity for sender in senders.values()),
            TestSends(NO_REGISTRY, {}).send_test,
            Recalls(NO_REGISTRY, cast(Any, None)).recall_messages,
        ]
        for channel, sender in senders.items():
            recalls = [contract.recall_messages] if SPECS[channel].recalls else []
            assert [*map(_name, sender.activities)] == [*map(_name, (contract.SEND[channel], *recalls))]
    assert sorted(map(_name, implementations)) == sorted(STUBS)
    for implementation in implementations:
        assert _types(implementation) == _types(STUBS[_name(implementation)]), _name(implementation)


def _name(implementation: Any) -> str:
    name = activity._Definition.must_from_callable(implementation).name
    assert name
    return name


def _types(function: Any) -> tuple[bool, dict[str, Any]]:
    """Whether it is a coroutine function, and the types of its arguments and result by name."""
    return inspect.iscoroutinefunction(function), get_type_hints(function)


def test_mails_are_signed_and_linked_with_what_the_settings_say() -> None:
    assert (Settings().links, dkim_signer(Settings())) == (None, None)
    settings = Settings(public_url="https://bell.example", link_key=SecretStr(base64.b64encode(b"k" * 32).decode()))
    links = settings.links
    assert links
    assert links.unsubscribe_url("subscription", "ann@example.com").startswith("https://bell.example/unsubscribe/")


async def test_a_key_that_is_none_keeps_the_worker_from_starting() -> None:
    dkim = {"dkim_domain": "bellwire.localhost", "dkim_selector": "bell1", "dkim_key": SecretStr("/no/such.pem")}
    with pytest.raises(ValueError, match=r"^BELLWIRE_DKIM_KEY: is neither PEM"):
        async with open_channels(Settings.read(**dkim), NO_REGISTRY):
            pass


async def test_the_queues_that_are_declared_are_those_that_are_polled(time_skipping: WorkflowEnvironment) -> None:
    declared = {contract.QUEUE, *map(contract.channel_queue, WORKER_CHANNELS)}
    async with worker.polling(time_skipping.client, NO_REGISTRY, Settings(), WORKER_CHANNELS) as workers:
        polled = [each.task_queue for each in workers]
    assert sorted(polled) == sorted(declared)


def test_a_narrowed_worker_takes_the_names_of_channels_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        worker.main(["--channels", "email,pigeon"])
    assert f"channels are {', '.join(WORKER_CHANNELS)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "package",
    sorted({file.parent for file in sources("bellwire", "workflows") if file.name == "__init__.py"}),
    ids=lambda path: path.name,
)
def test_all_is_sorted_and_names_what_is_public(package: Path) -> None:
    module = importlib.import_module(".".join(package.relative_to(CHECKOUT).parts))
    if not hasattr(module, "__all__"):
        assert not _public(module)
        return
    assert module.__all__ == sorted(_public(module), key=_rank)


def _rank(name: str) -> tuple[bool, bool, str]:
    """The order in which ruff sorts names: constants, classes, functions."""
    return not name.isupper(), not name[0].isupper(), name


def _public(module: Any) -> set[str]:
    """What a module defines or imports under a public name, other than modules."""
    return {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
