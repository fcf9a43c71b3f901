"""gcloud, xpk and kubectl that play Google Cloud: programs on the PATH with a folder for their state.

They record how they are called, and go through the states and errors that a test has laid down. Commands for a machine
are run by a real `sh -c`, as by ssh, each machine in a folder of its own: the scripts are real, and so is bash. The
programs of such a machine (sudo, systemctl, gcsfuse …) are further names of this program.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CLOUD = ("gcloud", "xpk", "kubectl")
_MACHINE = ("systemctl", "journalctl", "apt-get", "curl", "python3", "sleep")
_COMPILED = "program.pyc"
_STATE, _ROOT = "RECORDING_STATE", "RECORDING_ROOT"

GCSFUSE = "a package of gcsfuse\n"
"""The content that stands for the package of a release."""

NOT_FOUND = "ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource 'projects/p/locations/z/{}' was not found"
# It writes to the machine's folders alone: those that the scripts do not know from their settings are moved here.
_SUDO = """\
#!/bin/sh
program=$1
for word do
  case $word in
    /etc/apt/*|/usr/share/keyrings/*) word=$RECORDING_ROOT$word ;;
  esac
  case $program:$word in
    tee:/*|mkdir:/*|install:/*|chown:/*|rm:/*)
      case $word in
        "$RECORDING_ROOT"/*) mkdir -p "${word%/*}" ;;
        *) echo "sudo $program would write $word" >&2; exit 99 ;;
      esac ;;
  esac
  set -- "$@" "$word"
  shift
done
exec "$@"
"""
_HOSTNAME = '#!/bin/sh\necho "t1v-n-1-w-${RECORDING_ROOT##*-}"\n'
_TOPS = ("/opt/", "/etc/", "/mnt/", "/var/")


class Recorder:
    """The test's side of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        # Hundreds of processes are started: they need not read the source each time.
        import py_compile

        py_compile.compile(__file__, str(folder / _COMPILED))
        for name in _CLOUD:
            _program(self.bin / name, name)
        (folder / "machine").mkdir()
        for name in _MACHINE:
            _program(folder / "machine" / name, name)
        for name, text in (("sudo", _SUDO), ("hostname", _HOSTNAME)):
            _executable(folder / "machine" / name, text)
        self.play()

    def play(self, **scenario: Any) -> None:
        """Lays down what happens next; see `_scenario`'s users."""
        (self.folder / "scenario.json").write_text(json.dumps(scenario))

    def environment(self) -> dict[str, str]:
        """The variables that put it on the PATH."""
        return {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", _STATE: str(self.folder)}

    def calls(self, program: str, *words: str) -> list[list[str]]:
        """The arguments of each call of a program that has all of `words` among them."""
        return [call for call in _lines(self.folder / "calls.jsonl", program) if set(words) <= set(call)]

    def trained(self, machine: int = 0) -> list[list[str]]:
        """The arguments of each call of the trainer on a machine."""
        return [call for call in self.machine_calls("trainer", machine) if not call[0].endswith(_RUNNER)]

    def machine_calls(self, program: str, machine: int = 0) -> list[list[str]]:
        """The arguments of each call of a program on a machine."""
        return _lines(self.folder / f"machine-{machine}" / "calls.jsonl", program)

    def installed(self, machine: int = 0) -> list[list[str]]:
        """The arguments of each call of apt-get on a machine."""
        return self.machine_calls("apt-get", machine)

    def machine(self, machine: int = 0) -> Path:
        """The root folder of a machine."""
        return self.folder / f"machine-{machine}"

    def requests(self) -> dict[str, Any]:
        """The queued resources that there are."""
        with _state(self.folder) as state:
            return dict(state["requests"])

    def add_workload(self, name: str, status: str) -> None:
        """One that is in the cluster."""
        with _state(self.folder) as state:
            state["workloads"][name] = status

    def add_request(self, name: str, **request: Any) -> None:
        """One that somebody else has made."""
        with _state(self.folder) as state:
            state["requests"][name] = {"accelerator": "v6e-8", "spot": False, "labels": {}, **request}


def _program(path: Path, name: str) -> None:
    start = f'{shlex.quote(sys.executable)} -S -E "${_STATE}/{_COMPILED}" {name} "$@"'
    _executable(path, f"#!/bin/sh\nexec {start}\n")


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _lines(path: Path, program: str) -> list[list[str]]:
    if not path.exists():
        return []
    calls = [json.loads(line) for line in path.read_text().splitlines()]
    return [call[1:] for call in calls if call[0] == program]


@contextmanager
def _state(folder: Path, name: str = "state") -> Iterator[dict[str, Any]]:
    """The state, to be changed: one process at a time."""
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / f"{name}.json"
        state = json.loads(path.read_text()) if path.exists() else {"requests": {}, "workloads": {}, "units": {}}
        yield state
        path.write_text(json.dumps(state))


def _scenario(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "scenario.json").read_text()))


def _next(folder: Path, key: str, default: Any = None) -> Any:
    """The next of a list of the scenario; its last one stays."""
    with open(folder / "scenario.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scenario = _scenario(folder)
        values = scenario.get(key) or [default]
        if len(values) > 1:
            scenario[key] = values[1:]
            (folder / "scenario.json").write_text(json.dumps(scenario))
        return values[0]


def _fail(message: str, code: int = 1) -> int:
    print(message, file=sys.stderr)
    return code


# --- gcloud -----------------------------------------------------------------------------------------------------------


def _gcloud(folder: Path, arguments: list[str]) -> int:
    assert arguments[:2] == ["compute", "tpus"], arguments
    kind, verb, *rest = arguments[2:]
    options = dict(word.partition("=")[::2] for word in rest if word.startswith("--"))
    names = [word for word in rest if not word.startswith("--")]
    if error := _next(folder, f"{kind} {verb}"):
        return _fail(error)
    return {
        ("queued-resources", "describe"): _describe,
        ("queued-resources", "create"): _create,
        ("queued-resources", "delete"): _delete,
        ("tpu-vm", "describe"): _describe_node,
        ("tpu-vm", "scp"): _scp,
        ("tpu-vm", "ssh"): _ssh,
    }[kind, verb](folder, names, options)


def _describe(folder: Path, names: list[str], options: dict[str, str]) -> int:
    with _state(folder) as state:
        request = state["requests"].get(names[0])
        if request is None:
            return _fail(NOT_FOUND.format(f"queuedResources/{names[0]}"))
        states = request.setdefault("states", _scenario(folder).get("states") or ["ACTIVE"])
        now = states[0]
        request["states"] = states[1:] or states
    if options["--format"] != "json":
        print(now)
        return 0
    node = {"acceleratorType": request["accelerator"], "labels": request["labels"]}
    answer: dict[str, Any] = {
        "name": f"projects/p/locations/z/queuedResources/{names[0]}",
        "state": {"state": now},
        "tpu": {"nodeSpec": [{"node": node, "nodeId": names[0]}]},
    }
    if request["spot"]:
        answer["spot"] = {}
    if now in ("SUSPENDING", "SUSPENDED"):
        answer["state"]["stateInitiator"] = request.get("initiator", "SERVICE")
    if now == "FAILED":
        answer["state"]["failedData"] = {"error": {"code": 8, "message": _scenario(folder).get("failure", "")}}
    print(json.dumps(answer))
    return 0


def _create(folder: Path, names: list[str], options: dict[str, str]) -> int:
    with _state(folder) as state:
        if names[0] in state["requests"]:
            return _fail(f"ERROR: (gcloud.compute.tpus.queued-resources.create) ALREADY_EXISTS: Resource '{names[0]}' "
                         "already exists")  # fmt: skip
        state["requests"][names[0]] = {
            "accelerator": options["--accelerator-type"],
            "spot": "--spot" in options,
            "labels": dict([options["--labels"].split("=")]) if "--labels" in options else {},
        }
    return 0


def _delete(folder: Path, names: list[str], options: dict[str, str]) -> int:
    with _state(folder) as state:
        if state["requests"].pop(names[0], None) is None:
            return _fail(NOT_FOUND.format(f"queuedResources/{names[0]}"))
    for machine in folder.glob("machine-*"):
        shutil.move(machine, folder / f"former-{len(list(folder.glob('former-*')))}-{machine.name}")
    return 0


def _describe_node(folder: Path, names: list[str], options: dict[str, str]) -> int:
    node = _next(folder, "nodes", "READY")
    if not node:
        return _fail(NOT_FOUND.format(f"nodes/{names[0]}"))
    print(json.dumps({"name": names[0], "state": node, "labels": _scenario(folder).get("labels", {})}))
    return 0


def _machines(folder: Path, options: dict[str, str]) -> list[Path]:
    count = _scenario(folder).get("machines", 1)
    numbers = range(count) if options["--worker"] == "all" else [int(options["--worker"])]
    for number in numbers:
        (folder / f"machine-{number}" / "home").mkdir(parents=True, exist_ok=True)
    return [folder / f"machine-{number}" for number in numbers]


def _scp(folder: Path, names: list[str], options: dict[str, str]) -> int:
    source = Path(names[0])
    for machine in _machines(folder, options):
        target = machine / "home" / source.name
        shutil.copytree(source, target, dirs_exist_ok=True)
        # A machine is a folder here: its own /opt, /etc, /mnt and /var.
        settings = target / "settings.sh"
        settings.write_text(_moved(settings.read_text(), machine))
    return 0


def _moved(text: str, machine: Path) -> str:
    for top in _TOPS:
        text = text.replace(f"={top}", f"={machine}{top}")
    return text


def _ssh(folder: Path, names: list[str], options: dict[str, str]) -> int:
    codes = []
    for machine in _machines(folder, options):
        environment = {
            "PATH": f"{machine / 'bin'}:{folder / 'machine'}:/usr/bin:/bin",
            "HOME": str(machine / "home"),
            _STATE: str(folder),
            _ROOT: str(machine),
        }
        # As sshd does: the login shell reads the whole command.
        done = subprocess.run(["sh", "-c", options["--command"]], cwd=machine / "home", env=environment)
        codes.append(done.returncode)
    with _state(folder) as state:
        if state.pop("gone", False):
            return _fail("Connection closed by remote host", 255)
    return max(codes)


# --- A machine --------------------------------------------------------------------------------------------------------


def _systemctl(folder: Path, machine: Path, arguments: list[str]) -> int:
    verb, *words = arguments
    names = [word for word in words if not word.startswith("--")]
    with _state(machine, "systemd") as state:
        units = state["units"]
        unit = units.setdefault(names[0], {"active": "inactive", "restarts": 0, "status": 0}) if names else {}
        if verb == "is-active":
            if "--quiet" not in words:
                print(unit["active"])
            return 0 if unit["active"] == "active" else 3
        if verb == "show":
            result = "exit-code" if unit["active"] == "failed" else "success"
            print(f"ActiveState={unit['active']}\nResult={result}\nExecMainStatus={unit['status']}\n"
                  f"NRestarts={unit['restarts']}")  # fmt: skip
            return 0
        if verb == "disable":
            unit.update(active="inactive", enabled=False)
        elif verb == "enable":
            unit["enabled"] = True
        elif verb == "reset-failed":
            unit["restarts"] = 0
        if verb == "start" or (verb == "enable" and "--now" in words):
            return _start_unit(folder, machine, names[0], unit)
    return 0


def _start_unit(folder: Path, machine: Path, name: str, unit: dict[str, Any]) -> int:
    text = (machine / "etc/systemd/system" / name).read_text()
    assert "@USER@" not in text
    values = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    words = shlex.split(values["ExecStart"])
    words = shlex.split(values["ExecStart"])
    command = [f"{machine}{word}" if word.startswith(_TOPS) else _moved(word, machine) for word in words]
    if command[0] == "/usr/bin/gcsfuse":
        command[0] = str(machine / "bin/gcsfuse")
        mounted = subprocess.run(command).returncode == 0
        unit["active"] = "active" if mounted else "failed"
        return 0 if mounted else 1
    script = Path(command[1])
    here = machine / "train-here.sh"
    here.write_text(script.read_text().replace("/opt/broetchen", f"{machine}/opt/broetchen"))
    burst = int(values["StartLimitBurst"])
    assert (values["Restart"], values["StartLimitIntervalSec"]) == ("on-failure", "infinity")
    for starts in range(1, burst + 1):
        done = _journaled(machine, ["bash", str(here)], cwd=script.parent)
        unit.update(restarts=starts - 1, status=done)
        if done == _RUNS:
            unit.update(active="active", status=0)
            return 0
        if done == 0:
            unit["active"] = "inactive"
            return 0
        if str(done) in values["RestartPreventExitStatus"].split():
            break
    unit["active"] = "failed"
    return 0


def _journaled(machine: Path, command: list[str], **options: Any) -> int:
    """Runs a command whose output is the machine's journal."""
    with open(machine / "journal.txt", "a") as journal:
        return subprocess.run(command, stdout=journal, stderr=journal, **options).returncode


# The exit code by which the trainer of these machines says that it goes on.
_RUNS = 77
# The program that runs the trainer there: one of ours, for a real Python.
_RUNNER = "/ending.py"


def _trainer(folder: Path, machine: Path, arguments: list[str]) -> int:
    if arguments[0] == "-c":
        return int(_scenario(folder).get("maxtext_is_missing", 0))
    if arguments[:2] == ["-m", "pip"]:
        assert "--require-hashes" in arguments
        return 0 if "maxtext==" in Path(arguments[-1]).read_text() else 1
    if os.environ.get("JAX_PLATFORMS") != "tpu,cpu":
        return _fail("would train on the CPU")
    if arguments[0].endswith(_RUNNER):
        os.execv(sys.executable, [sys.executable, "-I", *arguments])
    for said in ("completed step: 0, loss: 11.0", *_scenario(folder).get("said", [])):
        print(f"I1129 21:32:10.391026 140660849113984 train.py:1454] {said}")
    code = _next(folder, "trainer", _RUNS)
    return int(code)


def _journalctl(folder: Path, machine: Path, arguments: list[str]) -> int:
    journal = machine / "journal.txt"
    print(journal.read_text() if journal.exists() else "-- No entries --", end="")
    return 0


def _sleep(folder: Path, machine: Path, arguments: list[str]) -> int:
    """Time goes by: the job goes on, ends, fails, or its machine is taken away."""
    what = _next(folder, "meanwhile", "inactive")
    with _state(machine, "systemd") as state:
        for name, unit in state["units"].items():
            if "mount" not in name and what in ("inactive", "failed"):
                unit["active"] = what
            elif "mount" not in name and what != "-":
                unit["active"] = "inactive"
    if what in ("preempted", "deleted", "deleted-slice"):
        with _state(folder) as state:
            for request in state["requests"].values():
                request["states"] = ["SUSPENDING", "SUSPENDED"]
                request["initiator"] = "SERVICE" if what == "preempted" else "USER"
            if what == "deleted":
                state["requests"] = {}
            state["gone"] = True
    return 0


def _apt_get(folder: Path, machine: Path, arguments: list[str]) -> int:
    if "install" in arguments:
        _program(machine / "bin" / "gcsfuse", "gcsfuse")
    return 0


def _curl(folder: Path, machine: Path, arguments: list[str]) -> int:
    if "--output" in arguments:
        Path(arguments[arguments.index("--output") + 1]).write_text(GCSFUSE)
    else:
        print("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    return 0


def _python3(folder: Path, machine: Path, arguments: list[str]) -> int:
    """The machine's own: its pip, which installs uv where all that it is given has its hash, and no other program."""
    assert arguments[:2] == ["-m", "pip"], arguments
    if arguments[2] == "--version":
        return int(_scenario(folder).get("pip_is_missing", 0))
    lock = Path(arguments[-1]).read_text()
    assert {"install", "--require-hashes"} <= set(arguments)
    assert lock.startswith("uv==")
    assert "--hash=sha256:" in lock
    _program(Path(arguments[arguments.index("--target") + 1]) / "bin" / "uv", "uv")
    return 0


def _uv(folder: Path, machine: Path, arguments: list[str]) -> int:
    if arguments[0] == "venv":
        _program(Path(arguments[-1]) / "bin" / "python", "trainer")
        return 0
    assert "--require-hashes" in arguments
    lock = Path(arguments[-1]).read_text()
    return 0 if "maxtext==" in lock and "--hash=sha256:" in lock else 1


def _gcsfuse(folder: Path, machine: Path, arguments: list[str]) -> int:
    if _scenario(folder).get("mount_fails"):
        return _fail("Error: gcsfuse: 403 Forbidden")
    config = Path(next(word for word in arguments if word.startswith("--config-file=")).partition("=")[2])
    assert "implicit-dirs: true" in config.read_text()
    assert Path(arguments[-1]).is_dir()
    return 0


# --- xpk --------------------------------------------------------------------------------------------------------------


def _xpk(folder: Path, arguments: list[str]) -> int:
    kind, verb, *rest = arguments
    options = dict(word.partition("=")[::2] for word in rest if word.startswith("--"))
    names = [word for word in rest if not word.startswith("--")]
    if error := _next(folder, f"{kind} {verb}"):
        print(f"[XPK] Starting xpk v1.16.0\n{error}")
        return 1
    with _state(folder) as state:
        workloads, storages = state["workloads"], state.setdefault("storages", [])
        if (kind, verb) == ("workload", "list"):
            print("[XPK] Workload List Output:\nJobset Name   Created Time   Status")
            for name, status in workloads.items():
                if options["--filter-by-status"] in ("EVERYTHING", status):
                    print(f"{name}   2026-01-01T00:00:00Z   {status}")
        elif (kind, verb) == ("workload", "delete"):
            del workloads[options["--workload"]]
        elif (kind, verb) == ("workload", "create"):
            assert options["--workload"] not in workloads
            assert {word[10:] for word in rest if word.startswith("--storage=")} <= set(storages)
            workloads[options["--workload"]] = "RUNNING"
            return _contain(folder, options)
        elif (kind, verb) == ("storage", "list"):
            print("NAME    TYPE\n------  ------", *(f"{name}  gcsfuse" for name in storages), sep="\n")
        elif (kind, verb) == ("storage", "attach"):
            assert names[0] not in storages
            storages.append(names[0])
    return 0


def _contain(folder: Path, options: dict[str, str]) -> int:
    """Does the work of xpk's image and container: both commands go through a shell, unquoted, as in xpk."""
    machine = folder / "machine-0"
    app = machine / "app"
    shutil.rmtree(app, ignore_errors=True)
    app.mkdir(parents=True)
    built = subprocess.run(f"cp -R {options['--script-dir']}/. {app}", shell=True).returncode
    train = app / "train.sh"
    train.write_text(train.read_text().replace("/app/", f"{app}/"))
    _program(machine / "bin" / "python3", "trainer")
    environment = {**os.environ, "PATH": f"{machine / 'bin'}:/usr/bin:/bin", _ROOT: str(machine)}
    command = options["--command"].replace("/app/", f"{app}/")
    ran = _journaled(machine, ["bash", "-c", f"({command})"], env=environment)
    return built or (0 if ran == _RUNS else ran)


def _kubectl(folder: Path, arguments: list[str]) -> int:
    print((folder / "machine-0" / "journal.txt").read_text(), end="")
    return 0


def main() -> int:
    """One call of one of the programs."""
    name, *arguments = sys.argv[1:]
    folder = Path(os.environ[_STATE])
    machine = Path(os.environ[_ROOT]) if _ROOT in os.environ and name not in _CLOUD else None
    with open((machine or folder) / "calls.jsonl", "a") as calls:
        calls.write(json.dumps([name, *arguments]) + "\n")
    play = globals()[f"_{name.replace('-', '_')}"]
    return int(play(folder, arguments) if machine is None else play(folder, machine, arguments))


if __name__ == "__main__":
    sys.exit(main())
