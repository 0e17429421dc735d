"""Postfix and Exim from Debian packages, each in a temporary folder, on a free port of the loopback interface.

Both deliver mail for ann, jürgen and bounces (with any +suffix) at here.test into Maildirs, refuse other addresses of
here.test, and relay mail for far.test to the port `far`. They start as root and change to their own users.
"""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from starter.local.processes import free_port
from starter.local.receivers.mailbox import self_signed

USERS = ("ann", "jürgen", "bounces")
#: Seconds for a server to start, to stop, or to deliver one mail.
TIMEOUT = 20.0


class MailServer:
    """One instance; `port` on 127.0.0.1."""

    name: ClassVar[str]
    program: ClassVar[str]
    user: ClassVar[str]

    def __init__(self, folder: Path, far: int) -> None:
        self.folder, self.far, self.port = folder, far, free_port()
        self.certificate = folder / "certificate.pem"
        self.certificate.write_bytes(self_signed("127.0.0.1"))
        self.certificate.chmod(0o644)
        (folder / "mail").mkdir()

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; None if it can."""
        if shutil.which(cls.program) is None:
            return f"{cls.name} is not installed; .ci/mail-servers installs it on Debian"
        if os.geteuid() != 0:
            return f"{cls.name} starts as root only"
        try:
            pwd.getpwnam(cls.user)
        except KeyError:
            return f"{cls.name} has no user {cls.user}; .ci/mail-servers makes it on Debian"
        return None

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def log(self) -> str:
        """Its log, for failed tests."""
        return "\n".join(file.read_text(errors="replace") for file in sorted((self.folder / "log").iterdir()))

    async def ready(self) -> None:
        """Wait until it accepts connections."""
        try:
            async with asyncio.timeout(TIMEOUT):
                while not await self._greets():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.name} does not accept connections:\n{self.log()}") from None

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"220")
        finally:
            writer.close()
            await writer.wait_closed()

    async def delivered(self, user: str, count: int = 1) -> list[bytes]:
        """Wait for `count` mails in the user's Maildir."""
        folder = self.folder / "mail" / user / "new"
        try:
            async with asyncio.timeout(TIMEOUT):
                while not folder.is_dir() or len(list(folder.iterdir())) < count:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.name} has not delivered to {user}:\n{self.log()}") from None
        return [file.read_bytes() for file in sorted(folder.iterdir())]


#: Postfix's services: name, maximum processes, program.
_INTERNAL = (
    "cleanup 0 cleanup",
    "rewrite - trivial-rewrite",
    "bounce 0 bounce",
    "defer 0 bounce",
    "trace 0 bounce",
    "verify 1 verify",
    "flush 0 flush",
    "proxymap - proxymap",
    "smtp - smtp",
    "relay - smtp",
    "error - error",
    "retry - error",
    "virtual - virtual",
    "anvil 1 anvil",
    "scache 1 scache",
    "tlsmgr 1 tlsmgr",
)
_PUBLIC = {"cleanup", "flush"}


class Postfix(MailServer):
    name, program, user = "Postfix", "postfix", "postfix"

    def start(self) -> None:
        folder, nobody = self.folder, pwd.getpwnam("nobody")
        for name in ("conf", "spool", "data", "log"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", self.user)
        shutil.chown(folder / "mail", nobody.pw_uid, nobody.pw_gid)
        (folder / "conf" / "boxes").write_text("".join(f"{user}@here.test {user}/\n" for user in USERS))
        (folder / "conf" / "transport").write_text(f"far.test smtp:[127.0.0.1]:{self.far}\n")
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": folder / "spool",
            "data_directory": folder / "data",
            "maillog_file": folder / "log" / "postfix.log",
            "maillog_file_prefixes": folder,
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "mx.here.test",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "mynetworks": "127.0.0.0/8",
            "virtual_mailbox_domains": "here.test",
            "virtual_mailbox_base": folder / "mail",
            "virtual_mailbox_maps": f"texthash:{folder}/conf/boxes",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "recipient_delimiter": "+",
            "relay_domains": "far.test",
            "transport_maps": f"texthash:{folder}/conf/transport",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_received_header": "yes",
            "smtpd_tls_chain_files": self.certificate,
        }
        (folder / "conf" / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        lines = [
            f"127.0.0.1:{self.port} inet n - n - - smtpd",
            "pickup unix n - n 60 1 pickup",
            "qmgr unix n - n 300 1 qmgr",
        ]
        for service in _INTERNAL:
            service_name, maximum, program = service.split()
            private = "n" if service_name in _PUBLIC else "-"
            # The local delivery agent starts as root and changes to the owner of the folder.
            unprivileged = "n" if service_name == "virtual" else "-"
            lines.append(f"{service_name} unix {private} {unprivileged} n - {maximum} {program}")
        lines.append("postlog unix-dgram n - n - 1 postlogd")
        (folder / "conf" / "master.cf").write_text("\n".join(lines) + "\n")
        self._run("start")

    def stop(self) -> None:
        self._run("stop")

    def _run(self, command: str) -> None:
        result = subprocess.run(
            [self.program, "-c", str(self.folder / "conf"), command], capture_output=True, text=True, timeout=TIMEOUT
        )
        if result.returncode:
            raise AssertionError(f"postfix {command}: {result.stderr}\n{self.log()}")


_EXIM = """
exim_path = {program}
exim_user = {user}
exim_group = {user}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/exim.pid
primary_hostname = mx.here.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
deliver_drop_privilege = true
keep_environment =
smtputf8_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = {certificate}
acl_smtp_rcpt = recipient
acl_smtp_data = accept

begin acl
recipient:
  deny message = 550 5.1.1 no such user here
       domains = here.test
       !verify = recipient
  accept hosts = 127.0.0.1

begin routers
here:
  driver = accept
  domains = here.test
  local_parts = {users}
  local_part_suffix = +*
  local_part_suffix_optional
  transport = maildir
far:
  driver = manualroute
  domains = far.test
  route_list = * 127.0.0.1
  self = send
  transport = onward

begin transports
maildir:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  return_path_add
  user = {user}
onward:
  driver = smtp
  port = {far}
  allow_localhost
  hosts_try_dane =

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_condition = ${{if and{{{{eq{{$auth2}}{{bell}}}}{{eq{{$auth3}}{{wire}}}}}}}}
"""


class Exim(MailServer):
    name, program, user = "Exim", "exim4", "Debian-exim"

    def start(self) -> None:
        for name in ("spool", "log"):
            (self.folder / name).mkdir()
        for name in ("spool", "log", "mail"):
            shutil.chown(self.folder / name, self.user, self.user)
        shutil.chown(self.folder, self.user, self.user)
        config = self.folder / "exim.conf"
        config.write_text(
            _EXIM.format(
                program=shutil.which(self.program),
                user=self.user,
                folder=self.folder,
                port=self.port,
                far=self.far,
                users=" : ".join(USERS),
                certificate=self.certificate,
            )
        )
        with (self.folder / "log" / "stderr").open("wb") as errors:
            self._process = subprocess.Popen([self.program, "-C", str(config), "-bdf"], stderr=errors)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)


SERVERS: tuple[type[MailServer], ...] = (Postfix, Exim)


@contextmanager
def running(kind: type[MailServer], far: int) -> Iterator[MailServer]:
    """A running instance. Its folder is not one of pytest's, which other users cannot enter."""
    folder = Path(tempfile.mkdtemp(prefix="bellwire-mta-"))
    folder.chmod(0o755)
    try:
        server = kind(folder, far)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
