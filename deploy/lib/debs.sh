# shellcheck shell=bash
# Asks apt and dpkg about packages, and unpacks one without installing it. Needs say.sh.

# Prints the version that is installed, or nothing.
deb_installed() {
    local answer
    answer=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return 0
    [[ $answer != installed\ * ]] || printf '%s\n' "${answer#installed }"
}

# Prints the version that apt would install, by its pins and without the network. Fails when it knows none.
deb_candidate() {
    local version
    version=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '/^  Candidate:/ { print $2 }')
    [[ -n $version && $version != '(none)' ]] || return 1
    printf '%s\n' "$version"
}

# deb_depends PACKAGE VERSION: the names it depends on, one per line.
deb_depends() {
    LC_ALL=C apt-cache show "$1=$2" | awk '/^Depends:/ && !seen++ { sub(/^Depends: */, ""); n = split($0, names, /, */)
        for (i = 1; i <= n; i++) { sub(/[ (|].*/, "", names[i]); print names[i] } }'
}

# deb_fetch PACKAGE VERSION WORK_DIR TREE: downloads the package into WORK_DIR and unpacks it under TREE. apt checks the
# signatures of what it downloads.
deb_fetch() {
    local package=$1 version=$2 place=$3/deb tree=$4
    mkdir -p "$place"
    (cd "$place" && apt-get -qq -o APT::Sandbox::User=root download "$package=$version" >&2) || return 1
    dpkg-deb -x "$place/${package}"_*.deb "$tree"
    rm -rf "$place"
}

# Prints "URI SUITE COMPONENT" of each package list that this machine's apt is configured with.
# shellcheck disable=SC2016 # apt fills these in
apt_sources() { apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' | sort -u; }
