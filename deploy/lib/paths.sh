# shellcheck shell=bash
# shellcheck disable=SC2034 # read by the scripts that source this
# Where an installation on this machine lives. `deploy/down --purge` removes exactly these.

readonly LIB_DIR=/usr/local/lib/iaas
readonly BIN_DIR=/usr/local/bin
readonly ETC_DIR=/etc/iaas
readonly STATE_DIR=/var/lib/iaas
readonly RUN_DIR=/run/iaas
readonly LOG_DIR=/var/log/iaas
readonly CONFIG=$ETC_DIR/iaasd.toml
readonly ADMIN_PASSWORD=$ETC_DIR/admin-password
readonly PID_FILE=$RUN_DIR/iaasd.pid
readonly LOG_FILE=$LOG_DIR/iaasd.log
readonly UNIT=/etc/systemd/system/iaasd.service
readonly BINARIES=(iaasd iaasctl)
readonly CLI_CONFIG=${IAASCTL_CONFIG:-${XDG_CONFIG_HOME:-${HOME:-/root}/.config}/iaas/config.toml}
