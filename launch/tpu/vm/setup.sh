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
  if [ -n "$GCSFUSE_VERSION" ]; then
    package=$ROOT/gcsfuse_${GCSFUSE_VERSION}_amd64.deb
    curl --fail --silent --show-error --location --retry 5 --output "$package" \
      "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$GCSFUSE_VERSION/${package##*/}"
    if ! echo "$GCSFUSE_SHA256  $package" | sha256sum --check --status; then
      rm -f "$package"
      say "the package of gcsfuse $GCSFUSE_VERSION is not the one that tpu_vm.gcsfuse names: check version and sum"
      exit 6
    fi
    apt update
    apt install "$package"
    rm -f "$package"
  else
    keyring=/usr/share/keyrings/cloud.google.asc
    source /etc/os-release
    curl --fail --silent --show-error --location --retry 5 https://packages.cloud.google.com/apt/doc/apt-key.gpg |
      sudo tee "$keyring" >/dev/null
    echo "deb [signed-by=$keyring] https://packages.cloud.google.com/apt gcsfuse-$VERSION_CODENAME main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    apt update
    apt install gcsfuse
  fi
fi

if [ ! -e "$TRAINER/complete" ]; then
  say "installs MaxText"
  sudo rm -rf "$TRAINER"
  # Nothing is run that is not what its hash says: uv, the Python that this uv knows the hash of, and ready-made packages.
  if [ ! -x "$UV/bin/uv" ]; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
      apt update
      apt install python3-pip
    fi
    sudo rm -rf "$UV"
    python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --target "$UV" \
      --only-binary :all: --require-hashes --requirement uv.lock
  fi
  "$UV/bin/uv" venv --quiet --python 3.12 "$TRAINER"
  "$UV/bin/uv" pip install --quiet --python "$TRAINER" --only-binary :all: --require-hashes --requirement trainer.lock
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
