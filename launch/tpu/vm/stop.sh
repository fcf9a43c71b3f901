#!/bin/bash
# Stops the job on this worker, for good: it does not start again with the machine either.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source ./settings.sh
sudo systemctl disable --quiet --now "$UNIT"
echo "$(hostname): the job is stopped"
