"""The one typed settings object: a default, a TOML key, an environment variable and a line of help for each.

Precedence: command line > environment > TOML file > default. An unknown TOML key is an error that names it; an
unknown `PACSLITE_*` variable is one warning. Every secret may be given as `PACSLITE_<NAME>_FILE` too.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_type_hints

from pacslite.errors import ConfigurationError

PREFIX = "PACSLITE_"
SYSLOG_TARGET = re.compile(r"(tls|tcp|udp)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?")
"""Transport, host and port of `audit_syslog`."""


def _setting(default: Any, help: str, *, secret: bool = False, choices: tuple[str, ...] = (), minimum: int | None = None) -> Any:
    metadata = {"help": help, "secret": secret, "choices": choices, "minimum": minimum}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port; port 0 asks the system for a free one. `text` is `HOST:PORT`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`HOST:PORT`, `[IPV6]:PORT`; raises ConfigurationError."""
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d{1,5})", text.strip())
        if not found or int(found[3]) > 65535:
            raise ConfigurationError(f"{text!r} is not HOST:PORT")
        return cls(found[1] or found[2] or "127.0.0.1", int(found[3]))

    @property
    def text(self) -> str:
        """The address as it is written in settings."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", self.host) is not None


@dataclass(frozen=True)
class Settings:
    """All settings of every role. Paths are absolute after `load`; sizes in bytes, spans in seconds."""

    data: Path = _setting(Path("data"), "Directory of catalog.db, storage/, spool/ and cache/.")
    http: Address = _setting(Address("127.0.0.1", 8080), "Address of the web server, HOST:PORT.")
    dicom: Address = _setting(Address("127.0.0.1", 11112), "Address of the DICOM listener, HOST:PORT.")
    dicom_tls: Address | None = _setting(None, "Address of the DICOM listener over TLS; the address of `dicom` makes that TLS only.")
    aet: str = _setting("PACSLITE", "Application entity title of the listener, 1-16 characters.")
    auth: bool = _setting(True, "Whether callers must log in; off only on loopback addresses.")
    log_level: str = _setting("info", "How much is logged.", choices=("debug", "info", "warning", "error"))
    access_log: bool = _setting(False, "Whether every web request is a line in the log.")
    trace_endpoint: str | None = _setting(None, "URL that traces are sent to, OTLP over HTTP (.../v1/traces); needs pacslite[otel].")

    storage: str = _setting("filesystem", "Where bytes are kept.", choices=("filesystem", "s3"))
    storage_root: Path | None = _setting(None, "Root of the filesystem storage; <data>/storage when not set.")
    database_url: str | None = _setting(None, "SQLAlchemy URL of the catalog; SQLite in <data> when not set.", secret=True)
    s3_endpoint: str | None = _setting(None, "URL of the S3 service; the vendor's own when not set.")
    s3_public_endpoint: str | None = _setting(None, "URL of the S3 service as clients see it, for presigned URLs.")
    s3_bucket: str | None = _setting(None, "Bucket of the S3 storage.")
    s3_access_key: str | None = _setting(None, "Access key of the S3 storage.", secret=True)
    s3_secret_key: str | None = _setting(None, "Secret key of the S3 storage.", secret=True)
    s3_region: str | None = _setting(None, "Region of the S3 storage.")
    s3_prefix: str = _setting("", "Prefix put before every key in the bucket.")
    filesystem_name: str = _setting("filesystem", "Name of the filesystem storage in the catalog.")
    s3_name: str = _setting("s3", "Name of the S3 storage in the catalog.")
    archive_root: Path | None = _setting(None, "Root of a further filesystem storage, to which old bytes may be moved.")
    archive_s3_bucket: str | None = _setting(None, "Bucket of a further S3 storage, to which old bytes may be moved.")
    archive_s3_endpoint: str | None = _setting(None, "URL of its S3 service; s3_endpoint when not set, like the next ones.")
    archive_s3_access_key: str | None = _setting(None, "Access key of the archive's bucket.", secret=True)
    archive_s3_secret_key: str | None = _setting(None, "Secret key of the archive's bucket.", secret=True)
    archive_s3_region: str | None = _setting(None, "Region of the archive's bucket.")
    archive_s3_prefix: str = _setting("", "Prefix put before every key in the archive's bucket.")
    archive_name: str = _setting("archive", "Name of the archive storage in the catalog.")

    secret_key: str | None = _setting(None, "Key that signs tokens and URLs; made and kept in <data> when not set.", secret=True)
    previous_secret_keys: str | None = _setting(
        None, "Earlier secret keys, separated by commas, whose tokens are still believed.", secret=True
    )
    admin_user: str | None = _setting(None, "Name of the first administrator, made once.")
    admin_password: str | None = _setting(None, "Password of the first administrator, used once.", secret=True)
    access_token_seconds: int = _setting(900, "Life of an access token.", minimum=1)
    refresh_token_seconds: int = _setting(14 * 86400, "Life of a login by token, however often it is refreshed.", minimum=1)
    session_seconds: int = _setting(12 * 3600, "Life of a login by browser.", minimum=1)
    password_min_length: int = _setting(8, "Characters of the shortest password that is taken.", minimum=8)
    login_attempts: int = _setting(5, "Failed logins after which a name is locked for an address.", minimum=1)
    login_lock_s: int = _setting(300, "Time for which it is locked.", minimum=1)
    cors_origins: tuple[str, ...] = _setting((), "Origins that get CORS headers, separated by commas.")
    public_url: str | None = _setting(None, "URL under which clients reach the server, with a path prefix if any.")
    trusted_proxies: tuple[str, ...] = _setting((), "Addresses and networks whose Forwarded and X-Forwarded-* headers are believed.")
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Hosts served beside loopback names and that of public_url, `*` for all; when not set, a loopback address serves no others."
    )
    metrics_public: bool = _setting(False, "Whether /metrics needs no login.")
    max_upload_bytes: int = _setting(64 * 1024**3, "Largest body of one upload or STOW request.", minimum=1)
    upload_expiry_s: int = _setting(86400, "Time after which a resumable upload ends to which nothing has come.", minimum=1)
    max_open_uploads: int = _setting(1000, "Resumable uploads that an account may have under way at once.", minimum=1)
    default_quota_bytes: int = _setting(0, "What an account may keep in files that has no quota of its own; 0 for no limit.", minimum=0)
    total_quota_bytes: int = _setting(0, "What all accounts together may keep in files; 0 for no limit.", minimum=0)
    quota_warning_percent: int = _setting(80, "Share of a quota from which on its level is `warning`.", minimum=1)
    quota_critical_percent: int = _setting(95, "Share of a quota from which on its level is `critical`.", minimum=1)
    max_picture_pixels: int = _setting(100_000_000, "Pixels of the largest picture that is taken as a file.", minimum=1)
    file_rate_per_minute: int = _setting(600, "File contents a minute per account.", minimum=1)
    oidc_issuer: str | None = _setting(None, "Issuer of the OpenID provider that users may log in by, as that calls itself.")
    oidc_client_id: str | None = _setting(None, "Name of this server with the OpenID provider.")
    oidc_client_secret: str | None = _setting(None, "Secret of the client; none for a public client.", secret=True)
    oidc_name: str = _setting("single sign-on", "What the login page calls the OpenID provider.")
    oidc_scopes: str = _setting("openid profile", "Scopes asked of the OpenID provider, separated by spaces.")
    oidc_username_claim: str = _setting("preferred_username", "Claim that names an account when it is made at the first login.")
    oidc_role_claim: str = _setting("groups", "Claim that lists the user's groups; `a.b` is b within a.")
    oidc_roles: dict[str, Any] = _setting({}, "JSON object {group: admin|clinician|viewer}; of several the strongest counts.")
    oidc_default_role: str = _setting("", "Role where groups give none; else that user is refused.", choices=("", "clinician", "viewer"))
    login_rate_per_minute: int = _setting(240, "Attempts to log in a minute, per address and per name; 0 for no limit.", minimum=0)
    api_rate_per_minute: int = _setting(6000, "Calls of /api/v1 a minute per account; 0 for no limit.", minimum=0)
    dicomweb_rate_per_minute: int = _setting(0, "Calls of /dicom-web a minute per account; 0 for no limit.", minimum=0)
    hsts_seconds: int = _setting(31_536_000, "For how long browsers that came by TLS use nothing else (HSTS); 0 to not ask it.", minimum=0)

    web_processes: int = _setting(2, "Processes of the web role.", minimum=1)
    web_threads: int = _setting(8, "Threads of each web process.", minimum=1)
    web_waiting: int = _setting(64, "Bodies each web process waits for at once, half of them of one address; beyond it 503.", minimum=1)
    web_min_bytes_per_s: int = _setting(1000, "Slowest a body may come, once network_timeout_s was spent waiting for it.", minimum=0)
    dimse_processes: int = _setting(3, "Processes of the DICOM listener.", minimum=1)
    max_associations: int = _setting(100, "Associations held at once by each DICOM process.", minimum=1)
    max_pdu_bytes: int = _setting(131072, "Largest P-DATA PDU received, offered in the negotiation.", minimum=4096)
    acse_timeout_s: int = _setting(30, "Time for an association request to arrive.", minimum=1)
    network_timeout_s: int = _setting(60, "Time a DICOM peer, or a web client in the middle of a request, may stay silent.", minimum=1)
    move_associations: int = _setting(1, "Associations by which one C-MOVE sends at once, when there is enough to send.", minimum=1)
    max_associations_per_address: int = _setting(0, "Of these, how many from one address; 0 for no limit of its own.", minimum=0)
    called_aet_policy: str = _setting("own", "Which called AE titles are accepted.", choices=("own", "any"))
    dicom_unknown_callers: str = _setting(
        "loopback", "From where calling AE titles that are no peers are accepted.", choices=("loopback", "accept", "refuse")
    )
    dicom_unknown_groups: tuple[str, ...] = _setting(
        (), "Groups of callers that are no peers and name no user, separated by commas: they see what admits one of these."
    )
    dicom_check_peer_host: bool = _setting(True, "Whether a peer may call only from the addresses of its host, or over loopback.")
    dicom_user_identity: str = _setting(
        "ignore", "Whether user identities of associations are checked, and needed.", choices=("ignore", "check", "required")
    )
    dicom_tls_certificate: Path | None = _setting(None, "Certificate of the DICOM listener with its chain, PEM; shown to peers too.")
    dicom_tls_key: Path | None = _setting(None, "Key of the certificate, PEM; in the file of the certificate when not set.")
    dicom_tls_key_password: str | None = _setting(None, "Password of an encrypted key.", secret=True)
    dicom_tls_ca: Path | None = _setting(
        None, "Authorities that DICOM callers and peers are verified by, PEM; for peers else the system's."
    )
    dicom_tls_client_certificates: str = _setting(
        "required", "Whether DICOM callers over TLS show a certificate.", choices=("none", "optional", "required")
    )
    dicom_tls_version: str = _setting("1.2", "Oldest version of TLS for DICOM.", choices=("1.2", "1.3"))
    dicom_tls_check_host: bool = _setting(True, "Whether the certificate of a peer has to name its host.")

    job_threads: int = _setting(2, "Jobs that one worker runs at once, and one more that makes no pictures of files.", minimum=1)
    job_lease_s: int = _setting(60, "Time after which the job of a worker that was killed is taken up again.", minimum=2)
    peer_jobs: int = _setting(1, "Jobs that retrieve from or send to the same peer at once.", minimum=1)
    commitment_wait_hours: int = _setting(24, "Hours for which a peer's report on storage commitment is awaited.", minimum=1)
    job_retention_days: int = _setting(90, "Days for which jobs that are over are remembered.", minimum=1)

    audit_repeat_s: int = _setting(
        300, "Time within which the same access of the same study by the same caller is counted, not recorded anew.", minimum=0
    )
    audit_keep_days: int = _setting(0, "Days after which audit entries go into a file of <data>/audit; 0 keeps them all.", minimum=0)
    audit_syslog: str = _setting("", "Where audit messages go: tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT; nowhere when empty.")
    audit_syslog_ca: Path | None = _setting(None, "Authorities that the syslog server is verified by, PEM; else the system's.")
    audit_syslog_certificate: Path | None = _setting(None, "Certificate that is shown to the syslog server, with its key, PEM.")
    audit_source_id: str = _setting("", "AuditSourceID of audit messages; the name of the host when empty.")

    duplicate_policy: str = _setting(
        "version", "What other content under a known UID becomes.", choices=("version", "refuse", "keep_first")
    )
    max_versions_per_instance: int = _setting(100, "Versions kept of one instance.", minimum=1)
    max_versions_per_file: int = _setting(1000, "Versions kept of one file that is no instance.", minimum=1)
    default_issuer: str = _setting("", "Issuer of Patient ID when an instance names none.")
    coercion_warnings: bool = _setting(False, "Whether C-STORE answers B000 for accepted deviations.")
    max_header_bytes: int = _setting(256 * 1024**2, "Largest data set without pixel data and bulk data.", minimum=1024)
    max_sequence_depth: int = _setting(64, "Deepest nesting of sequences that is read.", minimum=1)
    max_inflated_bytes: int = _setting(8 * 1024**3, "Largest data set after inflating a deflated one.", minimum=1024)
    bulk_threshold_bytes: int = _setting(1024, "Values longer than this become bulk data in metadata.", minimum=0)
    match_ignore_case: bool = _setting(False, "Whether LO and SH match without regard to case.")
    query_default_limit: int = _setting(1000, "Matches of a QIDO-RS search that names no limit.", minimum=1)
    query_max_limit: int = _setting(10000, "Most matches of one QIDO-RS search.", minimum=1)
    find_max_matches: int = _setting(100_000, "Most matches of one C-FIND; with more its final status is B001.", minimum=1)
    max_search_documents: int = _setting(
        10000, "Stored metadata documents that one search for attributes without an index looks into.", minimum=1
    )
    index_attributes: tuple[str, ...] = _setting(
        (), "Attributes indexed besides the usual ones, by keyword, or KEYWORD:LEVEL (patient, study, series, instance)."
    )
    max_stow_parts: int = _setting(10000, "Parts of one STOW-RS body.", minimum=1)
    max_retrieve_instances: int = _setting(100_000, "Instances that one DICOMweb request may retrieve.", minimum=1)
    max_stow_metadata_bytes: int = _setting(16 * 1024**2, "Largest JSON or XML metadata of one STOW-RS body.", minimum=1024)
    free_space_reserve_bytes: int = _setting(256 * 1024**2, "Room on the disk of the spool that no instance may use up.", minimum=0)
    disk_warning_bytes: int = _setting(2 * 1024**3, "Room on a disk below which /health/ready says degraded.", minimum=0)
    max_rendered_pixels: int = _setting(50_000_000, "Pixels of the largest picture that is rendered, an animation's in all.", minimum=1)
    strict_accept: bool = _setting(False, "Whether a DICOMweb request without Accept is refused (406).")
    removal_grace_s: int = _setting(86400, "Time between a deletion and the erasure of bytes.", minimum=0)
    trash_days: int = _setting(30, "Days after which files in the trash are erased for good; 0 keeps them.", minimum=0)
    verify_days: int = _setting(30, "Days within which every stored blob is read and verified, bit by bit; 0 for never.", minimum=0)
    retention_policies: dict[str, Any] = _setting(
        {}, "JSON object {name: {action: archive|trash|purge, older_than_days, file_types?, modalities?, to?}}, done once a day."
    )
    write_ahead_bytes: int = _setting(
        64 * 1024, "Up to this size a file is kept in SQLite's log until its storage has it on the disk; at most 64 KiB.", minimum=0
    )
    sweep_interval_s: int = _setting(3600, "Time between two sweeps of spool and storage.", minimum=1)
    cache_bytes: int = _setting(1024**3, "Bound of the files in <data>/cache.", minimum=0)
    transcoded_cache_bytes: int = _setting(2 * 1024**3, "Bound of the files in <data>/cache/transcoded, in addition.", minimum=0)
    codec_processes: int = _setting(2, "Codec processes of each web and DICOM process, started when needed.", minimum=1)
    codec_timeout_s: int = _setting(60, "Time one frame may take to decode and encode, and a request waits for its turn.", minimum=1)
    rendition_timeout_s: int = _setting(180, "Time the pictures of one photo, document or model may take.", minimum=1)
    rendition_memory_bytes: int = _setting(3 * 1024**3, "Address space of a process that makes something of a file.", minimum=1024**3)
    video_timeout_s: int = _setting(4 * 3600, "Time the conversion of one video may take.", minimum=1)
    video_threads: int = _setting(2, "Threads of ffmpeg.", minimum=1)
    busy_timeout_s: int = _setting(20, "Time a catalog write waits for its turn before it is Busy.", minimum=1)
    database_timeout_s: int = _setting(
        60, "Time one statement of a PostgreSQL catalog may take in a request; a worker and commands have an hour.", minimum=1
    )

    @property
    def resolved_storage_root(self) -> Path:
        """Root of the filesystem storage."""
        return self.storage_root or self.data / "storage"

    @property
    def resolved_database_url(self) -> str:
        """SQLAlchemy URL of the catalog."""
        return self.database_url or f"sqlite:///{self.data / 'catalog.db'}"

    @property
    def spool_directory(self) -> Path:
        """Where bytes lie that are not accepted yet; on the device of the filesystem storage (architecture, section 3)."""
        root = self.resolved_storage_root
        if self.storage == "filesystem" and self.data.exists() and root.exists() and os.stat(root).st_dev != os.stat(self.data).st_dev:
            return root / ".spool"
        return self.data / "spool"

    @property
    def cache_directory(self) -> Path:
        """Where files lie that can be made again."""
        return self.data / "cache"


FIELDS = {f.name: f for f in fields(Settings)}
_TYPES = get_type_hints(Settings)
_TRUE, _FALSE = frozenset({"1", "true", "on", "yes"}), frozenset({"0", "false", "off", "no", ""})


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def _convert(name: str, value: Any) -> Any:
    """The typed value of a setting from text or TOML; raises ConfigurationError naming the setting."""
    kind, meta = _TYPES[name], FIELDS[name].metadata
    try:
        converted = _convert_kind(kind, value)
    except (ValueError, TypeError, ConfigurationError) as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if meta["choices"] and converted not in meta["choices"]:
        raise ConfigurationError(f"{name}: {converted!r} is none of {', '.join(meta['choices'])}")
    if meta["minimum"] is not None and converted < meta["minimum"]:
        raise ConfigurationError(f"{name}: {converted} is below {meta['minimum']}")
    return converted


def _convert_kind(kind: Any, value: Any) -> Any:
    if kind is bool:
        text = str(value).strip().lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise ValueError(f"{value!r} is not a truth value (1 or 0, on or off)")
    if kind is int:
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?\d+", str(value).strip()):
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    if kind == Address | None and value in (None, ""):
        return None
    if kind in (Address, Address | None):
        return value if isinstance(value, Address) else Address.parse(str(value))
    if kind == tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(p.strip() for p in parts if p.strip())
    if kind == dict[str, Any]:
        parsed = json.loads(value or "{}") if isinstance(value, str) else value
        if not isinstance(parsed, dict):
            raise ValueError("is not a JSON object")
        return parsed
    if kind is Path or kind == Path | None:
        return Path(value).expanduser().absolute() if value not in (None, "") else None
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value if kind is str or value else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"settings file {path}: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, f in FIELDS.items():
        key = variable(name)
        if key in environment:
            found[name] = environment[key]
        elif f.metadata["secret"] and environment.get(key + "_FILE"):
            try:
                found[name] = Path(environment[key + "_FILE"]).read_text().strip()
            except OSError as error:
                raise ConfigurationError(f"{key}_FILE: {error}") from None
    return found


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """`PACSLITE_*` variables that name no setting; for one warning, never an error."""
    known = {variable(n) for n in FIELDS} | {variable(n) + "_FILE" for n, f in FIELDS.items() if f.metadata["secret"]}
    return sorted(k for k in environment if k.startswith(PREFIX) and k not in known | _NOT_SETTINGS)


# Read by the command line or the tests, not settings of a server.
_NOT_SETTINGS = frozenset(
    {
        "PACSLITE_CONFIG",
        "PACSLITE_CORPUS",
        "PACSLITE_HARNESS",
        "PACSLITE_SERVER",
        "PACSLITE_TOKEN",
        "PACSLITE_TEST_FULL",
        "PACSLITE_TEST_SCREENSHOTS",
    }
)


def load(file: Path | None = None, environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """The settings from file (else `PACSLITE_CONFIG`), environment and overrides (None = not given).

    Raises ConfigurationError naming the TOML key, variable or option at fault.
    """
    environment = os.environ if environment is None else environment
    if file is None and environment.get("PACSLITE_CONFIG"):
        file = Path(environment["PACSLITE_CONFIG"])
    values = _read_toml(file) if file else {}
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise ConfigurationError(f"settings file {file}: unknown key {', '.join(unknown)}")
    values |= _from_environment(environment)
    values |= {k: v for k, v in overrides.items() if v is not None}
    settings = Settings(**{name: _convert(name, value) for name, value in values.items()})
    settings = replace(settings, data=settings.data.expanduser().absolute())
    return _checked(settings)


def _checked(settings: Settings) -> Settings:
    if not re.fullmatch(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?", settings.aet):
        raise ConfigurationError(f"aet: {settings.aet!r} is not an AE title (1-16 characters of ISO 646, no backslash)")
    if settings.public_url and not re.fullmatch(
        r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~-]+)*/?", settings.public_url
    ):
        raise ConfigurationError(f"public_url: {settings.public_url!r} is not http(s)://HOST[:PORT][/PREFIX]")
    if settings.trace_endpoint and not re.fullmatch(r"https?://[^\s@/]+(?:/\S*)?", settings.trace_endpoint):
        raise ConfigurationError("trace_endpoint: is not http(s)://HOST[:PORT]/PATH, without a password")
    for one in settings.trusted_proxies:
        try:
            ip_network(one, strict=False)
        except ValueError:
            raise ConfigurationError(f"trusted_proxies: {one!r} is neither an address nor a network (10.0.0.0/8)") from None
    _check_storages(settings)
    _check_policies(settings.retention_policies)
    if settings.dicom_tls and not settings.dicom_tls_certificate:
        raise ConfigurationError("dicom_tls_certificate: TLS for DICOM needs a certificate")
    if settings.dicom_tls and settings.dicom_tls_client_certificates != "none" and not settings.dicom_tls_ca:
        raise ConfigurationError(
            "dicom_tls_ca: callers' certificates need authorities to be verified by; dicom_tls_client_certificates = none asks for none"
        )
    found = SYSLOG_TARGET.fullmatch(settings.audit_syslog)
    if settings.audit_syslog and (found is None or int(found[3] or 1) > 65535):
        raise ConfigurationError(f"audit_syslog: {settings.audit_syslog!r} is not tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT")
    if settings.oidc_issuer:
        _check_oidc(settings, settings.oidc_issuer)
    _check_order(settings)
    return settings


def _check_order(settings: Settings) -> None:
    if settings.query_default_limit > settings.query_max_limit:
        raise ConfigurationError("query_default_limit: is above query_max_limit")
    if not settings.quota_warning_percent <= settings.quota_critical_percent <= 100:
        raise ConfigurationError("quota_critical_percent: is not between quota_warning_percent and 100")


def _check_storages(settings: Settings) -> None:
    if settings.storage == "s3" and not settings.s3_bucket:
        raise ConfigurationError("s3_bucket: the S3 storage needs a bucket")
    if settings.archive_root and settings.archive_s3_bucket:
        raise ConfigurationError("archive_root: there is one archive storage, and archive_s3_bucket names it")
    if settings.archive_root and settings.archive_root == settings.resolved_storage_root:
        raise ConfigurationError("archive_root: is the root of the filesystem storage")
    names = (settings.filesystem_name, settings.s3_name, settings.archive_name)
    for name in names:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,31}", name):
            raise ConfigurationError(f"{name!r} is not a name of a storage (small letters, digits, ._-)")
    if len(set(names)) < len(names):
        raise ConfigurationError("filesystem_name, s3_name, archive_name: two storages have one name")


def _check_policies(policies: Mapping[str, Any]) -> None:
    for name, policy in policies.items():
        at = f"retention_policies: {name}"
        if not isinstance(policy, dict) or set(policy) - {"action", "older_than_days", "file_types", "modalities", "to"}:
            raise ConfigurationError(f"{at} is no object of action, older_than_days, file_types, modalities, to")
        age, lists = policy.get("older_than_days"), [policy.get("file_types", []), policy.get("modalities", [])]
        if policy.get("action") not in ("archive", "trash", "purge"):
            raise ConfigurationError(f"{at}: its action is none of archive, trash, purge")
        if isinstance(age, bool) or not isinstance(age, int | float) or age < 1:
            raise ConfigurationError(f"{at}: older_than_days is no number from 1 on")
        if not all(isinstance(one, list) and all(isinstance(word, str) for word in one) for one in lists):
            raise ConfigurationError(f"{at}: file_types and modalities are lists of words")
        if policy["action"] != "archive" and not any(lists):
            raise ConfigurationError(f"{at}: what is to go is named by file_types or modalities")


def _check_oidc(settings: Settings, issuer: str) -> None:
    if not re.fullmatch(r"https://[^\s?#@]+|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?(?:/[^\s?#]*)?", issuer):
        raise ConfigurationError("oidc_issuer: is not https://HOST[/PATH]; http is for loopback addresses alone")
    if not settings.oidc_client_id:
        raise ConfigurationError("oidc_client_id: the OpenID provider needs the name of a client")
    if "openid" not in settings.oidc_scopes.split():
        raise ConfigurationError("oidc_scopes: lacks openid")
    if not set(settings.oidc_roles.values()) <= {"admin", "clinician", "viewer"}:
        raise ConfigurationError("oidc_roles: names a role that is none of admin, clinician, viewer")


def shown(settings: Settings) -> dict[str, Any]:
    """All settings as JSON values for people, with secrets hidden."""
    out: dict[str, Any] = {}
    for name, f in FIELDS.items():
        value = getattr(settings, name)
        if f.metadata["secret"]:
            out[name] = "***" if value else None
        elif isinstance(value, Address):
            out[name] = value.text
        elif isinstance(value, Path):
            out[name] = str(value)
        else:
            out[name] = redacted(value)
    return out


_SECRET_NAME = re.compile(r"token|password|passwd|secret|api[-_]?key|authorization|credential", re.IGNORECASE)


def redacted(value: Any) -> Any:
    """A value of a setting without the passwords of URLs, and without what is called a secret by its key."""
    if isinstance(value, str):
        return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", value)
    if isinstance(value, dict):
        return {key: "***" if _SECRET_NAME.search(str(key)) else redacted(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(redacted(inner) for inner in value)
    return value
