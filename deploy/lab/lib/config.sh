# shellcheck shell=bash
# iaasd's configuration on each machine. Needs lab.sh.

config_of() {
    case $1 in
        manager) config_manager ;;
        host*) config_host "$1" ;;
    esac
}

config_manager() {
    local address
    address=$(underlay_address manager)
    cat <<TOML
[api]
listen = "$address:$API_PORT"
tls_names = ["manager"]

[identity]
admin_password_file = "/var/lib/iaas/admin-password"

[links]
cluster_listen = "$address:7481"
storage_listen = "$address:7482"
resource_listen = "$address:7483"
TOML
}

# Each host sells its share of this machine's memory; all of it together is not there N times.
config_host() {
    local host=$1 number=${1#host} address total_mib reserve_mib
    address=$(underlay_address "$host")
    total_mib=$(($(awk '/^MemTotal:/ { print $2 }' /proc/meminfo) / 1024))
    reserve_mib=$((total_mib - (total_mib - 1024) / LAB_HOSTS))
    cat <<TOML
[compute]
host_name = "$host"
accelerator = "$LAB_ACCELERATOR"
reserve_memory_mib = $reserve_mib
cgroup_parent = "$LAB_CGROUP/$host"
uid_first = $((700000 + number * 1000))
uid_count = 1000
shared_pool = "/run/lab/pool"

[network]
host_name = "$host"
underlay_address = "$address"
underlay_mtu = $UNDERLAY_MTU
external = { public = "ext0" }
protected = ["$UNDERLAY.0/24", "$UNDERLAY6/64"]
TOML
}
