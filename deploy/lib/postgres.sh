# shellcheck shell=bash
# A PostgreSQL 15 for one test run: in a temporary directory, on a Unix socket and a free loopback port, as user postgres
# where we are root (it refuses root). Whoever may connect on this machine's loopback may use it; nothing of worth is in it.
# Needs say.sh.

readonly POSTGRES_BIN=/usr/lib/postgresql/15/bin
POSTGRES_DIR=''

postgres_as_owner() {
    if ((EUID == 0)); then runuser -u postgres -- "$@"; else "$@"; fi
}

# Sets POSTGRES_URL.
postgres_start() {
    [[ -x $POSTGRES_BIN/initdb ]] || die "PostgreSQL 15 is not installed ($POSTGRES_BIN)" "run deploy/test as root, which installs it"
    POSTGRES_DIR=$(cd / && postgres_as_owner mktemp -d /tmp/iaas-postgres.XXXXXX)
    (cd / && postgres_as_owner "$POSTGRES_BIN/initdb" --pgdata "$POSTGRES_DIR/data" --username postgres --auth trust \
        --encoding UTF8 --locale C.UTF-8 --no-sync) >"/dev/null" || die "initdb failed (see above)"
    local port
    for _ in 1 2 3 4 5 6 7 8; do
        port=$((20000 + RANDOM % 12000))
        # What is written here is thrown away after the run: no need to wait for the disk.
        if (cd / && postgres_as_owner "$POSTGRES_BIN/pg_ctl" --pgdata "$POSTGRES_DIR/data" --log "$POSTGRES_DIR/log" --wait --silent \
            --options "-k $POSTGRES_DIR -h 127.0.0.1 -p $port -c max_connections=200 -c shared_buffers=128MB -c fsync=off \
                -c full_page_writes=off -c synchronous_commit=off -c autovacuum=off" start) >/dev/null 2>&1 9>&-; then
            POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres
            note "PostgreSQL $(<"$POSTGRES_DIR/data/PG_VERSION") at $POSTGRES_URL"
            return
        fi
    done
    tail -n 15 "$POSTGRES_DIR/log" >&2 || true
    die "PostgreSQL did not start (its log is above)"
}

postgres_stop() {
    [[ -n $POSTGRES_DIR ]] || return 0
    (cd / && postgres_as_owner "$POSTGRES_BIN/pg_ctl" --pgdata "$POSTGRES_DIR/data" --mode immediate --silent stop) >/dev/null 2>&1 || true
    rm -rf "$POSTGRES_DIR"
    POSTGRES_DIR=''
}
