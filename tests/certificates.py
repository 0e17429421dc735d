"""Certificates for tests: an authority, and certificates that it signs."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_PEM = serialization.Encoding.PEM


class Authority:
    """A certificate authority; `pem` is its certificate."""

    def __init__(self, name: str = "Test authority") -> None:
        self._key = new_key()
        self._name = _named(name)
        certificate = (
            _unsigned(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(_PEM).decode()

    def certificate(self, name: str, key: Key | None = None, *, days: float = 1, password: bytes | None = None) -> str:
        """PEM of a certificate for 127.0.0.1, and of its key."""
        key = key or new_key()
        certificate = (
            _unsigned(_named(name), self._name, key, days=days)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return (
            certificate.public_bytes(_PEM) + key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, encryption)
        ).decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def parts(pem: str) -> tuple[str, str]:
    """The certificate and the key in what `Authority.certificate` returns."""
    certificate, end, key = pem.partition("-----END CERTIFICATE-----\n")
    return certificate + end, key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _unsigned(subject: x509.Name, issuer: x509.Name, key: Key, *, days: float = 1) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
    )
