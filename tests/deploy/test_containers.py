"""What the container files say: no Docker is needed to see that they agree with the code and with each other."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tam_backend
from tam_backend.commands import serve
from tam_backend.settings import Settings

ROOT = Path(__file__).parents[2]
DEFAULTS = {variable: default for variable, default, _ in Settings.describe()}


def instructions() -> list[tuple[str, str]]:
    """(instruction, value) of the Dockerfile, in order."""
    parser = DockerfileParser(fileobj=io.BytesIO((ROOT / "Dockerfile").read_bytes()))
    return [(line["instruction"], line["value"]) for line in parser.structure if line["instruction"] != "COMMENT"]


def values(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for value in values("ENV") for pair in shlex.split(value))


def allowed_in_build() -> set[str]:
    """What .dockerignore lets into the build, which is nothing by default."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return {line[1:] for line in lines[1:] if line.startswith("!")}


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())["services"]


def example() -> dict[str, tuple[str, bool]]:
    """Variable -> (value, whether it must be filled in) of .env.example."""
    found = {}
    for line in (ROOT / ".env.example").read_text().splitlines():
        if match := re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line):
            found[match[2]] = match[3], not match[1]
    return found


def test_the_linter_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_images_are_built_on_a_pinned_base():
    stages: set[str] = set()
    for value in values("FROM"):
        base, _, stage = value.partition(" AS ")
        assert base in stages or re.fullmatch(r"python:3\.11-slim-\w+", base), value
        stages.add(stage)
    [label] = values("LABEL")
    assert f'image.version="{tam_backend.__version__}"' in label


def test_what_runs_is_not_root_and_nothing_is_made_after():
    names = [name for name, _ in instructions()]
    user = len(names) - 1 - names[::-1].index("USER")
    assert not {"RUN", "COPY", "ADD"} & set(names[user:])
    uid, gid = values("USER")[-1].split(":")
    made = next(value for value in values("RUN") if value.startswith("groupadd"))
    assert int(uid) >= 1000
    assert f"--uid {uid}" in made
    assert f"--gid {gid}" in made
    for folder in ("TAM_DATA_DIR", "TAM_CHECKPOINT_DIR"):
        assert re.search(rf"install .*--owner=tam .*{image_environment()[folder]}\b", made)


def test_nothing_comes_from_elsewhere_and_no_secret_is_inside():
    assert "ADD" not in [name for name, _ in instructions()]
    names = [v.split("=")[0] for v in values("ARG")] + list(image_environment())
    assert not [n for n in names if re.search("TOKEN|PASSWORD|SECRET|KEY", n)]
    assert not re.search(r"\b(curl|wget|git)\b", (ROOT / "Dockerfile").read_text())


def test_files_that_the_build_takes_exist_and_reach_it():
    taken = {source for value in values("COPY") for source in value.split()[:-1]}
    taken |= set(re.findall(r"--mount=type=bind,source=(\S+?),", " ".join(values("RUN"))))
    assert taken == allowed_in_build()
    for name in taken:
        assert (ROOT / name).exists(), name
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for module in build["tool"]["setuptools"]["py-modules"]:
        assert f"{module}.py" in taken
    assert set(build["tool"]["setuptools"]["dynamic"]["dependencies"]["file"]) <= taken
    requirements = set(re.findall(r"-r /mnt/(\S+)", " ".join(values("RUN"))))
    assert requirements == {"requirements.lock", "requirements-build.lock", "requirements-torch.txt"}


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes) of a lock file; every line of it is one of these."""
    found: dict[str, tuple[str, int]] = {}
    text = (ROOT / name).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"(\S+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
            assert match, line
            found[canonicalize_name(match[1])] = match[2], match[3].count("--hash")
    return found


@pytest.mark.parametrize(
    ("lock", "sources"),
    [
        ("requirements.lock", ["requirements.txt", "requirements-nodeps.txt"]),
        ("requirements-build.lock", ["requirements-build.txt"]),
    ],
)
def test_the_lock_is_that_of_the_requirements(lock: str, sources: list[str]):
    pins = {}
    for source in sources:
        lines = (line for line in (ROOT / source).read_text().splitlines() if line and not line.startswith("#"))
        pins |= {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    have = locked(lock)
    assert {name: have[name][0] for name in pins} == pins, "make lock"
    assert all(hashes for _, hashes in have.values())


def test_the_lock_has_all_that_its_packages_need():
    """It is installed without looking for more. label-studio-ml's own pins do not count (requirements.txt)."""
    have = locked("requirements.lock")
    for name in have.keys() - {"label-studio-ml"}:
        assert have[name][0] == importlib.metadata.version(name), "the tests ran with another version"
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                version = have[canonicalize_name(needed.name)][0]
                assert needed.specifier.contains(version, prereleases=True), f"{name} needs {text}"


def test_the_image_installs_nothing_but_what_is_locked():
    """PyTorch aside, whose files depend on an index that is named at the build."""
    installs = re.findall(r"pip install (.*?)(?:&&|;;|$)", " ".join(values("RUN")))
    assert len(installs) == 4
    for options in installs:
        if "requirements-torch.txt" in options or "/mnt/wheels" in options:
            continue
        for option in ("--no-deps", "--only-binary :all:", "--require-hashes"):
            assert option in options, options
    [wheel] = re.findall(r"pip wheel (.*)", " ".join(values("RUN")))
    assert "--no-build-isolation" in wheel
    assert "--no-deps" in wheel


def test_the_image_starts_the_server_and_asks_it_for_its_health():
    [port] = values("EXPOSE")
    program, *arguments = json.loads(values("ENTRYPOINT")[0]) + json.loads(values("CMD")[0])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program in scripts
    from tam_backend.cli import _make_parser

    parsed = _make_parser("serve").parse_args(arguments)
    assert (parsed.command, parsed.host, parsed.port) == ("serve", "0.0.0.0", int(port))
    assert serve.__name__.endswith(parsed.command)
    [check] = values("HEALTHCHECK")
    python, flag, module, checked = json.loads(check.partition("CMD ")[2])
    assert (python, flag, checked) == ("python", "-m", port)
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()


def test_every_setting_reaches_the_container_and_no_other_does():
    environment = compose()["backend"]["environment"]
    ours = {name for name in environment if name.startswith("TAM_")}
    ours |= {name for name in image_environment() if name.startswith("TAM_")}
    assert ours == set(DEFAULTS), "docker-compose.yml, under backend: environment"
    fixed = {name for name in image_environment() if name.startswith("TAM_")}
    fixed |= {"TAM_LABEL_STUDIO_URL", "TAM_LABEL_STUDIO_TOKEN"}
    assert {name for name in example() if name.startswith("TAM_")} == set(DEFAULTS) - fixed, ".env.example"


def test_the_example_shows_the_defaults():
    settings = {name: value for name, (value, _) in example().items() if name in DEFAULTS}
    assert Settings.from_env({**settings, "TAM_PUBLIC_URL": ""}) == Settings()
    for name, value in settings.items():
        if name != "TAM_PUBLIC_URL":
            assert value == DEFAULTS[name], name


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_variables_of_compose_are_explained_and_required_ones_are_asked_for(file):
    text = (ROOT / file).read_text()
    for variable, operator, default in re.findall(r"\$\{(\w+)(:[-?])([^}]*)\}", text):
        value, required = example()[variable]
        assert required == (operator == ":?"), variable
        if not required:
            assert value == default, variable
    assert text.count("${") == len(re.findall(r"\$\{\w+:[-?]", text))
    for service in compose(file).values():
        assert "env_file" not in service  # Label Studio's password is none of the backend's business
        for name in service.get("build", {}).get("args", {}):
            assert name in [v.split("=")[0] for v in values("ARG")]


def test_services_find_each_other():
    services = compose()
    backend, label_studio = services["backend"], services["label-studio"]
    [port] = values("EXPOSE")
    [alias] = backend["networks"]["default"]["aliases"]
    assert "." in alias  # Label Studio's check of a webhook's address wants it
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert f"`http://{alias}:{port}/<TAM_SECRET_PATH>`" in guide
    assert backend["ports"] == [f"${{BIND_ADDRESS:-127.0.0.1}}:{port}:{port}"]
    assert backend["environment"]["TAM_PUBLIC_URL"].endswith(f":-http://localhost:{port}}}")
    assert backend["environment"]["TAM_LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert label_studio["ports"] == ["${BIND_ADDRESS:-127.0.0.1}:8080:8080"]
    token = backend["environment"]["TAM_LABEL_STUDIO_TOKEN"]
    assert token == label_studio["environment"]["LABEL_STUDIO_USER_TOKEN"]
    for service in services.values():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in services[other] or ("build" in services[other] and values("HEALTHCHECK"))


def test_the_backend_keeps_its_data_and_writes_nowhere_else():
    backend = compose()["backend"]
    mounts = dict(volume.split(":") for volume in backend["volumes"])
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"]
    assert set(mounts) <= set(declared)
    environment = image_environment()
    assert set(mounts.values()) == {environment["TAM_DATA_DIR"], environment["TAM_CHECKPOINT_DIR"]}
    assert backend["tmpfs"][0].split(":")[0] == environment["HOME"] == "/tmp"
    assert backend["read_only"] is True
    assert backend["cap_drop"] == ["ALL"]
    assert "user" not in backend
    assert backend["image"].endswith(f":{tam_backend.__version__}")


def test_label_studio_is_the_tested_version_with_what_it_needs():
    label_studio = compose()["label-studio"]
    [version] = re.findall(r"^label-studio==(\S+)$", (ROOT / "requirements-label-studio.txt").read_text(), re.MULTILINE)
    assert label_studio["image"] == f"heartexlabs/label-studio:{version}"
    needed = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}
    needed["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] = "true"
    assert needed.items() <= label_studio["environment"].items()
    for name in needed:  # with which the browser tests pass
        assert name in (ROOT / "scripts" / "tamdev" / "servers.py").read_text()


def test_filled_in_settings_stay_out_of_git_and_of_images():
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert not [name for name in allowed_in_build() if name.startswith(".")]
    assert all(value == "" for value, required in example().values() if required)
