# shellcheck shell=bash
# The external network of a single machine: a bridge with a private range, that the host routes and masquerades, so that
# instances reach out and floating IPs answer from the host. Needs say.sh and paths.sh.
#
# What was there before is written down before anything is changed; external_remove puts it back. Nothing here survives a
# reboot, and external_ensure makes it again. All our rules are in a table of our own: no other is read or touched.

readonly EXTERNAL_BRIDGE=${IAAS_EXTERNAL_BRIDGE:-iaas-ext0}
# Of the block for carriers' own use (RFC 6598), which home and office networks don't use.
readonly EXTERNAL_CIDR=${IAAS_EXTERNAL_CIDR:-100.64.77.0/24}
readonly EXTERNAL_TABLE=iaas-external
readonly EXTERNAL_STATE=$STATE_DIR/external-network

# The host's address in the range: its first.
external_gateway() {
    local a b c d
    IFS=./ read -r a b c d _ <<<"$1"
    printf '%d.%d.%d.%d\n' "$a" "$b" "$c" $((d + 1))
}

external_prefix() { printf '%s\n' "${1#*/}"; }

external_ensure() {
    external_check
    external_remember
    if ! ip link show dev "$EXTERNAL_BRIDGE" >/dev/null 2>&1; then
        # Ours alone, with nothing to loop: no spanning tree, and no wait before the first packet.
        ip link add name "$EXTERNAL_BRIDGE" type bridge stp_state 0 forward_delay 0 ||
            die "the bridge $EXTERNAL_BRIDGE cannot be created (see above)" "is this container allowed to create network links (CAP_NET_ADMIN)?"
        # An address of its own, else it takes one of its ports', another whenever one comes or goes.
        ip link set dev "$EXTERNAL_BRIDGE" address "$(ip -j link show dev "$EXTERNAL_BRIDGE" | jq -r ".[0].address")"
        note "created the bridge $EXTERNAL_BRIDGE with $EXTERNAL_CIDR"
    fi
    ip address replace "$(external_gateway "$EXTERNAL_CIDR")/$(external_prefix "$EXTERNAL_CIDR")" dev "$EXTERNAL_BRIDGE"
    ip link set dev "$EXTERNAL_BRIDGE" up
    if [[ $(</proc/sys/net/ipv4/ip_forward) != 1 ]]; then
        (echo 1 >/proc/sys/net/ipv4/ip_forward) 2>/dev/null ||
            die "net.ipv4.ip_forward is off and cannot be turned on here" "turn it on from outside this container, then run this again"
    fi
    external_rules | nft -f - || die "nftables refused the rules of the external network (see above)" \
        "does this kernel have nf_tables with NAT? see: modprobe nft_masq"
    external_warn_of_firewall
}

# One transaction: the table is there, empty, then full. Instances reach what is beyond this machine, not the machine itself, by
# whichever of its addresses; this machine reaches them.
external_rules() {
    cat <<RULES
table inet $EXTERNAL_TABLE
delete table inet $EXTERNAL_TABLE
table inet $EXTERNAL_TABLE {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr $EXTERNAL_CIDR ip daddr != $EXTERNAL_CIDR oifname != "$EXTERNAL_BRIDGE" masquerade
    }
    chain input {
        type filter hook input priority filter
        iifname "$EXTERNAL_BRIDGE" ct state { new, invalid } meta l4proto != ipv6-icmp counter drop
    }
}
RULES
}

# An odd range, or one that this machine reaches by another way, is refused before anything is changed.
external_check() {
    local a b c d prefix other
    [[ $EXTERNAL_CIDR =~ ^([0-9]+)\.([0-9]+)\.([0-9]+)\.([0-9]+)/([0-9]+)$ ]] ||
        die "IAAS_EXTERNAL_CIDR is not an IPv4 range: $EXTERNAL_CIDR" "for example: IAAS_EXTERNAL_CIDR=100.64.77.0/24"
    a=${BASH_REMATCH[1]} b=${BASH_REMATCH[2]} c=${BASH_REMATCH[3]} d=${BASH_REMATCH[4]} prefix=${BASH_REMATCH[5]}
    ((a < 256 && b < 256 && c < 256 && d < 256 && prefix >= 8 && prefix <= 29 && ((a << 24 | b << 16 | c << 8 | d) & ((1 << (32 - prefix)) - 1)) == 0)) ||
        die "IAAS_EXTERNAL_CIDR must be a network of /8 to /29 without host bits: $EXTERNAL_CIDR" "for example: IAAS_EXTERNAL_CIDR=100.64.77.0/24"
    [[ $EXTERNAL_BRIDGE =~ ^[a-zA-Z0-9_.-]{1,15}$ ]] || die "IAAS_EXTERNAL_BRIDGE is not a valid name of a link: $EXTERNAL_BRIDGE"
    if [[ -e $EXTERNAL_STATE ]]; then
        external_recall
        [[ $REMEMBERED_BRIDGE == "$EXTERNAL_BRIDGE" && $REMEMBERED_CIDR == "$EXTERNAL_CIDR" ]] ||
            die "the external network is $REMEMBERED_CIDR on $REMEMBERED_BRIDGE, not $EXTERNAL_CIDR on $EXTERNAL_BRIDGE" \
                "floating IPs depend on it, so it can only change with a new installation (./deploy/down --purge)"
        return
    fi
    if ip link show dev "$EXTERNAL_BRIDGE" >/dev/null 2>&1; then
        die "there is already a link $EXTERNAL_BRIDGE that deploy/up didn't create" "use another name: IAAS_EXTERNAL_BRIDGE=iaas-ext1 $0"
    fi
    other=$(ip -4 route show root "$EXTERNAL_CIDR"; ip -4 route show match "$EXTERNAL_CIDR" | grep -v '^default' || true)
    [[ -z $other ]] || die "this machine already uses addresses of $EXTERNAL_CIDR: ${other%%$'\n'*}" \
        "choose another range: IAAS_EXTERNAL_CIDR=10.211.77.0/24 $0"
}

external_remember() {
    [[ ! -e $EXTERNAL_STATE ]] || return 0
    mkdir -p "${EXTERNAL_STATE%/*}"
    printf 'bridge=%s\ncidr=%s\nip_forward=%s\n' "$EXTERNAL_BRIDGE" "$EXTERNAL_CIDR" "$(</proc/sys/net/ipv4/ip_forward)" >"$EXTERNAL_STATE.new"
    mv -f "$EXTERNAL_STATE.new" "$EXTERNAL_STATE"
}

external_recall() {
    local key value
    REMEMBERED_BRIDGE='' REMEMBERED_CIDR='' REMEMBERED_FORWARD=''
    while IFS='=' read -r key value; do
        case $key in
            bridge) REMEMBERED_BRIDGE=$value ;;
            cidr) REMEMBERED_CIDR=$value ;;
            ip_forward) REMEMBERED_FORWARD=$value ;;
        esac
    done <"$EXTERNAL_STATE"
}

# As found: without the bridge and the table, and with the forwarding there was. Does nothing where nothing was made.
external_remove() {
    [[ -e $EXTERNAL_STATE ]] || return 0
    external_recall
    if nft list table inet "$EXTERNAL_TABLE" >/dev/null 2>&1; then nft delete table inet "$EXTERNAL_TABLE"; fi
    if ip link show dev "$REMEMBERED_BRIDGE" >/dev/null 2>&1; then
        ip link delete dev "$REMEMBERED_BRIDGE"
        note "removed the bridge $REMEMBERED_BRIDGE"
    fi
    # Writing it resets what it governs: only where it differs.
    if [[ $REMEMBERED_FORWARD == 0 && $(</proc/sys/net/ipv4/ip_forward) != 0 ]]; then
        echo 0 >/proc/sys/net/ipv4/ip_forward
        note "net.ipv4.ip_forward is off again, as before"
    fi
    rm -f "$EXTERNAL_STATE"
}

# Another table that drops what is forwarded has the last word, and it isn't ours to change (Docker's does).
external_warn_of_firewall() {
    if nft list chains ip 2>/dev/null | awk '/hook forward/ { forward = 1 } forward && /policy drop/ { found = 1 } { forward = 0 } END { exit !found }'; then
        note "this machine's firewall drops forwarded packets: instances reach the outside only if it accepts packets of $EXTERNAL_BRIDGE, for example:"
        note "  iptables -I FORWARD -i $EXTERNAL_BRIDGE -j ACCEPT; iptables -I FORWARD -o $EXTERNAL_BRIDGE -j ACCEPT"
    fi
}
