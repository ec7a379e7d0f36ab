# shellcheck shell=bash
# How the scripts speak: progress, notes and errors that say what to do next. Colour on a terminal only, never with NO_COLOR.

if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    readonly BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
    readonly BOLD='' RED='' GREEN='' PLAIN=''
fi

note() { printf '    %s\n' "$*" >&2; }

# die MESSAGE [WHAT TO DO NEXT]...
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
    shift
    local hint
    for hint in "$@"; do printf '       %s\n' "$hint" >&2; done
    exit 1
}

# quietly COMMAND...: what it says is shown only when it fails.
quietly() {
    local said status=0
    said=$("$@" 2>&1) || status=$?
    ((status == 0)) || printf '%s\n' "$said" >&2
    return "$status"
}

# Seconds with one decimal since $1 (a value of $EPOCHREALTIME).
seconds_since() {
    local microseconds=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
    printf '%d.%d' $((microseconds / 1000000)) $((microseconds / 100000 % 10))
}

# steps_begin COUNT; then step TITLE before each, steps_end after the last.
steps_begin() { STEPS=$1 STEP=0 STEP_TITLE='' STEPS_STARTED=$EPOCHREALTIME; }

step() {
    step_close
    STEP=$((STEP + 1)) STEP_TITLE=$1 STEP_STARTED=$EPOCHREALTIME
    printf '%s[%d/%d] %s%s\n' "$BOLD" "$STEP" "$STEPS" "$STEP_TITLE" "$PLAIN" >&2
}

step_close() {
    [[ -n ${STEP_TITLE:-} ]] || return 0
    printf '      %sdone%s in %s s\n' "$GREEN" "$PLAIN" "$(seconds_since "$STEP_STARTED")" >&2
    STEP_TITLE=''
}

steps_end() {
    step_close
    printf '%sfinished%s in %s s\n' "$GREEN" "$PLAIN" "$(seconds_since "$STEPS_STARTED")" >&2
}

# space_ensure DIR GIB WHAT: ends the script unless DIR's file system has GIB free for WHAT, so that it doesn't fail later with another error.
space_ensure() {
    local free
    free=$(($(df --output=avail -B 1M "$1" | tail -n 1) / 1024))
    ((free >= $2)) || die "$3 needs $2 GiB on the file system of $1, and only $free GiB are free" "free some space ('cargo clean' removes the build output), then run this again"
}
