# shellcheck shell=bash
# A machine of the lab: a network, a PID, a mount and a UTS namespace, held together by its init (deploy/lab/init). Kill that
# process, and all of the machine is gone at once, as when the power fails; what it had written to its state stays.
# Needs lab.sh.

machine_dir() { printf '%s/machines/%s\n' "$LAB_DIR" "$1"; }

# Prints the process id of the machine's init as seen from here; fails when it is off. The start time guards against another
# process that has the number by now.
machine_pid() {
    local pid='' started='' file
    file=$(machine_dir "$1")/pid
    [[ -s $file ]] || return 1
    read -r pid started <"$file"
    [[ -n $started && $(process_started "$pid") == "$started" ]] || return 1
    printf '%s\n' "$pid"
}

# When the process started, in ticks since the boot of this machine; nothing when it has ended.
process_started() {
    local stat=''
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    stat=${stat##*) }
    # shellcheck disable=SC2086 # fields
    set -- $stat
    [[ $1 == [ZX] ]] || printf '%s\n' "${20}"
}

machine_on() { machine_pid "$1" >/dev/null; }

# machine_start NAME: returns when its namespaces and mounts stand.
machine_start() {
    local name=$1 dir
    dir=$(machine_dir "$name")
    mkdir -p "$dir"/{state,log} "$LAB_DIR/pool"
    # As with the state below.
    chmod 0711 "$LAB_DIR/pool"
    # Guests run unprivileged and must reach their disks; from outside, LAB_DIR is closed to all but root.
    chmod 0755 "$dir/state"
    rm -f "$dir/pid"
    lab_hosts_file >"$dir/hosts"
    machine_cgroups_remove "$name"
    # A session of its own: neither the end of this terminal nor its Ctrl-C reaches it.
    setsid --fork unshare --fork --pid --mount --propagation private --net --uts "$LAB_SCRIPTS/init" "$name" "$dir" "$LAB_BIN_DIR" \
        </dev/null >"$dir/log/init" 2>&1 9>&-
    wait_until 20 machine_on "$name" || die "the machine $name did not start; the output of its init:" "$(<"$dir/log/init")"
}

# The power fails: one SIGKILL.
machine_kill() {
    local pid
    pid=$(machine_pid "$1") || return 0
    kill -KILL "$pid" 2>/dev/null || true
    # It ends when all processes of its namespace have.
    while [[ -n $(process_started "$pid") ]]; do sleep 0.01; done
    rm -f "$(machine_dir "$1")/pid"
}

# machine_run NAME COMMAND...: in the machine, as if typed there.
machine_run() {
    local name=$1 pid
    shift
    pid=$(machine_pid "$name") || die "the machine $name is off" "turn it on: $LAB_SCRIPTS/power-on $name"
    PATH=/run/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        IAASCTL_CONFIG=/var/lib/iaas/iaasctl.toml IAAS_CONFIG=/run/lab/iaasd.toml \
        nsenter --target "$pid" --mount --uts --net --pid --wd=/ "$@" 9>&-
}

# A path of the machine, as seen from here.
machine_path() { printf '/proc/%s/root%s\n' "$(machine_pid "$1")" "$2"; }

# What a power loss leaves of the control groups of its instances; a machine that boots has none. They are the one thing that
# the machines share with the machine that the lab runs on, below one group per lab.
machine_cgroups_remove() {
    local mount group=$LAB_CGROUP/$1
    while read -r mount; do
        [[ -d $mount/$group ]] || continue
        find "$mount/$group" -depth -type d -exec rmdir {} + 2>/dev/null || note "$mount/$group is still in use, and stays"
        rmdir --ignore-fail-on-non-empty "$mount/$LAB_CGROUP" 2>/dev/null || true
    done < <(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts)
}

lab_hosts_file() {
    local name
    printf '127.0.0.1 localhost\n::1 localhost\n'
    for name in manager $(lab_host_names); do
        printf '%s %s\n%s %s\n' "$(underlay_address "$name")" "$name" "$(underlay_address6 "$name")" "$name"
    done
}

# machine_boot NAME: on, with its cables, as `up` and `power-on` leave it; one that is on is left alone.
machine_boot() {
    local name=$1
    ! machine_on "$name" || return 0
    [[ $name == fabric ]] || machine_on fabric || die "the lab $LAB_NAME is down" "start it with: $LAB_SCRIPTS/up --name $LAB_NAME"
    config_of "$name" >"$LAB_DIR/config.new"
    mkdir -p "$(machine_dir "$name")"
    mv -f "$LAB_DIR/config.new" "$(machine_dir "$name")/iaasd.toml"
    machine_start "$name"
    case $name in
        fabric) wire_fabric ;;
        outside) wire_outside ;;
        manager) wire_underlay "$name" ;;
        host*) wire_host "$name" ;;
    esac
    wait_until 5 wire_settled "$name" || die "the links of $name did not come up within 5 s" "see: $LAB_SCRIPTS/exec $name ip link"
}
