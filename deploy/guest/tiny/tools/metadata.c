// Asks the metadata service who this instance is: the OpenStack shape first (one answer holds all but the user data), else
// EC2's, with a token where the service wants one. Writes DIRECTORY/{instance-id,hostname,keys,user-data}; what it doesn't
// find it doesn't write.
//
//   metadata DIRECTORY MILLISECONDS [ADDRESS]
#include "tools.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX (1 << 20)

static const char *directory, *address = "169.254.169.254";
static uint64_t ends_at;
static char token[300];
static char answer[ANSWER_MAX + 1];
static size_t answer_length;

static bool ready(int s, short events) {
    struct pollfd wait = {.fd = s, .events = events};
    uint64_t now = now_ms();
    return now < ends_at && poll(&wait, 1, (int)(ends_at - now)) > 0;
}

static int dial(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80)};
    int error = 0;
    socklen_t length = sizeof error;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    inet_aton(address, &to.sin_addr);
    if (connect(s, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        error = errno;
    else if (!ready(s, POLLOUT))
        error = ETIMEDOUT;
    else
        getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        close(s);
        return -1;
    }
    return s;
}

// The body is in `answer`, the status returned; 0 when there was none. A service that isn't there yet is asked again.
static int fetch(const char *method, const char *path) {
    int s = -1;
    while ((s = dial()) < 0) {
        if (now_ms() + 100 >= ends_at)
            return 0;
        poll(NULL, 0, 100);
    }
    char request[1024];
    int length = snprintf(request, sizeof request,
                          "%s %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: tiny\r\n%s%s%s%s\r\n", method, path, address,
                          *token ? "X-aws-ec2-metadata-token: " : "", token, *token ? "\r\n" : "",
                          strcmp(method, "PUT") ? "" : "X-aws-ec2-metadata-token-ttl-seconds: 300\r\nContent-Length: 0\r\n");
    size_t used = 0;
    if (send(s, request, length, MSG_NOSIGNAL) == length)
        while (used < ANSWER_MAX && ready(s, POLLIN)) {
            ssize_t got = recv(s, answer + used, ANSWER_MAX - used, 0);
            if (got <= 0)
                break;
            used += got;
        }
    close(s);
    answer[used] = 0;
    int status = 0;
    char *body = strstr(answer, "\r\n\r\n");
    if (sscanf(answer, "HTTP/%*d.%*d %d", &status) != 1 || !body)
        return 0;
    answer_length = used - (body + 4 - answer);
    memmove(answer, body + 4, answer_length + 1);
    return status;
}

static void keep(const char *name, const char *data, size_t length) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || write(file, data, length) != (ssize_t)length)
        say("metadata: cannot write %s: %s", path, strerror(errno));
    close(file);
}

static void append(const char *name, const char *line) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0 || dprintf(file, "%s\n", line) < 0)
        say("metadata: cannot write %s: %s", path, strerror(errno));
    close(file);
}

// JSON, as much as is needed: each function moves past one value and fails (NULL) on nonsense.

static char *blank(char *at) { return at + strspn(at, " \t\r\n"); }

static char *put_utf8(char *to, unsigned c) {
    if (c < 0x80) {
        *to++ = c;
    } else if (c < 0x800) {
        *to++ = 0xc0 | c >> 6, *to++ = 0x80 | (c & 63);
    } else if (c < 0x10000) {
        *to++ = 0xe0 | c >> 12, *to++ = 0x80 | (c >> 6 & 63), *to++ = 0x80 | (c & 63);
    } else {
        *to++ = 0xf0 | c >> 18, *to++ = 0x80 | (c >> 12 & 63), *to++ = 0x80 | (c >> 6 & 63), *to++ = 0x80 | (c & 63);
    }
    return to;
}

// Unescapes in place; *text is the string.
static char *json_string(char *at, char **text) {
    char *to = at + 1;
    if (*at++ != '"')
        return NULL;
    *text = to;
    while (*at != '"') {
        unsigned c, low;
        if (!*at)
            return NULL;
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        switch (at[1]) {
            case 'n': *to++ = '\n'; break;
            case 't': *to++ = '\t'; break;
            case 'r': *to++ = '\r'; break;
            case 'b': *to++ = '\b'; break;
            case 'f': *to++ = '\f'; break;
            case 'u':
                if (sscanf(at + 2, "%4x", &c) != 1)
                    return NULL;
                if (c >> 10 == 0x36 && sscanf(at + 6, "\\u%4x", &low) == 1 && low >> 10 == 0x37)
                    c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff)), at += 6;
                to = put_utf8(to, c);
                at += 4;
                break;
            case 0: return NULL;
            default: *to++ = at[1];
        }
        at += 2;
    }
    *to = 0;
    return at + 1;
}

typedef void member(const char *key, const char *value);

// Calls `each` for the members of an object that are strings, and `inner` for those of the object called `of`.
static char *json_value(char *at, int depth, member *each, const char *of, member *inner) {
    char *key, *value;
    at = blank(at);
    if (depth > 32)
        return NULL;
    if (*at == '"')
        return json_string(at, &value);
    if (*at != '{' && *at != '[')
        return at[strcspn(at, ",]}")] ? at + strcspn(at, ",]}") : NULL;
    bool object = *at == '{';
    at = blank(at + 1);
    if (*at == (object ? '}' : ']'))
        return at + 1;
    for (;;) {
        key = NULL;
        if (object) {
            at = json_string(blank(at), &key);
            if (!at || *(at = blank(at)) != ':')
                return NULL;
            at = blank(at + 1);
        }
        if (*at == '"') {
            at = json_string(at, &value);
            if (at && key && each)
                each(key, value);
        } else {
            at = json_value(at, depth + 1, key && of && !strcmp(key, of) ? inner : NULL, NULL, NULL);
        }
        if (!at)
            return NULL;
        at = blank(at);
        if (*at == (object ? '}' : ']'))
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static void keep_text(const char *name, const char *text) { keep(name, text, strlen(text)); }

static void top(const char *key, const char *value) {
    if (!strcmp(key, "uuid"))
        keep_text("instance-id", value);
    if (!strcmp(key, "hostname"))
        keep_text("hostname", value);
}

static void public_key(const char *name, const char *value) {
    (void)name;
    append("keys", value);
}

static bool openstack(void) {
    if (fetch("GET", "/openstack/latest/meta_data.json") != 200)
        return false;
    if (!json_value(answer, 0, top, "public_keys", public_key)) {
        say("metadata: meta_data.json is not JSON");
        return false;
    }
    if (fetch("GET", "/openstack/latest/user_data") == 200)
        keep("user-data", answer, answer_length);
    return true;
}

static bool ec2(void) {
    if (fetch("PUT", "/latest/api/token") == 200 && answer_length < sizeof token && !strpbrk(answer, "\r\n"))
        memcpy(token, answer, answer_length + 1);
    if (fetch("GET", "/latest/meta-data/instance-id") != 200)
        return false;
    keep_text("instance-id", answer);
    if (fetch("GET", "/latest/meta-data/local-hostname") == 200 || fetch("GET", "/latest/meta-data/hostname") == 200)
        keep_text("hostname", answer);
    // "0=name" a line, and each key by its number.
    if (fetch("GET", "/latest/meta-data/public-keys/") == 200) {
        int keys = 0;
        for (char *at = answer; *at; at += strcspn(at, "\n"), at += *at == '\n')
            keys += strchr("0123456789", *at) != NULL;
        for (int i = 0; i < keys && i < 64; i++) {
            char path[80];
            snprintf(path, sizeof path, "/latest/meta-data/public-keys/%d/openssh-key", i);
            if (fetch("GET", path) == 200) {
                answer[strcspn(answer, "\r\n")] = 0;
                append("keys", answer);
            }
        }
    }
    if (fetch("GET", "/latest/user-data") == 200)
        keep("user-data", answer, answer_length);
    return true;
}

int metadata_main(int argc, char **argv) {
    if (argc < 3)
        die("usage: metadata DIRECTORY MILLISECONDS [ADDRESS]");
    directory = argv[1];
    ends_at = now_ms() + atoi(argv[2]);
    if (argc > 3)
        address = argv[3];
    return openstack() || ec2() ? 0 : 1;
}
