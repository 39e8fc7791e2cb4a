"""Settings: one table, from flags, the environment (`GUARDRAIL_*`) and a YAML file, in this order of precedence.

Every setting has a help text; an unknown one is an error that names the nearest. Settings are frozen and replaced whole.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from guardrail import board
from guardrail.alerts.settings import AlertSettings, Secret
from guardrail.dashboard.passwords import is_hash
from guardrail.errors import ConfigError, Problem
from guardrail.packs.source import Source, nearest, read

PREFIX = "GUARDRAIL_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
# Read by other parts, so not unknown settings.
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, board.VARIABLE})


class TenantSettings(BaseModel):
    """A holder of an API key. `api_key` is the key itself; it is kept as a digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: SecretStr
    country: str | None = Field(None, pattern="^[A-Z]{2}$")
    language: str | None = None
    requests_per_minute: int | None = Field(None, gt=0)


class DashboardUser(BaseModel):
    """Somebody who may see the dashboard. `password` is what `guardrail password` prints, not the password itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    password: SecretStr
    role: Literal["viewer", "reviewer", "admin"] = "viewer"

    @field_validator("password")
    @classmethod
    def _is_hashed(cls, value: SecretStr) -> SecretStr:
        if not is_hash(value.get_secret_value()):
            raise ValueError("write what guardrail password prints, never the password itself")
        return value


class OidcSettings(BaseModel):
    """The provider of the single sign-on, and which of its groups have which role on the dashboard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(pattern="^https?://.")
    client_id: str = Field(min_length=1)
    client_secret: Secret | None = None
    roles: dict[str, Literal["viewer", "reviewer", "admin"]] = Field(min_length=1)
    groups_claim: str = "groups"
    name_claim: str = "email"
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    recheck_minutes: int = Field(60, gt=0)


class Settings(BaseModel):
    """Everything the service can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Only this machine can connect unless you say otherwise.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    workers: int = Field(1, ge=1, le=256, description="Processes to serve with: one per core is plenty.")
    shutdown_seconds: int = Field(30, ge=0, description="How long running streams may go on after a stop was asked for.")

    upstream: str | None = Field(None, description="URL of the model's API, with or without /v1 at its end.")
    upstream_api_key: SecretStr | None = Field(None, description="Sent to the upstream in place of the caller's key.")
    upstream_ca_file: Path | None = Field(None, description="PEM file of the authorities that may vouch for the upstream.")
    upstream_cert_file: Path | None = Field(None, description="PEM file of our own certificate, where the upstream asks for one.")
    upstream_key_file: Path | None = Field(None, description="PEM file of that certificate's key.")
    upstream_proxy: SecretStr | None = Field(None, description="Forward proxy on the way to the upstream: http://user:password@host:port.")
    connect_seconds: float = Field(5.0, gt=0, description="Time to connect to the upstream, TLS included.")
    first_byte_seconds: float = Field(120.0, gt=0, description="Time until the upstream begins to answer.")
    read_seconds: float = Field(60.0, gt=0, description="Longest pause within the upstream's answer.")
    pool_seconds: float = Field(5.0, gt=0, description="Time to wait for a free connection to the upstream.")
    max_connections: int = Field(1000, gt=0, description="Connections to the upstream at once, per worker.")

    rules: Path | None = Field(None, description="Folder of rule packs in place of those that come with Guardrail.")
    overrides: Path | None = Field(None, description="Folder of overrides: what a site changes in packs that it does not edit.")
    rules_watch_seconds: float = Field(
        2.0, ge=0, description="Time between looks for changes in these folders; 0: only SIGHUP and /-/reload load them again."
    )
    country: str | None = Field(
        None, pattern="^[A-Z]{2}$", description="Country of the patients, two letters: whose numbers they are given."
    )
    language: str | None = Field(None, description="Language of answers, as in rules/languages; otherwise English.")
    country_header: str | None = Field(None, description="Header that names the patient's country; heeded from trusted proxies only.")
    patient_header: str | None = Field(None, description="Header that holds the app's own id of the patient, kept in the record.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses or networks of proxies whose country header is believed.")
    review_seconds: float = Field(2.0, gt=0, description="Time for the review of one message; then the patient gets the safe answer.")
    unreadable_replies: Literal["remove", "pass"] = Field(
        "remove",
        description="What to do with parts of replies that cannot be read (audio, images, logprobs). Recorded as not evaluated either way.",
    )

    max_body_bytes: int = Field(20_000_000, gt=0, description="Largest request.")
    max_messages: int = Field(2000, gt=0, description="Most messages in one conversation.")
    max_message_chars: int = Field(2_000_000, gt=0, description="Longest message.")
    max_conversation_chars: int = Field(4_000_000, gt=0, description="Longest conversation.")
    max_reply_bytes: int = Field(32_000_000, gt=0, description="Largest reply, after decompression.")
    max_concurrent: int = Field(1000, gt=0, description="Requests forwarded at once, per worker; emergencies are answered beyond that.")

    audit: str | None = Field(
        None, pattern="^(sqlite:///.|postgres(ql)?://.)", description="Where exchanges are recorded: sqlite:///path or postgresql://..."
    )
    audit_text: Literal["absent", "redacted", "encrypted"] = Field(
        "redacted", description="What is kept of a patient's words: nothing, what redaction leaves, or everything, encrypted."
    )
    audit_text_keys: Path | None = Field(
        None, description="File of the keys that encrypt patients' words: guardrail audit text-key FILE makes it."
    )
    audit_signing_key: Path | None = Field(
        None, description="Key that seals the record, so that tampering shows: guardrail audit signing-key FILE makes it."
    )
    audit_spool: Path | None = Field(
        None, description="Begin of the names of files that hold records until the store has them; by default beside the SQLite file."
    )
    audit_key: SecretStr | None = Field(
        None, description="Secret with which patients' ids become pseudonyms; without one they change with each start."
    )
    audit_tenants: Literal["name", "pseudonym"] = Field(
        "name", description="What the record calls callers: as in tenants, or by a keyed hash like patients."
    )
    dashboard: bool = Field(True, description="Serve the dashboard at /-/dashboard, where audit is set.")
    dashboard_users: dict[str, DashboardUser] = Field(
        {}, description="Who may see the dashboard: name, password (as guardrail password prints it) and role; none: nobody may."
    )
    dashboard_url: str | None = Field(
        None,
        pattern="^https?://[^/]+$",
        description="Where browsers find the dashboard: https://guardrail.example.org, without a path. Links in alerts begin with it.",
    )
    dashboard_oidc: OidcSettings | None = Field(
        None, description="Single sign-on to the dashboard: issuer, client_id, client_secret, roles by group; docs/operations.md shows it."
    )
    dashboard_idle_minutes: int = Field(60, gt=0, description="After so long without a click, people sign in again.")
    dashboard_session_hours: int = Field(12, gt=0, description="After so long, people sign in again whatever they did.")
    traces: str | None = Field(
        None, pattern="^https?://.", description="Where traces go, by OTLP over HTTP: http://collector:4318. Needs guardrail[tracing]."
    )
    alerts: AlertSettings | None = Field(
        None, description="Who is told of escalations, failures and silence, and how: deploy/alerts.example.yaml shows all of it."
    )
    tenants: dict[str, TenantSettings] = Field(
        {}, description="API keys of callers, with their country, language and rate; none: no key is asked for."
    )
    admin_token: SecretStr | None = Field(None, description="Bearer token for /-/reload; without one only this machine may ask.")
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token that /-/metrics asks for; without one whoever reaches it may read."
    )
    cors_origins: tuple[str, ...] = Field((), description="Origins of web pages that may call the proxy from a browser.")
    pass_paths: tuple[str, ...] = Field(
        (
            "GET /v1/models",
            "GET /v1/models/*",
            "GET /models",
            "POST /v1/messages/count_tokens",
            "GET /api/tags",
            "GET /api/version",
            "POST /api/show",
        ),
        description="Other paths that go to the upstream unreviewed.",
    )

    @field_validator("dashboard_oidc")
    @classmethod
    def _has_address(cls, value: OidcSettings | None, info: ValidationInfo) -> OidcSettings | None:
        if value is not None and info.data.get("dashboard_url") is None:
            raise ValueError("needs dashboard_url, the address that the provider sends people back to")
        return value

    @field_validator("trusted_proxies", "cors_origins", "pass_paths", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """In the environment a list is written with commas."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force; raises ConfigError with everything that is wrong."""
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    path = config or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    problems: list[str] = []
    source = _read_file(path, problems) if path else None
    values: dict[str, Any] = dict(source.data) if source else {}
    values |= _from_environment(environment, problems)
    values |= given
    if not problems:
        try:
            return Settings(**values)
        except ValidationError as error:
            problems = [_explain(item, source, environment, given) for item in error.errors(include_url=False, include_input=False)]
    raise ConfigError("\n".join(problems))


def help_table() -> str:
    """Every setting with its default and what it is for."""
    lines = ["Settings: in the YAML file as written, in the environment in capitals behind GUARDRAIL_.", ""]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
        lines += [f"{name}" + (f" (default: {shown})" if shown not in (None, "", {}) else ""), f"    {field.description}"]
    return "\n".join(lines)


def _read_file(path: Path, problems: list[str]) -> Source | None:
    found: list[Problem] = []
    try:
        source = read(path, str(path), found)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return None
    problems.extend(map(str, found))
    if source is not None and not isinstance(source.data, dict):
        problems.append(f'{path}:1:1: is not a table of settings; write lines like "upstream: http://127.0.0.1:8000"')
        return None
    for name in source.data if source else ():
        if name not in Settings.model_fields:
            assert source is not None, "names come from it"
            problems.append(str(source.problem((name,), f'unknown setting "{name}"', _nearest(str(name)))))
    return source


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    values = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in _OTHER_VARIABLES or not value:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in Settings.model_fields:
            problems.append(f'{variable}: unknown setting "{name}"; {_nearest(name)}')
        elif name in ("alerts", "tenants", "dashboard_users", "dashboard_oidc"):
            problems.append(f"{variable}: {name} are written in the settings file")
        else:
            values[name] = value
    return values


def _nearest(name: str) -> str:
    near = nearest(name, Settings.model_fields)
    return (f'did you mean "{near}"? ' if near else "") + "guardrail serve --help-settings lists all"


def _explain(item: Any, source: Source | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> str:
    path = tuple(item["loc"])
    name = str(path[0]) if path else ""
    message = str(item["msg"])
    what = f"{'.'.join(map(str, path))}: {message[:1].lower()}{message[1:]}"
    if name in flags:
        return f"--{name.replace('_', '-')}: {what}"
    if environment.get(PREFIX + name.upper()):
        return f"{PREFIX}{name.upper()}: {what}"
    return str(source.problem(path, what)) if source else what
