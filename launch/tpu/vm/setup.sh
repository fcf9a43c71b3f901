#!/bin/bash
# Prepares this worker for the job and starts it. It may be run again: what is there already is kept.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source ./settings.sh

apt() { sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 --quiet --yes "$@"; }

say() { echo "$(hostname): $*"; }

# Two of these at once would trip over each other.
sudo mkdir -p "$ROOT" "$JOBS" "$MOUNT_CONFIGS"
sudo chown "$(id -un)" "$ROOT" "$JOBS"
exec 9>"$ROOT/lock"
flock 9

if sudo systemctl is-active --quiet "$UNIT"; then
  if [ "$(cat "$JOBS/$JOB/digest.txt" 2>/dev/null)" = "$(cat digest.txt)" ]; then
    say "the job runs already"
    exit 0
  fi
  say "the job runs already, made from another config: stop it first"
  exit 3
fi

if [ "${#BUCKETS[@]}" -gt 0 ] && ! command -v gcsfuse >/dev/null; then
  say "installs gcsfuse"
  keyring=/usr/share/keyrings/cloud.google.asc
  source /etc/os-release
  curl --fail --silent --show-error --location --retry 5 https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee "$keyring" >/dev/null
  echo "deb [signed-by=$keyring] https://packages.cloud.google.com/apt gcsfuse-$VERSION_CODENAME main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  apt update
  apt install gcsfuse
fi

if [ ! -e "$TRAINER/complete" ]; then
  say "installs MaxText"
  sudo rm -rf "$TRAINER"
  if [ ! -x "$ROOT/bin/uv" ]; then
    curl --fail --silent --show-error --location --retry 5 "https://astral.sh/uv/$UV_VERSION/install.sh" |
      env UV_INSTALL_DIR="$ROOT/bin" UV_NO_MODIFY_PATH=1 sh
  fi
  "$ROOT/bin/uv" venv --quiet --python 3.12 "$TRAINER"
  "$ROOT/bin/uv" pip install --quiet --python "$TRAINER" --require-hashes --requirement trainer.lock
  touch "$TRAINER/complete"
fi

# By whomever it was put there.
sudo rm -rf "${JOBS:?}/$JOB"
cp -R . "$JOBS/$JOB"

for bucket in "${BUCKETS[@]}"; do
  sudo mkdir -p "$MOUNT_ROOT/$bucket" "$CACHE_FOLDER/$bucket"
  sudo install -m 644 "mount-$bucket.yaml" "$MOUNT_CONFIGS/$bucket.yaml"
  sudo install -m 644 "mount-$bucket.service" "$UNITS/broetchen-mount-$bucket.service"
done
sed "s/@USER@/$(id -un)/" trainer.service | sudo tee "$UNITS/$UNIT" >/dev/null
sudo systemctl daemon-reload

for bucket in "${BUCKETS[@]}"; do
  if ! sudo systemctl enable --quiet --now "broetchen-mount-$bucket.service"; then
    sudo journalctl --unit="broetchen-mount-$bucket.service" --output=cat --no-pager --lines=20
    say "cannot mount gs://$bucket: may the service account of this machine read it?"
    exit 4
  fi
done

# Its restarts are counted from here.
sudo systemctl reset-failed "$UNIT" 2>/dev/null || true
sudo systemctl enable --quiet "$UNIT"
sudo systemctl start "$UNIT"
say "the job is started"
