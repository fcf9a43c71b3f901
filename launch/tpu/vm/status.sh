#!/bin/bash
# How the job is on this worker, in one line.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source ./settings.sh
properties=$(sudo systemctl show "$UNIT" --property=ActiveState,Result,ExecMainStatus,NRestarts)
# The reason of the trainer's end, in the last line of its log.
said=
if [[ $properties == *ActiveState=failed* ]]; then
  said=$(sudo journalctl --unit="$UNIT" --output=cat --no-pager --lines=200 | sed -n 's/^broetchen: //p' | tail -n 1)
fi
echo "worker=$(hostname) ${properties//$'\n'/ }${said:+ said=$said}"
