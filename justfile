# Shortcuts for developers (https://just.systems). Nothing here is needed: each line is a command you can type.

default:
    @just --list

# a cloud on this machine
up:
    ./deploy/up

# stop it; `just down --purge` leaves nothing
down *options:
    ./deploy/down {{options}}

# every test; options go to cargo test, as in: just test -p store -- instance
test *options:
    ./deploy/test {{options}}

# unit tests alone
quick *options:
    ./deploy/test --quick {{options}}

# all that CI checks
ci:
    ./.ci/run

# format, then what clippy says
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked -- -D warnings

# the guest images
guests:
    ./deploy/guest/tiny/build
    ./deploy/guest/debian-12/build

# accept golden files that changed on purpose
bless *options:
    INSTA_UPDATE=always cargo test --workspace {{options}}
