"""``production doctor --node`` as an ordinary user of a real batch system has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from on_cluster import OnCluster
from servers import PATIENCE, Server

pytestmark = [pytest.mark.cluster, pytest.mark.site, pytest.mark.slow]


@pytest.fixture
def lab(server: Server) -> Iterator[OnCluster]:
    made = OnCluster(server.new_directory(), server, range(1, 2), arrays=True)
    text = (made.directory / "production.toml").read_text()
    (made.directory / "production.toml").write_text(f'{text}[batch]\nsystem = "{server.name}"\n')
    try:
        yield made
    finally:
        made.close()
        server.end_all_jobs()


def doctor(lab: OnCluster, server: Server, *arguments: str) -> dict[str, list[str]]:
    """What it said, by check and level; nothing is left of what it did."""
    argv = [sys.executable, "-m", "production", "doctor", f"--database={lab.database}"]
    server.give_to_user(lab.directory)
    before = lab.files()
    done = subprocess.run(
        server.as_user([*argv, "--node", "--seconds=0.1", "--output=json", *arguments]),
        env=lab.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )
    assert lab.files() == before
    found: dict[str, list[str]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(f"{finding['check']} {finding['level']}", []).append(finding["what"])
    return found


def test_a_node_that_has_everything(lab: OnCluster, server: Server) -> None:
    found = doctor(lab, server)
    assert found["batch ok"] == [f"{server.name} answers"]
    assert "has all that jobs need" in found["node ok"][0]


def test_an_environment_script_that_fails_there(lab: OnCluster, server: Server) -> None:
    script = lab.directory / "this.sh"
    script.write_text('echo "no such release" >&2\nreturn 7\n')
    text = (lab.directory / "production.toml").read_text()
    environment = f'[environment]\nscript = "{script}"\n[environment.variables]'
    (lab.directory / "production.toml").write_text(
        text.replace("[environment.variables]", environment)
    )
    assert "exit code 7: no such release" in doctor(lab, server)["node error"][0]


def test_a_job_that_does_not_start_is_cancelled(lab: OnCluster, server: Server) -> None:
    text = (lab.directory / "production.toml").read_text()
    held = json.dumps([*server.options, *server.hold])
    (lab.directory / "production.toml").write_text(
        text.replace(f"options = {json.dumps(list(server.options))}", f"options = {held}")
    )
    found = doctor(lab, server, "--wait=2")
    (what,) = found.get("node warning", []) + found.get("node error", [])
    assert "it was cancelled" in what
