#!/bin/bash
# What ipmi_sim calls as `chassis.sh get power boot …` and `chassis.sh set power 0`. The testbed knows the power: one line
# to it, and one back ("power:1", or "ok", or "no" for a refusal).
set -eu
exec 3<>"/dev/tcp/127.0.0.1/$RINGFENCE_CHASSIS"
ask() {
  echo "$*" >&3
  read -r answer <&3
}
operation=$1
shift
case $operation in
  get)
    for parameter; do
      case $parameter in
        power) ask get; echo "$answer" ;;
        boot) echo boot:default ;;
        *) exit 1 ;;
      esac
    done
    ;;
  set)
    while (($# >= 2)); do
      if [[ $1 == power ]]; then
        ask set "$2"
        [[ $answer == ok ]]
      fi
      shift 2
    done
    ;;
  *) exit 1 ;;
esac
