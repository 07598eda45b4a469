"""What is given to deploy with, as far as a machine without a cluster can tell; images are built where there is a network."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"soupmix_[a-z_]+")


def test_alerts_are_of_metrics_that_there_are() -> None:
    """The dashboard shows every metric there is, which `tests/serve/test_metrics.py` holds."""
    measured = {re.sub(r"_bucket$", "", each) for each in METRIC.findall((DEPLOY / "grafana.json").read_text("utf-8"))}
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]:
        assert {re.sub(r"_bucket$", "", each) for each in METRIC.findall(rule["expr"])} <= measured
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_image_has_no_root_and_says_whether_it_is_well() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    assert re.search(r"^HEALTHCHECK .*\\\n +CMD .*/health", text, re.MULTILINE)
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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_one_and_is_shut_in(tmp_path: Path) -> None:
    unit = tmp_path / "soupmix.service"
    there = shutil.which("true") or "/bin/true"
    unit.write_text((DEPLOY / "soupmix.service").read_text("utf-8").replace("/opt/soupmix/bin/soupmix", there))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "soupmix.service" in line] == []
