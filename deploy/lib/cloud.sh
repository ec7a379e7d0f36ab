# shellcheck shell=bash
# What a new cloud is filled with, on one machine and in the lab. Everything is made only where it isn't there. The caller defines
# `ctl`, which runs iaasctl as the administrator.

# cloud_external_network CIDR GATEWAY [ALLOCATION]: the network `public`, that floating IPs come from.
cloud_external_network() {
    local allocation=()
    # An iaasctl from before there were networks.
    ctl external-network --help >/dev/null 2>&1 || return 0
    [[ -z ${3:-} ]] || allocation=(--allocation "$3")
    ctl external-network create public --cidr "$1" --gateway "$2" "${allocation[@]}" --if-not-exists >/dev/null
}

# cloud_demo GUEST_DIR: the project `demo`, flavors, and the image tiny.
cloud_demo() {
    ctl project create demo --if-not-exists >/dev/null
    ctl config set project demo >/dev/null
    ctl flavor create small --vcpus 1 --memory 256MiB --disk 1GiB --if-not-exists >/dev/null
    ctl flavor create medium --vcpus 2 --memory 1GiB --disk 10GiB --if-not-exists >/dev/null
    ctl flavor create large --vcpus 4 --memory 4GiB --disk 40GiB --if-not-exists >/dev/null
    quietly ctl image create tiny --kernel "$1/vmlinuz" --initrd "$1/initramfs.cpio.gz" --cmdline "$(<"$1/cmdline")" \
        --public --if-not-exists
}
