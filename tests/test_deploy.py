"""What is in deploy/ fits the program: rules and dashboards name metrics that exist, Compose and Helm give settings that load."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from guardrail import config
from guardrail.app import Application, create_app
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.cli import main
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from guardrail.packs.load import shipped_rules
from tests.serving import saying, serving, upstream

DEPLOY = Path(__file__).parent.parent / "deploy"
CHART = DEPLOY / "helm" / "guardrail"
RULES = DEPLOY / "prometheus" / "guardrail.rules.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "guardrail.json"
KUBERNETES = ("1.28", "1.31", "1.34")
MINIMAL = {"settings": {"upstream": "https://api.example.com", "country": "GB", "audit": "postgresql://g@db/g"}}

HELM = shutil.which("helm") or shutil.which("helm", path=str(Path(sys.executable).parent))
PROMTOOL = shutil.which("promtool")
needs_helm = pytest.mark.skipif(HELM is None, reason="needs helm; .ci/helm installs it")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's package prometheus")


# Prometheus and Grafana


@cache
def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def expressions() -> Iterator[tuple[str, str]]:
    """Where each stands, and the expression, with Grafana's variables filled in."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$__range", "24h").replace("$instance", ".*")


def selectors(expression: str) -> list[Any]:
    parser = pytest.importorskip("promql_parser")
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, parser.VectorSelector):
            found.append(node)
        return True

    parser.walk(parser.parse(expression), visit)
    return found


@pytest.fixture(scope="module")
def served(small_guard: Guard) -> dict[str, dict[str, set[str]]]:
    """Of a running service in which everything has happened: sample -> label -> values."""
    receiver = {"kind": "webhook", "url": "http://127.0.0.1:9", "secret": "whsec_" + "A" * 32}
    alerts: Any = {"receivers": {"ward": receiver}, "rules": {"all": {"when": "escalation", "urgency": "urgent", "send": ["ward"]}}}
    with upstream(saying("Rest.")) as model:
        app = create_app(Settings(upstream=model.url, alerts=alerts), guard=small_guard)
        with serving(app) as url:
            for text in ("hello", "I have chest pain"):
                body = {"model": "m", "messages": [{"role": "user", "content": text}]}
                assert httpx.post(url + "/v1/chat/completions", json=body).status_code == 200
            assert isinstance(app, Application)
            cut = ({"channel": "text", "action": "cut", "issues": [{"issue": "dose_instruction"}]},)
            app.service.record(ExchangeRecord("id", time.time(), "openai_chat", Outcome.CUT, reply=cut, not_evaluated=("image",)))
            end = time.monotonic() + 20
            while "guardrail_alert_attempts_total{" not in (text := httpx.get(url + "/-/metrics").text) and time.monotonic() < end:
                time.sleep(0.05)
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def test_every_expression_asks_for_what_the_service_has(served: dict[str, dict[str, set[str]]]) -> None:
    wrong, asked = [], set[str]()
    for place, expression in expressions():
        for selector in selectors(expression):
            name = selector.name
            asked.add(name)
            if name == "up":
                continue  # Prometheus's own
            if name not in served:
                wrong.append(f"{place}: there is no {name}")
                continue
            for matcher in selector.matchers.matchers:
                if matcher.name == "instance":
                    continue  # Prometheus's own
                values = served[name].get(matcher.name, set())
                open_sets = {"part": {"audit"}, "result": {"given_up"}}  # what this service has not, and others do
                wanted = matcher.value.split("|")
                wrong += [
                    f'{place}: {name} has no {matcher.name}="{value}"'
                    for value in wanted
                    if value not in values | open_sets.get(matcher.name, set())
                ]

    assert wrong == []
    assert len(asked) > 10


def test_every_grouping_is_by_a_label_that_is_there(served: dict[str, dict[str, set[str]]]) -> None:
    parser = pytest.importorskip("promql_parser")
    wrong: list[str] = []

    for place, expression in expressions():

        def visit(node: Any, place: str = place) -> bool:
            if isinstance(node, parser.AggregateExpr) and node.modifier is not None:
                inner = [s.name for s in selectors(node.expr.prettify())]
                known = {"instance"} | {label for name in inner for label in served.get(name, {})}
                wrong.extend(f"{place}: {label} is no label of {inner}" for label in node.modifier.labels if label not in known)
            return True

        parser.walk(parser.parse(expression), visit)

    assert wrong == []


def test_nothing_that_is_measured_is_left_out(served: dict[str, dict[str, set[str]]]) -> None:
    asked = {s.name for _, expression in expressions() for s in selectors(expression)}
    measured = {name.removesuffix("_sum").removesuffix("_count") for name in served if not name.endswith("_created")}
    measured = {f"{name}_bucket" if f"{name}_bucket" in served else name for name in measured}

    assert measured - asked == set()


def test_panels_are_whole_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["targets"] for panel in panels)


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    guide = (DEPLOY.parent / "docs" / "operations.md").read_text()

    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"`{rule['alert']}`" in guide


@needs_promtool
def test_promtool_accepts_the_rules_and_they_fire_when_they_should() -> None:
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(RULES.with_suffix(".test.yaml"))]):
        done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


# Compose


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_follows_the_specification() -> None:
    library = pytest.importorskip("compose_spec")

    assert library.PyCompose.from_yaml((DEPLOY / "compose.yaml").read_text()).service_names() == [
        "guardrail",
        "postgres",
        "prometheus",
        "grafana",
    ]
    with pytest.raises(ValueError, match="readonly"):
        library.PyCompose.from_yaml((DEPLOY / "compose.yaml").read_text().replace("read_only", "readonly"))


def test_compose_gives_settings_that_load() -> None:
    service = compose()["services"]["guardrail"]
    filled = {"GUARDRAIL_UPSTREAM": "http://127.0.0.1:8000", "GUARDRAIL_COUNTRY": "GB", "GUARDRAIL_AUDIT": "postgresql://g:p@postgres/g"}
    environment = {name: filled.get(name, "a-secret") for name in service["environment"]}
    command = service["command"]
    options = {option for parameter in main.commands["serve"].params for option in parameter.opts}

    settings = config.load(environment=environment)

    assert settings.country == "GB"
    assert command[0] == "serve"
    assert {word for word in command if word.startswith("--")} <= options
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.shutdown_seconds


def test_compose_mounts_what_is_there_and_scrapes_what_is_served() -> None:
    services = compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith("./") else source in compose()["volumes"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    job = scrape["scrape_configs"][0]

    assert job["static_configs"][0]["targets"] == ["guardrail:8080"]
    assert job["metrics_path"] == "/-/metrics"
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))


# Helm


def helm(*arguments: str, values: Any = None, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "values.json").write_text(json.dumps(values or {}))
    command = [str(HELM), *arguments, "--values", str(tmp_path / "values.json")]
    home = {"HELM_CACHE_HOME": str(tmp_path), "HELM_CONFIG_HOME": str(tmp_path), "HELM_DATA_HOME": str(tmp_path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **home})


def rendered(values: Any, tmp_path: Path) -> dict[str, Any]:
    done = helm("template", "guardrail", str(CHART), values=values, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout) if document}


FULL = {
    **MINIMAL,
    "secretVariables": "guardrail-secrets",
    "rules": {"overrides": {"small/rules/chest_pain.yaml": "a: 1\n", "small/tests/chest_pain.yaml": "b: 1\n"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podLabels": {"team": "safety"},
    "podAnnotations": {"example.org/note": "x"},
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "workers": 2,
}
SMALL = {
    "settings": {"upstream": "http://127.0.0.1:8000", "audit": "sqlite:////var/lib/guardrail/audit.db"},
    "replicaCount": 1,
    "autoscaling": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "rules": {"volume": {"persistentVolumeClaim": {"claimName": "packs"}}},
}


@needs_helm
@pytest.mark.parametrize("values", [MINIMAL, FULL, SMALL], ids=["minimal", "full", "small"])
def test_the_chart_renders_what_kubernetes_accepts(values: Any, tmp_path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    lint = helm("lint", str(CHART), "--strict", values=values, tmp_path=tmp_path)
    assert lint.returncode == 0, lint.stdout + lint.stderr

    documents = rendered(values, tmp_path)

    for version in KUBERNETES:
        for kind, document in documents.items():
            if kind != "ServiceMonitor":  # the operator's, not Kubernetes's
                kubernetes_validate.validate(document, version, strict=True)


@needs_helm
def test_what_the_chart_installs(tmp_path: Path) -> None:
    assert set(rendered(MINIMAL, tmp_path)) == {
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Secret",
        "Service",
    }
    assert set(rendered(FULL, tmp_path)) - set(rendered(MINIMAL, tmp_path)) == {"ConfigMap", "ServiceMonitor"}
    assert set(rendered(SMALL, tmp_path)) == {"Deployment", "Secret", "Service"}


@needs_helm
@pytest.mark.parametrize("values", [MINIMAL, FULL, SMALL], ids=["minimal", "full", "small"])
def test_pods_are_locked_down_and_stay_in_service(values: Any, tmp_path: Path) -> None:
    documents = rendered(values, tmp_path)
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    settings = config.load(config=settings_file(documents, tmp_path))

    assert pod["securityContext"]["runAsNonRoot"] is True
    for each in [*pod.get("initContainers", []), container]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {"/-/health"}
    assert pod["terminationGracePeriodSeconds"] > settings.shutdown_seconds + int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in pod["volumes"]}
    selector = documents["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= documents["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert documents["Service"]["spec"]["selector"] == selector


def settings_file(documents: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "guardrail.yaml"
    path.write_text(documents["Secret"]["stringData"]["guardrail.yaml"])
    return path


@needs_helm
def test_the_chart_gives_settings_that_load(tmp_path: Path) -> None:
    documents = rendered(FULL, tmp_path)
    container = documents["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}

    settings = config.load(config=settings_file(documents, tmp_path), environment=environment)

    assert (settings.upstream, settings.country, settings.workers) == ("https://api.example.com", "GB", 2)
    assert settings.rules == Path("/rules")
    assert container["envFrom"] == [{"secretRef": {"name": "guardrail-secrets"}}]


@needs_helm
def test_overrides_are_laid_over_the_packs(tmp_path: Path) -> None:
    """The very commands of the first container, on folders that look like its volumes."""
    overrides = {"cardiac/concepts/chest.yaml": "changed: 1\n", "policy.yaml": "# other\n", "site/pack.yaml": "title: Ours\n"}
    documents = rendered({**MINIMAL, "rules": {"overrides": overrides}}, tmp_path)
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    items = next(volume for volume in pod["volumes"] if volume["name"] == "overrides")["configMap"]["items"]
    # As Kubernetes mounts a ConfigMap: a hidden folder of the files, and links to what is in it.
    mounted, rules = tmp_path / "overrides", tmp_path / "rules"
    for item in items:
        file = mounted / "..data" / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(documents["ConfigMap"]["data"][item["key"]])
        if not (link := mounted / Path(item["path"]).parts[0]).exists():
            link.symlink_to(f"..data/{link.name}")
    rules.mkdir()
    script = pod["initContainers"][0]["args"][0].replace("/overrides", str(mounted)).replace(" /rules", f" {rules}")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(DEPLOY.parent)}

    subprocess.run(["sh", "-ec", script], check=True, timeout=60, env=environment)

    shipped = {path.relative_to(shipped_rules()).as_posix() for path in shipped_rules().rglob("*") if path.is_file()}
    assert {path.relative_to(rules).as_posix() for path in rules.rglob("*") if path.is_file()} == shipped | {"site/pack.yaml"}
    assert {name: (rules / name).read_text() for name in overrides} == overrides
    assert (rules / "contacts.yaml").read_bytes() == (shipped_rules() / "contacts.yaml").read_bytes()


@needs_helm
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "settings.upstream: give the URL"),
        ({"settings": {"upstream": "http://m", "audit": "sqlite:///a.db"}}, "several replicas need postgresql"),
        ({**MINIMAL, "terminationGracePeriodSeconds": 35}, "must be more than 35"),
        ({**MINIMAL, "rules": {"overrides": {"a/b.yaml": "x"}, "volume": {"emptyDir": {}}}}, "overrides or a volume, not both"),
        ({**MINIMAL, "replicas": 3}, "additional properties 'replicas' not allowed"),
        ({**MINIMAL, "rules": {"overrides": {"a/../../etc/passwd": "x"}}}, "invalid propertyName 'a/../../etc/passwd'"),
    ],
)
def test_values_that_cannot_work_are_refused(values: Any, why: str, tmp_path: Path) -> None:
    done = helm("template", "guardrail", str(CHART), values=values, tmp_path=tmp_path)

    assert done.returncode != 0
    assert why in done.stderr
