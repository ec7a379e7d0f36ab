// An HTTP server on port 80 that answers with this instance's name, and one way to keep a processor busy:
//
//   GET /              the name
//   GET /burn?ms=N     the same, after N milliseconds of processor time (60000 at most) in a process of its own
#include "tools.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BURN_MS_MAX 60000

static void burn(unsigned long ms) {
    struct timespec used;
    do {
        for (volatile int i = 0; i < 10000; i++)
            ;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    } while ((unsigned long)used.tv_sec * 1000 + used.tv_nsec / 1000000 < ms);
}

static bool number(const char *text, unsigned long most, unsigned long *value) {
    char *end;
    *value = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == 0 && *value <= most;
}

static void answer(int s, const char *status, const char *body, bool head) {
    char text[512];
    int length = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                          status, strlen(body), head ? "" : body);
    if (send(s, text, length, MSG_NOSIGNAL) < 0)
        return; // gone
}

static void serve(int s) {
    char request[4096], name[80];
    size_t used = 0;
    struct timeval timeout = {.tv_sec = 10};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    do {
        ssize_t got = recv(s, request + used, sizeof request - 1 - used, 0);
        if (got <= 0)
            return;
        used += got;
        request[used] = 0;
    } while (!strstr(request, "\r\n\r\n") && !strstr(request, "\n\n") && used < sizeof request - 1);
    char *method = strtok(request, " "), *path = strtok(NULL, " \r\n");
    if (!method || !path) {
        answer(s, "400 Bad Request", "no request line\n", false);
        return;
    }
    bool head = !strcmp(method, "HEAD");
    if (!head && strcmp(method, "GET")) {
        answer(s, "405 Method Not Allowed", "GET or HEAD\n", false);
        return;
    }
    gethostname(name, sizeof name - 1);
    name[sizeof name - 2] = 0;
    strcat(name, "\n");
    unsigned long ms;
    if (!strcmp(path, "/")) {
        answer(s, "200 OK", name, head);
    } else if (!strncmp(path, "/burn?ms=", 9) && number(path + 9, BURN_MS_MAX, &ms)) {
        burn(ms);
        answer(s, "200 OK", name, head);
    } else if (!strncmp(path, "/burn", 5)) {
        answer(s, "400 Bad Request", "as in /burn?ms=100, at most 60000\n", head);
    } else {
        answer(s, "404 Not Found", "there is / and /burn?ms=N\n", head);
    }
}

int web_main(int argc, char **argv) {
    unsigned long port = 80;
    if (argc > 2 || (argc == 2 && !number(argv[1], 65535, &port)))
        die("usage: web [PORT]");
    int on = 1, off = 0, s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 us = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (s < 0 || bind(s, (struct sockaddr *)&us, sizeof us) < 0 || listen(s, 1024) < 0)
        die("web: port %lu: %s", port, strerror(errno));
    if (fork() > 0)
        _exit(0); // it listens: who started us may say so
    setsid();
    signal(SIGCHLD, SIG_IGN); // the kernel reaps
    for (;;) {
        int client = accept(s, NULL, NULL);
        if (client < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
                usleep(10000);
            continue;
        }
        pid_t pid = fork();
        if (pid == 0) {
            serve(client);
            shutdown(client, SHUT_WR);
            _exit(0);
        }
        close(client);
    }
}

int burn_main(int argc, char **argv) {
    unsigned long ms;
    if (argc != 2 || !number(argv[1], BURN_MS_MAX, &ms))
        die("usage: burn MILLISECONDS");
    burn(ms);
    return 0;
}
