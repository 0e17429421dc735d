"""The command `relay`: what it refuses."""

from typer.testing import CliRunner

from starter.cli.admin.relay import MAX_POLL
from starter.cli.main import app
from starter.relay.postgres import IDLE_TIMEOUT


def test_an_idle_relay_reads_before_the_server_closes_its_connection() -> None:
    assert MAX_POLL < IDLE_TIMEOUT
    refused = CliRunner().invoke(app, ["relay", "--poll", str(IDLE_TIMEOUT)])
    assert (refused.exit_code, "less than or equal to 20" in refused.output) == (2, True), refused.output
