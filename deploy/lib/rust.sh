# shellcheck shell=bash
# Finds cargo and the toolchain that rust-toolchain.toml pins. Needs say.sh; the caller sets ROOT.

rust_ensure() {
    local channel
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
    if ! command -v cargo >/dev/null; then
        local place
        for place in "${CARGO_HOME:-}/bin" "${HOME:-/root}/.cargo/bin" "/home/${SUDO_USER:-}/.cargo/bin"; do
            [[ ! -x $place/cargo ]] || { PATH=$place:$PATH && break; }
        done
    fi
    if ! command -v cargo >/dev/null && [[ -n $(deb_candidate rustup || true) ]]; then
        packages_ensure rustup
        rustup set profile minimal >&2
    fi
    command -v cargo >/dev/null || die "Rust is missing, and this Debian has no rustup (its own Rust is too old)" \
        "install it from https://rustup.rs (the version $channel is then fetched by this script), and run this again"

    if command -v rustup >/dev/null; then
        if ! rustup toolchain list | grep "^${channel}[- ]" >/dev/null; then
            note "installing Rust $channel"
            rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy >&2 ||
                die "rustup could not install Rust $channel (see above)" "check the network, then run this again"
        fi
    elif [[ $(cargo --version) != "cargo $channel "* ]]; then
        die "this project is built with Rust $channel; here is: $(cargo --version)" "install rustup: https://rustup.rs"
    fi
}

# Where cargo puts what it builds.
cargo_target_dir() {
    cargo metadata --no-deps --format-version 1 --locked --manifest-path "$ROOT/Cargo.toml" | jq -r .target_directory
}

# cargo_build OPTION...: builds, and says every few seconds how far it is and how long the rest will take.
#
# Cargo counts parts ("123/374"), but parts differ: our own crates and two C libraries take most of the time and come late. So the parts in
# PART_WEIGHTS (seconds of one core in a release build, measured) count as much as they take, and every other one counts one.
readonly PART_WEIGHTS='aws-lc-sys=45 libsqlite3-sys=40 sqlx-postgres=15 netlink-packet-route=10 reqwest=10 rustls=10 api-gateway=120 cluster-manager=70
resource-manager=60 compute-agent=40 network-agent=40 storage-manager=25 store=40 service-kit=15 client=10 iaasctl=40 iaasd=25'

cargo_build() {
    local status=0 every=15
    [[ ! -t 2 ]] || every=1
    CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=240 CARGO_TERM_COLOR=never cargo build "$@" 2>&1 </dev/null |
        progress_shown "$every" >&2 || status=$?
    return "$status"
}

# progress_shown SECONDS: cargo's output, with its progress as a sentence at most every SECONDS (on a terminal in one line).
progress_shown() {
    local terminal=''
    [[ ! -t 2 ]] || terminal=yes
    awk -v every="$1" -v weights="$PART_WEIGHTS" -v terminal="$terminal" '
        function now(    line) { "date +%s" | getline line; close("date +%s"); return line + 0 }
        function clear() { if (terminal && shown) printf "\r\033[K"; shown = 0 }
        function show(text) {
            if (terminal) { printf "\r\033[K    %s", text; shown = 1 } else printf "    %s\n", text
            fflush()
        }
        function span(secs) { return secs < 90 ? secs " s" : int(secs / 60 + 0.5) " min" }
        BEGIN {
            RS = "[\r\n]"
            count = split(weights, list, /[ \n]+/)
            for (i = 1; i <= count; i++) { split(list[i], pair, "="); weight[pair[1]] = pair[2] }
            began = said = now()
        }
        /^ *Compiling / { if ($2 in weight) started[$2] = 1; next }
        /^ *(Building|Blocking).* [0-9]+\/[0-9]+/ {
            match($0, /[0-9]+\/[0-9]+/)
            split(substr($0, RSTART, RLENGTH), part, "/")
            active = substr($0, RSTART + RLENGTH)
            moment = now()
            if (moment - said < every) next
            said = moment
            finished = part[1]; total = part[2]
            for (name in weight) {
                total += weight[name]
                if ((name in started) && index(active, name) == 0) finished += weight[name]
            }
            passed = moment - began
            left = finished > 20 ? int(passed * (total - finished) / finished) : -1
            show(sprintf("%d of %d parts built after %s; %s", part[1], part[2], span(passed),
                left < 0 ? "the time left is not known yet" : "about " span(left) " left"))
            next
        }
        /^ *(Downloading|Downloaded|Updating|Locking|Fresh|Dirty|Building|Blocking)/ || /^ *$/ { next }
        { clear(); print; fflush() }
        END { clear() }'
}
