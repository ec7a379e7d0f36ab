# shellcheck shell=bash
# shellcheck disable=SC2034 # the lists are read by the scripts that source this
# Installs from Debian what is missing, and nothing else. Needs say.sh and debs.sh.
#
# When all is there it only asks dpkg, so that a second run costs nothing and needs no network. QEMU must be 8 or newer, and
# its parts of one version; where Debian's release has an older one, they come from backports. That source is added if the
# machine hasn't it: on the mirror the machine uses already, signed by Debian's keys, in a file of our own that
# `deploy/down --purge` removes.

readonly BACKPORTS_FILE=/etc/apt/sources.list.d/iaas-backports.sources
readonly QEMU_PACKAGES=(qemu-system-x86 qemu-utils qemu-block-extra)
readonly QEMU_MIN_MAJOR=8

readonly BUILD_PACKAGES=(build-essential pkg-config curl ca-certificates)
readonly HOST_PACKAGES=(genisoimage nftables iproute2 openssh-client jq procps)
readonly GUEST_PACKAGES=(busybox-static dropbear-bin musl-tools cpio kmod xz-utils)
readonly TEST_PACKAGES=(postgresql-15 git iputils-ping dnsmasq-base iperf3 openssh-client)
readonly DEBIAN_IMAGE_PACKAGES=(mmdebstrap fdisk e2fsprogs)

APT_LISTS_FRESH=''

# packages_ensure PACKAGE...
packages_ensure() {
    local package missing=()
    for package in "$@"; do
        [[ -n $(deb_installed "$package") ]] || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    note "installing ${missing[*]}"
    apt_ready
    if [[ " ${missing[*]} " == *" postgresql-15 "* ]]; then
        postgres_without_cluster apt_run install --no-install-recommends "${missing[@]}"
    else
        apt_run install --no-install-recommends "${missing[@]}"
    fi
}

qemu_ensure() {
    local installed candidate version targets=()
    if qemu_good; then
        return
    fi
    apt_ready
    installed=$(deb_installed qemu-utils)
    if [[ -n $installed ]] && (($(deb_major "$installed") >= QEMU_MIN_MAJOR)) && deb_has_version qemu-system-x86 "$installed"; then
        # What is there is new enough: the missing parts in exactly its version.
        for version in "${QEMU_PACKAGES[@]}"; do targets+=("$version=$installed"); done
        note "installing QEMU $installed"
        apt_run install --no-install-recommends "${targets[@]}"
    else
        candidate=$(deb_candidate qemu-system-x86) || candidate=0
        if (($(deb_major "$candidate") >= QEMU_MIN_MAJOR)); then
            note "installing QEMU $candidate"
            apt_run install --no-install-recommends "${QEMU_PACKAGES[@]}"
        else
            backports_ensure
            note "installing QEMU from $(debian_codename)-backports (Debian's own is $candidate)"
            apt_run install --no-install-recommends -t "$(debian_codename)-backports" "${QEMU_PACKAGES[@]}"
        fi
    fi
    qemu_good || die "QEMU is still older than $QEMU_MIN_MAJOR, or its packages differ in version" \
        "see: apt-cache policy ${QEMU_PACKAGES[*]}"
}

# All parts installed, new enough, one version.
qemu_good() {
    local package version first=''
    for package in "${QEMU_PACKAGES[@]}"; do
        version=$(deb_installed "$package")
        [[ -n $version && $version == "${first:-$version}" ]] || return 1
        first=$version
    done
    (($(deb_major "$first") >= QEMU_MIN_MAJOR))
}

backports_ensure() {
    local suite uri
    suite=$(debian_codename)-backports
    if apt_sources | grep " $suite main\$" >/dev/null; then
        return
    fi
    uri=$(apt_sources | awk -v release="$(debian_codename)" '$2 == release && $3 == "main" { uri = $1 } END { print uri }')
    [[ -n $uri ]] || die "apt has no source for $(debian_codename), so no mirror is known" "add one to /etc/apt/sources.list.d"
    [[ -s /usr/share/keyrings/debian-archive-keyring.gpg ]] || apt_run install --no-install-recommends debian-archive-keyring
    note "adding $suite ($BACKPORTS_FILE)"
    cat >"$BACKPORTS_FILE" <<SOURCES
# Added by deploy/up for a newer QEMU; deploy/down --purge removes it.
Types: deb
URIs: $uri
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    APT_LISTS_FRESH=''
    apt_ready
}

# Before the first installation: is this a machine we can install on, and are the lists of today?
apt_ready() {
    [[ -z $APT_LISTS_FRESH ]] || return 0
    ((EUID == 0)) || die "packages are missing, and only root can install them" "run it as root (sudo)"
    if [[ ! -f /etc/debian_version ]] || ! command -v apt-get >/dev/null; then
        die "packages are missing, and this is not Debian" "install the packages that ${BASH_SOURCE[0]} lists with your system's own tools"
    fi
    note "refreshing the package lists"
    # A source that is down need not be the one we want: what is missing then shows at the installation.
    (apt_run update) || note "not all package lists could be refreshed: continuing with the lists that exist"
    APT_LISTS_FRESH=yes
}

apt_run() {
    local log
    log=$(mktemp "${TMPDIR:-/tmp}/iaas-apt.XXXXXX")
    if DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y -o DPkg::Lock::Timeout=60 -o Acquire::Retries=2 \
        -o APT::Update::Error-Mode=any "$@" </dev/null >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    tail -n 15 "$log" >&2
    local reason
    reason=$(<"$log")
    rm -f "$log"
    case $reason in
        *'Could not get lock'* | *'Unable to acquire the dpkg frontend lock'*)
            die "another package manager has been running for over a minute" "wait until it has ended, then run this again" ;;
        *'Temporary failure resolving'* | *'Could not connect'* | *'Failed to fetch'* | *'Could not resolve'*)
            die "apt-get $1: the package mirror cannot be reached (see above)" "check the network and /etc/apt/sources.list.d, then run this again" ;;
        *'Unable to locate package'* | *'has no installation candidate'*)
            die "apt-get $1: the package lists lack a package (see above)" \
                "check the network and that Debian's own source is in /etc/apt/sources.list.d, then run this again" ;;
        *'No space left on device'*) die "apt-get $1: the disk is full" "free some space, then run this again" ;;
        *'dpkg was interrupted'*) die "an earlier installation was interrupted" "run: dpkg --configure -a   then run this again" ;;
        *) die "apt-get $1 failed (see above)" ;;
    esac
}

# Runs a command that installs PostgreSQL, without Debian's habit of making and starting a cluster of its own.
postgres_without_cluster() {
    local file=/etc/postgresql-common/createcluster.d/iaas-no-cluster.conf status=0
    mkdir -p "${file%/*}"
    printf 'create_main_cluster = false\n' >"$file"
    ("$@") || status=$?
    rm -f "$file"
    ((status == 0)) || exit "$status"
}

debian_codename() { (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-unknown}"); }

# 1:10.0.2+ds-2 -> 10
deb_major() {
    local version=${1#*:}
    version=${version%%[!0-9]*}
    printf '%s\n' "${version:-0}"
}

deb_has_version() { apt-cache madison "$1" 2>/dev/null | awk '{ print $3 }' | grep -xF "$2" >/dev/null; }
