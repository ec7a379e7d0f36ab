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
                die "rustup could not install Rust $channel (see above)" "check the network, then again"
        fi
    elif [[ $(cargo --version) != "cargo $channel "* ]]; then
        die "this project is built with Rust $channel; here is: $(cargo --version)" "install rustup: https://rustup.rs"
    fi
}

# Where cargo puts what it builds.
cargo_target_dir() {
    cargo metadata --no-deps --format-version 1 --locked --manifest-path "$ROOT/Cargo.toml" | jq -r .target_directory
}
