"""The files that a TPU VM's workers get: the job, and the scripts that set it up, watch it and stop it.

Nothing of the job's stands in a command line on the machines: they run the same few scripts for any job. All that
varies is in two files that are made here, `settings.sh` and `train.sh`, where every word is quoted.

The job is a unit of systemd. It lives on when ssh ends and starts again with the machine; where the trainer fails it is
started again, `max_restarts` times in all, and MaxText goes on from the last checkpoint of its run.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from launch.config.tpu import TpuVmConfig
from launch.job import JobFile, TrainingJob
from launch.maxtext.ending import EARLY
from launch.places import MOUNT_ROOT
from launch.tpu import gcsfuse
from launch.tpu.job_folder import LOCK, RUNNER, UV_LOCK, train_script

SETUP, STOP, STATUS, LOGS = "setup.sh", "stop.sh", "status.sh", "logs.sh"

_SCRIPTS = Path(__file__).with_name("vm")
_PURPOSES = {
    SETUP: "installs what is missing and starts the job",
    STOP: "stops the job",
    STATUS: "tells how the job is",
    LOGS: "shows the trainer's log",
}
_ROOT = "/opt/broetchen"
_JOBS = f"{_ROOT}/jobs"
_MOUNT_CONFIGS = "/etc/broetchen"


def unit_of(name: str) -> str:
    """The unit of systemd that is the job."""
    return f"broetchen-{name}.service"


def vm_files(
    name: str, job: TrainingJob, config: TpuVmConfig, buckets: Sequence[str], data_bytes: int
) -> tuple[JobFile, ...]:
    """All files but the lock file; their names have no folder.

    Args:
        name: of the slice, which is also that of the job's unit.
        job: the training.
        config: the section of the training config.
        buckets: those to mount.
        data_bytes: the size of the data in them.
    """
    trainer = _by_hash("trainer", LOCK)
    files = [
        *job.files,
        *(JobFile(script, (_SCRIPTS / script).read_text(), purpose) for script, purpose in _PURPOSES.items()),
        JobFile("train.sh", train_script(job, f"{_JOBS}/{name}", f"{trainer}/bin/python"), "runs MaxText"),
        RUNNER,
        JobFile("uv.lock", UV_LOCK.read_text(), "what installs it, by hash"),
        JobFile("trainer.service", _unit(name, config.max_restarts, buckets), "keeps MaxText running"),
        JobFile("settings.sh", _settings(name, trainer, config, buckets), "what the scripts need to know"),
    ]
    for bucket in buckets:
        mount = gcsfuse.mount_config(
            bucket, cache_folder=config.cache_folder, cache_bytes=config.cache_size, data_bytes=data_bytes
        )
        unit = gcsfuse.mount_unit(bucket, config_folder=_MOUNT_CONFIGS)
        files += [
            JobFile(f"mount-{bucket}.yaml", mount, f"how gs://{bucket} is mounted"),
            JobFile(f"mount-{bucket}.service", unit, f"mounts gs://{bucket}"),
        ]
    return (*files, JobFile("digest.txt", f"{_digest(files)}\n", "tells this job from an earlier one"))


def _digest(files: Iterable[JobFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        for text in (file.name, file.content):
            digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def _settings(name: str, trainer: str, config: TpuVmConfig, buckets: Sequence[str]) -> str:
    gcsfuse_version, _, gcsfuse_sum = (config.gcsfuse or "").partition("@")
    values = {
        "JOB": name,
        "UNIT": unit_of(name),
        "ROOT": _ROOT,
        "JOBS": _JOBS,
        "TRAINER": trainer,
        "UV": _by_hash("uv", UV_LOCK),
        "GCSFUSE_VERSION": gcsfuse_version,
        "GCSFUSE_SHA256": gcsfuse_sum.removeprefix("sha256:"),
        "UNITS": "/etc/systemd/system",
        "MOUNT_ROOT": MOUNT_ROOT,
        "MOUNT_CONFIGS": _MOUNT_CONFIGS,
        "CACHE_FOLDER": config.cache_folder,
    }
    lines = [f"{key}={shlex.quote(value)}" for key, value in values.items()]
    return "\n".join([*lines, f"BUCKETS=({shlex.join(buckets)})"]) + "\n"


def _by_hash(name: str, lock: Path) -> str:
    """The folder in which the packages of a lock file are installed: another list has another folder."""
    return f"{_ROOT}/{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"


def _unit(name: str, max_restarts: int, buckets: Sequence[str]) -> str:
    mounts = " ".join(f"broetchen-mount-{bucket}.service" for bucket in buckets)
    needs = f"Requires={mounts}\n" if mounts else ""
    return f"""\
[Unit]
Description=The training job {name}
Wants=network-online.target
{needs}After=network-online.target {mounts}
StartLimitIntervalSec=infinity
StartLimitBurst={max_restarts + 1}

[Service]
Type=exec
User=@USER@
WorkingDirectory={_JOBS}/{name}
ExecStart=/bin/bash {_JOBS}/{name}/train.sh
Restart=on-failure
RestartPreventExitStatus={EARLY}
RestartSec=30
TimeoutStopSec=180
LimitNOFILE=1048576
LimitMEMLOCK=infinity

[Install]
WantedBy=multi-user.target
"""
