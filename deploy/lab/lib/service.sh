# shellcheck shell=bash
# The services of the lab's machines: `control-plane` on manager, `compute-agent` and `network-agent` on each host. Nothing
# restarts them by itself: a test that kills one wants to see what happens without. Needs lab.sh.

services_of() {
    case $1 in
        manager) echo control-plane ;;
        host*) printf '%s\n' compute-agent network-agent ;;
    esac
}

# service_pid MACHINE SERVICE: its process id inside the machine; fails when it doesn't run.
service_pid() {
    local pid='' run command
    machine_on "$1" || return 1
    run=$(machine_path "$1" /run/lab/"$2".pid)
    { read -r pid <"$run"; } 2>/dev/null || return 1
    command=$({ tr '\0' ' ' <"$(machine_path "$1" /proc/"$pid"/cmdline)"; } 2>/dev/null) || return 1
    [[ $command == *"iaasd $2 "* ]] || return 1
    printf '%s\n' "$pid"
}

# service_start MACHINE SERVICE [OPTION]...: in the background; does nothing when it runs already.
service_start() {
    local machine=$1 service=$2
    shift 2
    ! service_pid "$machine" "$service" >/dev/null || return 0
    # shellcheck disable=SC2016 # expanded in the machine
    machine_run "$machine" setsid --fork bash -c 'service=$1; shift; echo $$ >"/run/lab/$service.pid"
        exec iaasd "$service" "$@" >>"/run/lab/log/$service" 2>&1' start "$service" "$@" --config /run/lab/iaasd.toml </dev/null >/dev/null 2>&1
    wait_until 10 service_pid "$machine" "$service" >/dev/null || service_failed "$machine" "$service" "it ended at once"
}

# service_stop MACHINE SERVICE [SIGNAL]
service_stop() {
    local pid
    pid=$(service_pid "$1" "$2") || return 0
    machine_run "$1" kill -s "${3:-TERM}" "$pid"
    wait_until 60 service_gone "$1" "$2" || die "$2 on $1 did not end within 60 s of a SIG${3:-TERM}" \
        "end it the hard way: $LAB_SCRIPTS/service kill $1 $2"
}

service_gone() { ! service_pid "$1" "$2" >/dev/null; }

service_failed() {
    local log
    log=$(machine_dir "$1")/log/$2
    tail -n 15 "$log" >&2 || true
    die "$2 on $1 failed: $3" "its last log lines are above; the whole log: $log"
}

# The control plane answers, and its administrator is logged in.
control_plane_ready() {
    service_pid manager control-plane >/dev/null || service_failed manager control-plane "it ended while starting"
    machine_run manager curl --silent --fail --cacert /var/lib/iaas/ca/ca.pem --noproxy '*' --max-time 2 --output /dev/null \
        "$(api_url)/readyz" 2>/dev/null
}

ctl() { machine_run manager iaasctl "$@"; }

control_plane_start() {
    service_start manager control-plane
    wait_until 60 control_plane_ready || service_failed manager control-plane "$(api_url)/readyz did not say 200 within 60 s"
    quietly ctl login --url "$(api_url)" --ca-file /var/lib/iaas/ca/ca.pem --user admin --password-file /var/lib/iaas/admin-password
}

# A host that has joined once knows who it is; one that hasn't gets a token, good for one host. Both its agents use it.
host_start() {
    local host=$1 join=()
    if ! host_joined "$host"; then
        ctl host token create --name "$host" --output json | jq -r .token |
            machine_run "$host" bash -c 'umask 077 && cat >/run/lab/token' || die "no token could be created for $host (see above)"
        join=(--join @/run/lab/token)
    fi
    service_start "$host" compute-agent "${join[@]}"
    service_start "$host" network-agent "${join[@]}"
}

host_joined() { [[ -e $(machine_dir "$1")/state/host/compute-agent.pem && -e $(machine_dir "$1")/state/host/network-agent.pem ]]; }

# host_is HOST STATE: as the control plane sees it.
host_is() { ctl host list -o json 2>/dev/null | jq -e --arg name "$1" --arg state "$2" 'any(.. | objects; .name? == $name and .state? == $state)' >/dev/null; }

# agent_linked HOST SERVICE PORT: the agent itself holds a connection to the manager that listens there.
agent_linked() {
    local pid
    pid=$(service_pid "$1" "$2") || return 1
    machine_run "$1" ss -Htnp state established dport = ":$3" 2>/dev/null | grep -q "pid=$pid,"
}

# host_ready HOST: both its agents are in touch with their managers.
host_ready() { host_is "$1" up && host_joined "$1" && agent_linked "$1" compute-agent 7481 && agent_linked "$1" network-agent 7483; }
