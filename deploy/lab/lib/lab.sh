# shellcheck shell=bash
# shellcheck disable=SC2034 # read by the scripts that source this
# What a lab is: its name, its directory, the addresses of its machines. The caller sets ROOT. Sources all that a lab needs.
#
#   LAB_DIR/lab                      its settings, written by `up`
#   LAB_DIR/machines/NAME/state      what survives a power loss: /var/lib/iaas of that machine
#   LAB_DIR/machines/NAME/log        a log per service, and `init`
#   LAB_DIR/pool                     the shared pool of all hosts: /run/lab/pool there
#   LAB_DIR/machines/NAME/pid        of the machine's init while it is on, with its start time

LAB_SCRIPTS=$ROOT/deploy/lab
# shellcheck source=deploy/lib/say.sh
source "$ROOT/deploy/lib/say.sh"
# shellcheck source=deploy/lab/lib/machine.sh
source "$LAB_SCRIPTS/lib/machine.sh"
# shellcheck source=deploy/lab/lib/wire.sh
source "$LAB_SCRIPTS/lib/wire.sh"
# shellcheck source=deploy/lab/lib/service.sh
source "$LAB_SCRIPTS/lib/service.sh"
# shellcheck source=deploy/lab/lib/config.sh
source "$LAB_SCRIPTS/lib/config.sh"

# The underlay, by which the machines reach each other. Nobody outside the lab sees these addresses, so all labs have the same.
readonly UNDERLAY=10.60.0 UNDERLAY6=fd60:: UNDERLAY_MTU=1500
# The external network: of the blocks for documentation, and `outside` is its gateway and all of the internet.
readonly EXTERNAL_CIDR=203.0.113.0/24 EXTERNAL_GATEWAY=203.0.113.1 EXTERNAL_ALLOCATION=203.0.113.20-203.0.113.250
readonly EXTERNAL_CIDR6=2001:db8:60::/64 EXTERNAL_GATEWAY6=2001:db8:60::1
# An address of `outside` that is on no network of the lab's.
readonly INTERNET=198.51.100.1 INTERNET6=2001:db8:ffff::1
readonly API_PORT=7480
readonly HOSTS_MAX=200

# shellcheck disable=SC2016 # the names of the variables are meant
readonly LAB_OPTIONS_USAGE='  --name NAME   which lab, where there are several (default lab, or $IAAS_LAB_NAME)
  --dir DIR     where it keeps everything (default /var/lib/iaas-NAME, or $IAAS_LAB_DIR)'

# lab_parse "$@": takes --name and --dir off the front; the rest is in ARGUMENTS. The caller defines usage().
lab_parse() {
    LAB_NAME=${IAAS_LAB_NAME:-lab} LAB_DIR=${IAAS_LAB_DIR:-}
    while (($# > 0)); do
        case $1 in
            --name) LAB_NAME=$(lab_value "$@") && shift 2 ;;
            --name=*) LAB_NAME=${1#*=} && shift ;;
            --dir) LAB_DIR=$(lab_value "$@") && shift 2 ;;
            --dir=*) LAB_DIR=${1#*=} && shift ;;
            -h | --help) usage && exit ;;
            *) break ;;
        esac
    done
    ARGUMENTS=("$@")
    [[ $LAB_NAME =~ ^[a-z][a-z0-9-]{0,30}$ ]] || die "a lab's name consists of a-z, 0-9 and '-' and begins with a letter: '$LAB_NAME'"
    LAB_DIR=$(realpath -m "${LAB_DIR:-/var/lib/iaas-$LAB_NAME}")
    LAB_CGROUP=iaas-lab-$LAB_NAME
    ((EUID == 0)) || die "a lab consists of network namespaces, which need root" "run: sudo $0 ..."
}

# lab_value OPTION VALUE...: the value of an option that needs one.
lab_value() {
    (($# > 1)) || die "$1 needs a value" "see: $0 --help"
    printf '%s\n' "$2"
}

usage_error() {
    usage >&2
    exit 2
}

# One change of a lab at a time.
lab_lock() {
    mkdir -p "$LAB_DIR"
    exec 9>"$LAB_DIR/.lock"
    flock --timeout "${LAB_LOCK_SECONDS:-60}" 9 || die "the lab $LAB_NAME is being changed by another command" "wait until it has ended, then run this again"
}

# The settings of a lab that `up` made.
lab_open() {
    [[ -s $LAB_DIR/lab ]] || die "there is no lab $LAB_NAME in $LAB_DIR" "create it with: $LAB_SCRIPTS/up --name $LAB_NAME"
    local key value
    LAB_HOSTS='' LAB_ACCELERATOR='' LAB_BIN_DIR=''
    while IFS='=' read -r key value; do
        case $key in
            name)
                [[ $value == "$LAB_NAME" ]] || die "the lab in $LAB_DIR is called $value, not $LAB_NAME" "use: --name $value" ;;
            hosts) LAB_HOSTS=$value ;;
            accelerator) LAB_ACCELERATOR=$value ;;
            bin_dir) LAB_BIN_DIR=$value ;;
        esac
    done <"$LAB_DIR/lab"
}

lab_write() {
    printf 'name=%s\nhosts=%s\naccelerator=%s\nbin_dir=%s\n' "$LAB_NAME" "$LAB_HOSTS" "$LAB_ACCELERATOR" "$LAB_BIN_DIR" >"$LAB_DIR/lab.new"
    mv -f "$LAB_DIR/lab.new" "$LAB_DIR/lab"
}

# host1 host2 ...
lab_host_names() {
    local i
    for ((i = 1; i <= LAB_HOSTS; i++)); do echo "host$i"; done
}

lab_machine_names() {
    printf '%s\n' fabric outside manager
    lab_host_names
}

# lab_machine NAME: fails with a word of help unless the lab has it.
lab_machine() {
    grep -qxF -e "$1" <<<"$(lab_machine_names)" || die "the lab $LAB_NAME has no machine '$1'" "it has: $(lab_machine_names | xargs)"
}

# underlay_address MACHINE, and the same by IPv6.
underlay_address() { printf '%s.%d\n' "$UNDERLAY" "$(underlay_number "$1")"; }
underlay_address6() { printf '%s%d\n' "$UNDERLAY6" "$(underlay_number "$1")"; }

underlay_number() {
    case $1 in
        outside) echo 1 ;;
        manager) echo 2 ;;
        host*) echo $((10 + ${1#host})) ;;
    esac
}

api_url() { printf 'https://%s:%d\n' "$(underlay_address manager)" "$API_PORT"; }

# wait_until SECONDS COMMAND...: until the command succeeds; fails when it does not in that time.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}
