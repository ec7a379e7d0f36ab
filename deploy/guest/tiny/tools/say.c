#include "tools.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void print(int descriptor, const char *format, va_list arguments) {
    char line[512];
    int used = snprintf(line, sizeof line, "iaas-guest: ");
    used += vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    if (used > (int)sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    if (write(descriptor, line, used) < 0)
        return; // nobody to tell
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print(1, format, arguments);
    va_end(arguments);
}

_Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print(2, format, arguments);
    va_end(arguments);
    exit(1);
}

uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool write_file(const char *path, const char *text) {
    char new[256];
    snprintf(new, sizeof new, "%s.%d", path, getpid());
    int file = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0)
        return false;
    size_t length = strlen(text);
    bool whole = write(file, text, length) == (ssize_t)length;
    close(file);
    return whole && rename(new, path) == 0;
}

void tell_address(const char *family, const char *nic, const char *address) {
    say("%s has %s", nic, address);
    int fifo = open("/run/network/addresses", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fifo < 0)
        return;
    dprintf(fifo, "%s %s %s\n", family, nic, address);
    close(fifo);
}

static int is_resolvers(const struct dirent *entry) { return strncmp(entry->d_name, "resolvers.", 10) == 0; }

void resolvers_set(const char *nic, const char *source, const char *text) {
    char path[300], whole[2048] = "";
    snprintf(path, sizeof path, "/run/network/resolvers.%s.%s", nic, source);
    if (*text)
        write_file(path, text);
    else
        unlink(path);
    struct dirent **entries;
    int count = scandir("/run/network", &entries, is_resolvers, alphasort);
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/run/network/%s", entries[i]->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            ssize_t got = read(file, whole + used, sizeof whole - 1 - used);
            if (got > 0)
                used += got;
            close(file);
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    whole[used] = 0;
    write_file("/etc/resolv.conf", whole);
}
