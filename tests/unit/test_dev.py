"""The file of variables that `dev` writes: a shell reads it, and only its owner."""

import stat
import subprocess
from pathlib import Path

import pytest

from starter.cli.admin.dev import write_variables
from starter.operations.problems import InputInvalid

ODD = {"BELLWIRE_REGISTRY_URL": "sqlite:////tmp/a 'b' $(c) `d`/registry.db", "TEMPORAL_NAMESPACE": "default"}


def test_a_shell_reads_the_values_as_they_are(tmp_path: Path) -> None:
    write_variables(tmp_path / "dev.env", ODD)
    script = f"source '{tmp_path}/dev.env'; printf '%s' \"$BELLWIRE_REGISTRY_URL\""
    printed = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    assert printed.stdout == ODD["BELLWIRE_REGISTRY_URL"]


def test_only_its_owner_reads_it_even_if_it_was_there_before(tmp_path: Path) -> None:
    file = tmp_path / "new" / "dev.env"
    write_variables(file, ODD)
    file.chmod(0o644)
    write_variables(file, ODD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_is_refused_by_its_option(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="cannot be written"):
        write_variables(tmp_path, ODD)
