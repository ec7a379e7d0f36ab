# shellcheck shell=bash
# The cables. The machine `fabric` holds two bridges, `underlay` and `external`; each other machine's cables end there in a
# port of its own: NAME (underlay) and NAME-x (external). Needs lab.sh.
#
# In a host the underlay is `eth0`, and the external network the bridge `ext0` over `eth1`. Bridges don't snoop on multicast:
# without a querier they would drop neighbour discovery.

in_fabric() { nsenter --target "$(machine_pid fabric)" --net "$@"; }
in_network_of() { nsenter --target "$(machine_pid "$1")" --net "${@:2}"; }

wire_fabric() {
    local bridge
    for bridge in underlay external; do
        in_fabric ip link add name "$bridge" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
        in_fabric ip link set dev "$bridge" up
    done
}

# wire_cable MACHINE NETWORK PORT LINK: a veth pair, one end in the machine, the other in the fabric's bridge.
wire_cable() {
    local machine=$1 network=$2 port=$3 link=$4
    # The cable of a machine that lost its power may be there for a moment longer.
    in_fabric ip link delete dev "$port" 2>/dev/null || true
    in_fabric ip link add name "$port" mtu "$UNDERLAY_MTU" type veth \
        peer name "$link" mtu "$UNDERLAY_MTU" address "$(wire_mac "$machine" "$link")" netns "$(machine_pid "$machine")"
    in_fabric ip link set dev "$port" master "$network" up
    in_network_of "$machine" ip link set dev "$link" up
}

# A machine that boots again has the hardware addresses that it had; others remember them.
wire_mac() { printf '02:60:00:00:%02x:%02x\n' "${2#eth}" "$(underlay_number "$1")"; }

wire_underlay() {
    wire_cable "$1" underlay "$1" eth0
    in_network_of "$1" ip address add "$(underlay_address "$1")/24" dev eth0
    in_network_of "$1" ip address add "$(underlay_address6 "$1")/64" dev eth0 nodad
}

wire_host() {
    wire_underlay "$1"
    in_network_of "$1" ip link add name ext0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    in_network_of "$1" ip link set dev ext0 up
    wire_cable "$1" external "$1-x" eth1
    in_network_of "$1" ip link set dev eth1 master ext0
}

# The internet: gateway of the external network, and an address beyond it.
wire_outside() {
    wire_cable outside external outside eth0
    in_network_of outside ip address add "$EXTERNAL_GATEWAY/${EXTERNAL_CIDR#*/}" dev eth0
    in_network_of outside ip address add "$EXTERNAL_GATEWAY6/${EXTERNAL_CIDR6#*/}" dev eth0 nodad
    in_network_of outside ip address add "$INTERNET/32" dev lo
    in_network_of outside ip address add "$INTERNET6/128" dev lo nodad
}

# wire_ports MACHINE NETWORK: the fabric's ports that `cut` and `heal` mean.
wire_ports() {
    case $1:$2 in
        manager:underlay | manager:all) echo manager ;;
        outside:external | outside:all) echo outside ;;
        host*:underlay) echo "$1" ;;
        host*:external) echo "$1-x" ;;
        host*:all) printf '%s\n' "$1" "$1-x" ;;
        *) die "the machine $1 has no cable to '$2'" "the networks are underlay and external; manager is only in the first, outside only in the second" ;;
    esac
}

# wire_settled MACHINE: the kernel starts to send by a link up to a second after its carrier came; what is sent before is lost.
wire_settled() {
    in_network_of "$1" ip -json link show |
        jq -e 'all(.[]; (.operstate | . != "DOWN" and . != "LOWERLAYERDOWN") or (.flags | index("LOWER_UP") | not))' >/dev/null
}

# wire_state MACHINE NETWORK: up, cut, silent (link up, nothing passes) or `-`.
wire_state() {
    local port
    port=$(wire_ports "$1" "$2" 2>/dev/null) || { echo - && return; }
    in_fabric ip -json -details link show dev "$port" 2>/dev/null |
        jq -r '.[0] | if (.flags | index("UP") | not) then "cut" elif .linkinfo.info_slave_data.state == "disabled" then "silent" else "up" end'
}
