# shellcheck shell=bash
# Starts, stops and watches iaasd: by systemd where that is PID 1, else in the background with a pid file.
# Needs say.sh and paths.sh. Instances are nobody's child, so they outlive a stop and are adopted at the next start.

readonly READY_SECONDS=60
readonly STOP_SECONDS=60

systemd_runs() { [[ -d /run/systemd/system ]]; }

# Prints the process id of our iaasd; fails when it does not run.
daemon_pid() {
    local pid=''
    if systemd_runs && [[ -f $UNIT ]]; then
        pid=$(systemctl show --property MainPID --value iaasd.service)
    elif [[ -s $PID_FILE ]]; then
        read -r pid <"$PID_FILE" || true
    fi
    [[ $pid =~ ^[1-9][0-9]*$ ]] && daemon_is "$pid" || return 1
    printf '%s\n' "$pid"
}

# A pid file outlives a crash and pids are used again: is this process the iaasd that we installed (or replaced since)?
daemon_is() {
    local exe
    exe=$(readlink "/proc/$1/exe" 2>/dev/null) || return 1
    [[ ${exe% (deleted)} == "$LIB_DIR/iaasd" ]]
}

# What a running iaasd was started from: a change means a restart.
daemon_fingerprint() { cat "$LIB_DIR/iaasd" "$CONFIG" | sha256sum | cut -d' ' -f1; }

# api_listen: the address in the configuration, [api] listen = "...".
api_listen() {
    local listen
    listen=$(awk '/^[[:space:]]*\[/ { section = $0; gsub(/[][ \t]/, "", section) }
        section == "api" && /^[[:space:]]*listen[[:space:]]*=/ { gsub(/.*=[[:space:]]*"|".*/, ""); print; exit }' "$CONFIG")
    printf '%s\n' "${listen:-127.0.0.1:7480}"
}

# The address to call: of a wildcard, the loopback. Other than on loopback the API speaks HTTPS.
api_url() {
    local listen host scheme=https
    listen=$(api_listen)
    host=${listen%:*}
    case $host in
        127.* | localhost | '[::1]') scheme=http ;;
        0.0.0.0) host=127.0.0.1 ;;
        '[::]') host='[::1]' ;;
    esac
    printf '%s://%s:%s\n' "$scheme" "$host" "${listen##*:}"
}

# daemon_start: leaves one running that was started from the same binary and configuration.
daemon_start() {
    local pid fingerprint
    fingerprint=$(daemon_fingerprint)
    mkdir -p "$RUN_DIR" "$LOG_DIR"
    if pid=$(daemon_pid); then
        if [[ -s $RUN_DIR/fingerprint && $(<"$RUN_DIR/fingerprint") == "$fingerprint" ]]; then
            note "iaasd is already running (process $pid)"
            daemon_wait_ready
            return
        fi
        note "iaasd or its configuration changed: restarting it (instances keep running)"
        daemon_stop
    fi
    "$LIB_DIR/iaasd" config check --config "$CONFIG" >/dev/null || die "the configuration $CONFIG has errors (see above)" "correct it, then run this again"
    port_is_free
    if systemd_runs; then
        if ! cmp -s "$ROOT/deploy/systemd/iaasd.service" "$UNIT"; then
            install -m 0644 "$ROOT/deploy/systemd/iaasd.service" "$UNIT"
            systemctl daemon-reload
        fi
        systemctl --quiet enable iaasd.service
        systemctl start iaasd.service || daemon_failed "systemd could not start it"
    else
        # iaasd itself bounds the file. What it doesn't write there (a panic's words) is appended to it.
        # A session of its own: neither the end of this terminal nor its Ctrl-C reaches it.
        # shellcheck disable=SC2016 # expanded by the inner shell
        setsid --fork bash -c 'echo $$ >"$1" && IAAS_LOG_FILE=$4 exec "$2" all --config "$3" >>"$4" 2>&1 9>&-' \
            iaasd "$PID_FILE" "$LIB_DIR/iaasd" "$CONFIG" "$LOG_FILE" </dev/null >/dev/null 2>&1 9>&-
    fi
    daemon_wait_ready
    printf '%s\n' "$fingerprint" >"$RUN_DIR/fingerprint"
}

# Waits until /readyz says 200; gives up at once when the process has ended.
daemon_wait_ready() {
    local url deadline=$((SECONDS + READY_SECONDS)) absent=0
    url=$(api_url)/readyz
    while ((SECONDS < deadline)); do
        if curl --silent --fail --insecure --noproxy '*' --max-time 2 --output /dev/null "$url"; then
            return
        fi
        if daemon_pid >/dev/null; then
            absent=0
        else
            ((++absent < 20)) || daemon_failed "it ended while starting"
        fi
        sleep 0.1
    done
    daemon_failed "$url did not answer 200 within $READY_SECONDS s: $(curl --silent --insecure --noproxy '*' --max-time 2 "$url" || echo 'no answer')"
}

daemon_failed() {
    daemon_log 15 >&2
    die "iaasd did not start: $1" "its last log lines are above; the whole log: $(daemon_log_place)" \
        "to check this machine, run: $LIB_DIR/iaasd doctor --config $CONFIG"
}

daemon_log_place() {
    if systemd_runs; then echo "journalctl -u iaasd"; else echo "$LOG_FILE"; fi
}

# daemon_log LINES
daemon_log() {
    if systemd_runs; then
        journalctl --no-pager --quiet -u iaasd -n "$1" || true
    elif [[ -s $LOG_FILE ]]; then
        tail -n "$1" "$LOG_FILE"
    fi
}

port_is_free() {
    local listen holder
    listen=$(api_listen)
    holder=$(ss -Hltnp "sport = :${listen##*:}" 2>/dev/null | sed -n '1s/.*users:((\("[^"]*"\),pid=\([0-9]*\).*/\1 (process \2)/p')
    [[ -z $holder ]] || die "port ${listen##*:} is in use by $holder" \
        "stop that process, or set another port in $CONFIG ([api] listen), then run this again"
}

# SIGTERM, then wait; SIGKILL if it will not go. Instances keep running.
daemon_stop() {
    local pid deadline=$((SECONDS + STOP_SECONDS))
    if systemd_runs && [[ -f $UNIT ]]; then
        systemctl stop iaasd.service
    fi
    if pid=$(daemon_pid); then
        kill -TERM "$pid"
        while daemon_is "$pid"; do
            if ((SECONDS >= deadline)); then
                note "iaasd (process $pid) did not end within $STOP_SECONDS s: killing it"
                kill -KILL "$pid" 2>/dev/null || true
            fi
            sleep 0.1
        done
    fi
    rm -f "$PID_FILE" "$RUN_DIR/fingerprint"
}
