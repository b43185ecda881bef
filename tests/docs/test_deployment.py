"""Image, compose file and manifest have the fields that matter, and agree."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from typer.main import get_command

from palate.cli.app import app
from palate.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def dockerfile(project_root: Path) -> list[tuple[str, str]]:
    text = (project_root / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.fixture(scope="module")
def compose(project_root: Path) -> dict[str, Any]:
    return yaml.safe_load((project_root / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def items(project_root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    content = yaml.safe_load((project_root / "deploy/kubernetes.yaml").read_text())
    assert (content["apiVersion"], content["kind"]) == ("v1", "List")
    return {(one["kind"], one["metadata"]["name"]): one for one in content["items"]}


def pods(items: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"] for one in items.values() if "template" in one["spec"]]


def options_of(words: list[str]) -> None:
    """Every option of a command that starts a container is one of palate's."""
    command = get_command(app)
    context = command.context_class(command)
    found = command.get_command(context, words[0])
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_image_is_built_apart_from_what_runs_for_cpus_and_for_cuda(
    dockerfile: list[tuple[str, str]], project_root: Path
) -> None:
    stages = [rest for word, rest in dockerfile if word == "FROM"]
    assert len(stages) == 2
    assert stages[0].endswith(" AS build")
    assert ("ARG", "DEVICE=cpu") in dockerfile
    (install,) = [rest for word, rest in dockerfile if "--require-hashes" in rest]
    for device, lock in (("cpu", "torch-cpu"), ("cuda", "torch")):
        assert f"{device}) torch={lock} ;;" in install
        assert (project_root / f"locks/{lock}.txt").is_file()
    assert "exit 1" in install  # for any other device


def test_the_image_starts_a_server_that_its_health_check_asks(
    dockerfile: list[tuple[str, str]],
) -> None:
    last = dict(dockerfile)  # of a word that comes twice, the last
    words = json.loads(last["CMD"])
    assert words[:2] == ["serve", "smollm2-135m"]
    options_of(words)
    assert f":{last['EXPOSE']}/health" in last["HEALTHCHECK"]
    assert last["WORKDIR"] == last["VOLUME"]
    assert "PALATE_DATABASE=" in last["ENV"]


def test_images_have_a_version_and_the_base_image_is_a_python_of_ours(
    dockerfile: list[tuple[str, str]], compose: dict[str, Any], items: dict
) -> None:
    images = [rest.split()[0] for word, rest in dockerfile if word == "FROM"]
    images += [one["image"] for one in compose["services"].values()]
    images += [box["image"] for pod in pods(items) for box in pod["spec"]["containers"]]
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", image), image
    pythons = {image.partition(":")[2].removesuffix("-slim") for image in images[:2]}
    assert len(pythons) == 1
    assert Version("3.11") <= Version(*pythons)


def test_no_password_is_written_down(compose: dict[str, Any], items: dict) -> None:
    given = [pair for one in compose["services"].values() for pair in one["environment"].items()]
    passwords = [value for name, value in given if "PASSWORD" in name]
    assert len(passwords) == 2
    assert all(value.startswith("${PALATE_DB_PASSWORD:?") for value in passwords)
    boxes = [box for pod in pods(items) for box in pod["spec"]["containers"]]
    variables = [variable for box in boxes for variable in box["env"]]
    secrets = [one for one in variables if "PASSWORD" in one["name"]]
    assert len(secrets) == 2
    assert all(set(one["valueFrom"]) == {"secretKeyRef"} for one in secrets)
    urls = [value for name, value in given if name == "PALATE_DATABASE"]
    urls += [one["value"] for one in variables if one["name"] == "PALATE_DATABASE"]
    assert len(urls) == 2
    assert all(re.fullmatch(r"postgresql://palate@[\w-]+/palate", url) for url in urls)


def test_compose_starts_the_server_after_its_database_and_on_loopback_only(
    compose: dict[str, Any],
) -> None:
    server, database = compose["services"]["server"], compose["services"]["database"]
    assert server["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "healthcheck" in database
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert "ports" not in database
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    for service in (server, database):
        assert "privileged" not in service
        named = {volume.partition(":")[0] for volume in service["volumes"]}
        assert named <= set(compose["volumes"])
    grace = int(server["stop_grace_period"].removesuffix("s"))
    assert grace > ServeSettings().drain_seconds


def test_no_pod_has_rights_that_it_does_not_need(items: dict) -> None:
    for pod in pods(items):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for box in spec["containers"]:
            assert box["securityContext"]["allowPrivilegeEscalation"] is False
            assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(box["resources"])
            mounts = {mount["name"] for mount in box["volumeMounts"]}
            volumes = {volume["name"] for volume in spec.get("volumes", [])}
            assert mounts <= volumes | {"data"}


def test_services_and_probes_lead_to_the_pods(items: dict, dockerfile: list) -> None:
    for (kind, name), one in items.items():
        if kind == "Service":
            workload = items.get(("Deployment", name)) or items[("StatefulSet", name)]
            labels = workload["spec"]["template"]["metadata"]["labels"]
            assert one["spec"]["selector"].items() <= labels.items()
            assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    spec = items[("Deployment", "palate")]["spec"]["template"]["spec"]
    (server,) = spec["containers"]
    options_of(server["args"])
    assert server["securityContext"]["readOnlyRootFilesystem"]
    assert str(server["ports"][0]["containerPort"]) == dict(dockerfile)["EXPOSE"]
    probes = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness")}
    assert {probe["path"] for probe in probes.values()} == {"/health"}
    assert server["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert spec["securityContext"]["runAsUser"] == int(dict(dockerfile)["USER"])
    assert spec["terminationGracePeriodSeconds"] > ServeSettings().drain_seconds
