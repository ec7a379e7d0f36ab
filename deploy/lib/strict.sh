# shellcheck shell=bash
# A test that can't run on a machine says "not run: WHAT: WHY" and passes. That is right for whoever tries the project on a laptop, and wrong for a
# check before a merge: there a forgotten package would silently take a whole suite away. A strict run therefore fails unless each such line is in
# the list below and the machine really lacks what the line's condition names. Needs say.sh.

# CONDITION, then an extended regular expression for the text after "not run: ".
readonly STRICT_ALLOWED=(
    'lacks_iso9660      mounting an ISO image: .*iso9660'
    'lacks_numa_pair    a pinned guest: '
    'opt_in_debian      a stock Debian with cloud-init: opt-in: '
)

lacks_iso9660() { ! grep -qw iso9660 /proc/filesystems && ! modprobe --dry-run --quiet isofs 2>/dev/null; }

# No NUMA node has two processors, so that no guest's virtual processors can be bound to one.
lacks_numa_pair() {
    local list
    for list in /sys/devices/system/node/node*/cpulist; do
        [[ ! -r $list ]] || ! grep -q '[,-]' "$list" || return 1
    done
}

# deploy/test sets DEBIAN.
opt_in_debian() { [[ -z ${DEBIAN:-} ]]; }

# strict_check LOG: says each test that should have run on this machine, and fails if there is one.
strict_check() {
    local line entry condition pattern allowed failed=0
    while IFS= read -r line; do
        allowed=''
        for entry in "${STRICT_ALLOWED[@]}"; do
            read -r condition pattern <<<"$entry"
            if [[ $line =~ ^$pattern ]] && "$condition"; then allowed=yes; fi
        done
        if [[ -z $allowed ]]; then
            printf '%serror:%s not run, although this machine can: %s\n' "$RED" "$PLAIN" "$line" >&2
            failed=1
        fi
    done < <(sed -n 's/^not run: //p' "$1" | sort -u)
    ((failed == 0)) || note "install what is missing; what this machine can't have belongs into deploy/lib/strict.sh, with its condition"
    return "$failed"
}
