#!/bin/bash
# How the job is on this worker, in one line.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source ./settings.sh
properties=$(sudo systemctl show "$UNIT" --property=ActiveState,Result,ExecMainStatus,NRestarts)
echo "worker=$(hostname) ${properties//$'\n'/ }"
