# shellcheck shell=bash
# One machine at a time under emulation, for the checks of the image: its console is read from descriptor 4 and written to 5,
# its QMP is 6 and 7. Needs say.sh; the caller sets IMAGE and ends with machine_end.

readonly BOOT_SECONDS=60
WORK=$(mktemp -d "${TMPDIR:-/tmp}/tiny-check.XXXXXX")
QEMU_PID=''

machine_end() {
    machine_kill
    rm -rf "$WORK"
}

machine_kill() {
    [[ -n $QEMU_PID ]] || return 0
    kill -KILL "$QEMU_PID" 2>/dev/null || true
    wait "$QEMU_PID" 2>/dev/null || true
    QEMU_PID=''
}

# machine_start NAME [QEMU OPTION]...
machine_start() {
    CASE=$1
    shift
    rm -f "$WORK"/{console,qmp}.{in,out} "$WORK/log"
    mkfifo "$WORK"/{console,qmp}.{in,out}
    : >"$WORK/log"
    qemu-system-x86_64 -machine q35 -accel tcg -m 256 -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$IMAGE/vmlinuz" -initrd "$IMAGE/initramfs.cpio.gz" -append "$(<"$IMAGE/cmdline")" \
        -chardev "pipe,id=console,path=$WORK/console" -serial chardev:console \
        -chardev "pipe,id=qmp,path=$WORK/qmp" -mon chardev=qmp,mode=control "$@" </dev/null &
    QEMU_PID=$!
    exec 4<>"$WORK/console.out" 5<>"$WORK/console.in" 6<>"$WORK/qmp.out" 7<>"$WORK/qmp.in"
}

# console_expect TEXT: reads the console until a line contains it.
console_expect() {
    local line deadline=$((SECONDS + BOOT_SECONDS))
    while ((SECONDS < deadline)); do
        if ! IFS= read -r -t 1 line <&4; then
            kill -0 "$QEMU_PID" 2>/dev/null || break
            continue
        fi
        line=${line%$'\r'}
        printf '%s\n' "$line" >>"$WORK/log"
        [[ $line != *"$1"* ]] || return 0
    done
    die "tiny, $CASE: no line with '$1' on the console; it said:" "$(<"$WORK/log")"
}

console_type() { printf '%s\n' "$1" >&5; }

qmp() { printf '%s\n' "$1" >&7; }

expect_stopped() {
    local deadline=$((SECONDS + 20))
    while kill -0 "$QEMU_PID" 2>/dev/null; do
        ((SECONDS < deadline)) || die "tiny, $CASE: still running 20 s after it was told to stop"
        IFS= read -r -t 0.1 <&4 || true
    done
    wait "$QEMU_PID" || die "tiny, $CASE: QEMU ended with an error"
    QEMU_PID=''
}

# ", up in N s", if it came up.
up_time() { sed -n 's/^iaas-guest: up [^ ]* \([0-9.]*\).*/, up after \1 s/p' "$WORK/log" | tail -n 1; }
