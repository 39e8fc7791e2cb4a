"""Settings come from flags, environment and file; each problem says where it stands and what to do."""

from pathlib import Path

import pytest

from guardrail.config import Settings, help_table, load
from guardrail.dashboard.passwords import hash_password
from guardrail.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "guardrail.yaml"
    path.write_text(text)
    return path


def problems(**given: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**{"environment": {}, **given})  # type: ignore[arg-type]  # forwarded as written in the tests
    return str(caught.value).replace(str(given.get("config")), "FILE").splitlines()


def test_the_defaults_are_safe() -> None:
    settings = load(environment={})

    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)
    assert settings.unreadable_replies == "remove"


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "upstream: http://file\nport: 1\ncountry: GB\n")
    settings = load({"port": 3, "host": None}, path, {"GUARDRAIL_UPSTREAM": "http://environment", "GUARDRAIL_PORT": "2"})

    assert (settings.upstream, settings.port, settings.country) == ("http://environment", 3, "GB")


def test_the_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "port: 7\n")

    assert load(environment={"GUARDRAIL_CONFIG": str(path)}).port == 7


def test_lists_are_written_with_commas_in_the_environment() -> None:
    settings = load(environment={"GUARDRAIL_TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1", "GUARDRAIL_CORS_ORIGINS": "https://a.example"})

    assert settings.trusted_proxies == ("10.0.0.0/8", "127.0.0.1")
    assert settings.cors_origins == ("https://a.example",)


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "port: 1\nupstrem: http://x\n")
    remedy = "guardrail serve --help-settings lists all"

    assert problems(config=path) == [f'FILE:2:1: unknown setting "upstrem"; did you mean "upstream"? {remedy}']
    assert problems(environment={"GUARDRAIL_PROT": "1"}) == [f'GUARDRAIL_PROT: unknown setting "prot"; did you mean "port"? {remedy}']
    assert problems(environment={"GUARDRAIL_ZZZZZZ": "1"}) == [f'GUARDRAIL_ZZZZZZ: unknown setting "zzzzzz"; {remedy}']


def test_a_wrong_value_says_where_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path, "port: 1\ncountry: Britain\nreview_seconds: -1\n")

    assert problems(config=path) == [
        "FILE:2:1: country: string should match pattern '^[A-Z]{2}$'",
        "FILE:3:1: review_seconds: input should be greater than 0",
    ]
    assert problems(environment={"GUARDRAIL_PORT": "many"}) == [
        "GUARDRAIL_PORT: port: input should be a valid integer, unable to parse string as an integer"
    ]
    assert problems(flags={"port": 99999}) == ["--port: port: input should be less than or equal to 65535"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n", "is not a table of settings"),
        ("port: [\n", "is not YAML"),
        ("port: 1\nport: 2\n", 'key "port" stands twice'),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_not_settings(tmp_path: Path, text: str, why: str) -> None:
    assert why in problems(config=write(tmp_path, text))[0]


def test_a_missing_file(tmp_path: Path) -> None:
    assert problems(config=tmp_path / "none.yaml") == ["FILE: cannot be read: No such file or directory"]


def test_tenants_stand_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "tenants:\n  clinic: {api_key: secret, country: GB, requests_per_minute: 60}\n")
    settings = load(config=path, environment={})

    assert settings.tenants["clinic"].country == "GB"
    assert "secret" not in repr(settings)
    assert problems(environment={"GUARDRAIL_TENANTS": "{}"}) == ["GUARDRAIL_TENANTS: tenants are written in the settings file"]
    path = write(tmp_path, "tenants:\n  clinic: {api_kee: secret}\n")
    assert problems(config=path)[0].startswith("FILE:2:3: tenants.clinic.api_key: field required")


def test_every_setting_has_help() -> None:
    table = help_table()

    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"\n{name}" in table


def test_single_sign_on_needs_the_address_that_people_are_sent_back_to(tmp_path: Path) -> None:
    path = write(tmp_path, "dashboard_oidc: {issuer: 'https://id.example', client_id: guardrail, roles: {nurses: reviewer}}\n")

    (found,) = problems(config=path)

    assert found.endswith("dashboard_oidc: value error, needs dashboard_url, the address that the provider sends people back to")


def test_the_settings_of_access_in_the_documentation_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both examples of docs/operations.md as one file."""
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "x")
    section = (Path(__file__).parents[1] / "docs" / "operations.md").read_text().split("## Access")[1].split("\n## ")[0]
    examples = "".join(part.split("```")[0].removeprefix("yaml\n") for part in section.split("```")[1:] if part.startswith("yaml\n"))
    hashed = hash_password("a long enough one")

    settings = load(config=write(tmp_path, examples.replace("$argon2id$v=19$...", hashed)), environment={})

    assert settings.dashboard_users["nurse"].role == "reviewer"
    assert settings.dashboard_oidc is not None
    assert settings.dashboard_oidc.roles["everyone"] == "viewer"
