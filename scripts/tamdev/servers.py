"""The two servers: a Label Studio that only this machine reaches, and our backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tamdev.environment import BACKEND, LABEL_STUDIO
from tamdev.processes import Program, local_environment
from tamdev.rest import LabelStudio, answers


@dataclass(frozen=True, slots=True)
class Account:
    """The person who owns the sample. token: legacy access token."""

    username: str
    password: str
    token: str


def start_label_studio(data_dir: Path, port: int, account: Account, log: Path) -> tuple[Program, LabelStudio]:
    """Start Label Studio with its database and uploads in ``data_dir``. The account is made at the first start."""
    url = f"http://127.0.0.1:{port}"
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = {
        "DJANGO_DB": "sqlite",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_HOST": url,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        # since 1.23 it refuses ML backends and webhooks on addresses of this machine, unless told so
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        # nothing leaves this machine
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_DEBUG": "false",
        # not on the command line, where every user of this machine could read them
        "LABEL_STUDIO_USERNAME": account.username,
        "LABEL_STUDIO_PASSWORD": account.password,
        "LABEL_STUDIO_USER_TOKEN": account.token,
    }
    command = [str(LABEL_STUDIO.program("label-studio")), "start", "--no-browser", "--enable-legacy-api-token"]
    command += ["--internal-host", "127.0.0.1", "--port", str(port)]
    return Program("Label Studio", command, local_environment(settings), log), LabelStudio(url, account.token)


def start_backend(
    data_dir: Path,
    port: int,
    label_studio: LabelStudio,
    account: Account,
    log: Path,
    options: Mapping[str, str] | None = None,
) -> Program:
    """Start our backend, and wait until it answers. options: further settings (TAM_...)."""
    url = f"http://127.0.0.1:{port}"
    settings = {
        "TAM_DATA_DIR": str(data_dir),
        "TAM_LABEL_STUDIO_URL": label_studio.url,
        "TAM_LABEL_STUDIO_TOKEN": account.token,
        "TAM_PUBLIC_URL": url,
        **(options or {}),
    }
    command = [str(BACKEND.program("tam")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    program = Program("the backend", command, local_environment(settings), log)
    try:
        program.wait_until(lambda: answers(f"{url}/health"), 60)
    except BaseException:
        program.stop()
        raise
    return program
