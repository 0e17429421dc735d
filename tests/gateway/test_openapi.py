"""The OpenAPI document is true: requests that are made from it find no contradiction, one by one and in sequences."""

import asyncio
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from bellwire.keys.api_keys import Scope
from docs.generator.http_api import openapi
from starter.checkout import CHECKOUT
from starter.gateway.api.resources.request_schemas import of_requests
from tests.acceptance.conftest import running_gateway, running_system
from tests.gateway.conftest import Served

#: Another seed makes other requests; a failure names its own.
SEED = os.environ.get("BELLWIRE_FAULT_SEED", "1")
#: Requests per operation of the phases that make random ones, and seconds for all of a phase.
EXAMPLES, SECONDS = 5, 200


async def test_a_method_that_a_path_has_not_is_refused_with_those_that_it_has(served: Served) -> None:
    for path, methods in (
        ("/v1/events", "GET, POST"),
        ("/v1/events/precheck", "POST"),
        ("/v1/limits/sms", "DELETE, PUT"),
    ):
        refused = await served.call("OPTIONS", path)
        assert (refused.status, refused.headers["allow"]) == (405, methods), path


def test_no_text_of_a_request_may_have_nul() -> None:
    document = openapi()
    cancelled = document["components"]["schemas"]["CancelInput"]["properties"]["subscription"]["anyOf"][0]
    assert not re.search(cancelled["pattern"], "a\x00b")
    for schema in of_requests(document):
        if schema.get("type") == "string" and not schema.keys() & {"format", "enum", "const"}:
            assert not re.search(schema["pattern"], "\x00"), schema


def test_the_checks_from_the_document_allow_made_up_cursors_and_preferences_to_be_refused() -> None:
    # The checks make such a value in one run of many, so a missing operation would seldom fail them.
    allowed = set[str]()
    for operation in tomllib.loads((CHECKOUT / "schemathesis.toml").read_text())["operations"]:
        if 400 in operation["checks"]["positive_data_acceptance"]["expected-statuses"]:
            names = operation["include-name"]
            allowed |= {names} if isinstance(names, str) else set(names)
    concerned = {
        f"{method.upper()} {path}"
        for path, methods in openapi()["paths"].items()
        for method, operation in methods.items()
        if {"cursor", "prefer"} & {parameter["name"].lower() for parameter in operation.get("parameters", [])}
    }
    assert len(concerned) > 10
    assert concerned <= allowed


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("phases", ["examples,coverage,fuzzing", "stateful"])
async def test_requests_made_from_the_document_find_no_contradiction(tmp_path: Path, phases: str) -> None:
    # No request leaves this machine: webhooks to made-up hosts go to a proxy that is not there.
    async with (
        running_system(
            tmp_path,
            BELLWIRE_EGRESS_PROXY="http://127.0.0.1:9",
            BELLWIRE_API_RATE="0",
            BELLWIRE_PUBLISH_RATE="0",
        ) as system,
        running_gateway(system, log=tmp_path / "gateway.log") as url,
    ):
        key = (await system.registry.api_keys.create(Scope.parse("admin"))).key
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CHECKOUT / "schemathesis.toml")),
            *("run", f"{url}/v1/openapi.json", "--checks", "all", "--phases", phases, "--seed", SEED, "--no-color"),
            *("--max-examples", str(EXAMPLES), "--max-time", str(SECONDS), "--generation-database", "none"),
            *("--header", f"Authorization: Bearer {key}"),
            # Sequences find the key that is used in the list of keys, and would revoke it.
            *(("--exclude-path-regex", "/api-keys/.*/(revoke|rotate)") if phases == "stateful" else ()),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
