"""What helm and the schemas of Kubernetes say of the chart; run in an environment that has both, and nothing of ours.

    python tests/whole/chart.py CHART

prints a JSON object: "lint", what `helm lint --strict` finds without a policy and with each of the values below; "refused", what
the chart says where it must not be rendered; "wrong", what the schemas find; "made", all that is rendered, by the values.
"""

import json
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from helm_python import Chart, lint

LAW = (Path(__file__).parents[2] / "examples" / "policies" / "law.example.yaml").read_text("utf-8")
VERSIONS = ("1.27", "1.37")
GIVEN: dict[str, dict[str, Any]] = {
    "documents": {"policy": {"documents": {"law.yaml": LAW}}},
    "all": {
        "policy": {"configMap": "mine"},
        "replicas": 2,
        "database": {"secret": "db"},
        "base": "org/name@main",
        "extraArgs": ["--rows", "32"],
        "extraEnv": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"repository": "registry.example/soupmix", "tag": "1"},
        "storage": {"className": "fast"},
        "allowFrom": [{"podSelector": {"matchLabels": {"app": "web"}}}],
        "nodeSelector": {"kind": "large"},
        "tolerations": [{"key": "large", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    },
    "open": {"policy": {"open": True}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "no policy": {},
    "a policy and open": {"policy": {"configMap": "mine", "open": True}},
    "two with a file each": {"policy": {"open": True}, "replicas": 2},
    "a name that is none of the values": {"policy": {"open": True}, "replica": 2},
    "a document that is no YAML file": {"policy": {"documents": {"law.txt": LAW}}},
}


def rendered(chart: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    texts = Chart.load(str(chart)).render(values, name="people", namespace="prod")
    parts = [yaml.safe_load_all(text) for name, text in texts.items() if name.endswith(".yaml")]
    return [each for part in parts for each in part if each]


def refusal(chart: Path, values: dict[str, Any]) -> str:
    try:
        loaded = Chart.load(str(chart))
        loaded.validate_schema(values)
        loaded.render(values, name="people")
    except Exception as error:  # noqa: BLE001  # whatever helm raises
        return str(error)
    return ""


def wrong(made: list[dict[str, Any]]) -> list[str]:
    found = []
    for each in made:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except Exception as error:  # noqa: BLE001
                found.append(f"{version} {each.get('kind')}: {error}"[:400])
    return found


if __name__ == "__main__":
    chart = Path(sys.argv[1])
    made = {name: rendered(chart, values) for name, values in GIVEN.items()}
    told = {name: lint(str(chart), values, strict=True) for name, values in GIVEN.items()}
    print(
        json.dumps(
            {
                "lint": {name: [*each["messages"], *each["errors"]] for name, each in told.items()},
                "refused": {name: refusal(chart, values) for name, values in REFUSED.items()},
                "wrong": {name: wrong(each) for name, each in made.items()},
                "made": made,
            }
        )
    )
