"""The workflows for pull requests: what they may do, and that their commands work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs_kit import ROOT, check, shell

WORKFLOWS = ROOT / ".github" / "workflows"
NAMES = ("ci", "record", "comment")
READING = {"contents": "read"}


def workflow(name: str) -> dict[Any, Any]:
    """A workflow file; YAML 1.1 reads its key `on` as true."""
    found: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def steps(name: str) -> list[dict[str, Any]]:
    """All steps of a workflow."""
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def scripts(name: str) -> dict[str, str]:
    """Step -> its shell script."""
    return {step["name"]: step["run"] for step in steps(name) if "run" in step}


def test_all_workflows_are_looked_at() -> None:
    """There is no workflow that these tests do not know."""
    assert sorted(path.name for path in WORKFLOWS.iterdir()) == sorted(f"{n}.yml" for n in NAMES)


@pytest.mark.parametrize("name", ["ci", "record"])
def test_what_a_pull_request_can_run_may_only_read(name: str) -> None:
    """Where a pull request triggers, the token reads, no job has more, and it is not kept."""
    found = workflow(name)
    assert "pull_request" in found[True]
    assert found["permissions"] == READING
    assert not any("permissions" in job for job in found["jobs"].values())
    assert "secrets." not in (WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8")
    for step in steps(name):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_what_may_write_runs_nothing_of_a_pull_request() -> None:
    """The workflow with a writing token neither checks out nor runs a shell, and only comments."""
    found = workflow("comment")
    assert set(found[True]) == {"workflow_run"}
    assert found["permissions"] == {}
    (job,) = found["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    used = [step["uses"].partition("@")[0] for step in job["steps"]]
    assert used == ["actions/download-artifact", "actions/github-script"]


def test_no_workflow_uses_text_of_a_pull_request_in_a_script() -> None:
    """Expressions in scripts could be code: there are none."""
    for name in NAMES:
        for step in steps(name):
            assert "${{" not in step.get("run", "") + step.get("with", {}).get("script", "")
        assert "pull_request_target" not in workflow(name)[True]


def test_actions_are_pinned_by_commit() -> None:
    """Each is named by 40 hexadecimal digits, with its version beside it."""
    for name in NAMES:
        text = (WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8")
        used = re.findall(r"uses: (.+)", text)
        assert used
        for action in used:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


def test_ci_does_what_the_makefile_does() -> None:
    """A browser, set up, lint, test: by the targets that contributors use."""
    found = list(scripts("ci").values())
    assert found == ["make browser", "make setup", "make lint", "make test"]


def test_their_commands_are_known() -> None:
    """Each privbench line parses, options included."""
    lines = [line for script in scripts("record").values() for line in shell(script)]
    assert len(lines) == 3
    for line in lines:
        check(line)


def live(text: str) -> bool:
    """Whether the workflow would refuse to post a text, by its own pattern."""
    (script,) = [s["with"]["script"] for s in steps("comment") if "script" in s.get("with", {})]
    (pattern,) = re.findall(r"const LIVE = /(.+)/im;", script)
    return re.search(pattern, text, re.IGNORECASE | re.MULTILINE) is not None


@pytest.mark.parametrize("text", [
    "<img src=x>", "[a](b)", "[a]: b", "[a][b]", "![a]", "@everybody", "http://x.org", "WWW.x.org",
    "closes #12", "#1", "a\n#2",
])  # fmt: skip
def test_what_is_live_is_not_posted(text: str) -> None:
    """Links, pictures, HTML, mentions and references to issues are refused."""
    assert live(f"Ranks 1 to 2.\n{text}\n")


@pytest.mark.parametrize("text", ["## Heading\n", "0.840 [0.775, 0.893] → 0.1 [0.0, 0.2]",
                                  "a &#60;b&#62; &#64;c", "| 1–2 | `code` |"])  # fmt: skip
def test_what_we_write_is_posted(text: str) -> None:
    """Headings, intervals and escaped text pass."""
    assert not live(text)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A runner's folder: the branch, and a proposal with one record more."""
    sample = sorted((ROOT / "leaderboard" / "records").glob("*--contrastive-reid--*.json.gz"))[:4]
    for side, kept in (("trusted", sample[:2]), ("proposed", sample[:3])):
        folder = tmp_path / side / "leaderboard" / "records"
        folder.mkdir(parents=True)
        for path in kept:
            shutil.copy(path, folder)
    return tmp_path


def run(step: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A step of record.yml as a runner runs it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", scripts("record")[step]],
        cwd=place, capture_output=True, text=True, env=os.environ | {"PATH": path},
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="a runner's shell")
def test_the_steps_work(place: Path) -> None:
    """Verify, compare and render, as in the workflow: a record under another name is refused, and
    the comment says so and what would change."""
    new = place / "proposed" / "leaderboard" / "records"
    (name,) = {p.name for p in new.iterdir()} - {
        p.name for p in (place / "trusted" / "leaderboard" / "records").iterdir()
    }
    spoilt = new / name
    shutil.copy(spoilt, new / "renamed by hand.json.gz")
    done = run("Verify the changed records", place)
    assert done.returncode == 123, "xargs says that a command failed"
    assert (place / "changed.txt").read_text(encoding="utf-8").splitlines() == [
        f"proposed/leaderboard/records/{name}",
        "proposed/leaderboard/records/renamed by hand.json.gz",
    ]
    assert run("Compare the boards", place).returncode == 0
    text = (place / "comment.md").read_text(encoding="utf-8")
    assert "new" in text
    assert "the file must be named after its record" in text
    assert not live(text)
    assert run("Render the board, to look at", place).returncode == 0
    assert (place / "rendered" / "LEADERBOARD.md").is_file()
