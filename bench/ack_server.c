/* A WebSocket server that answers every put and get at once, forwards puts to whoever has asked for
 * something, and keeps nothing. It does no more per message than it must, so what the generator reaches
 * against it is the generator's own ceiling. One thread, epoll, messages as bench/messages.py writes them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define READ_BYTES (1 << 18)

struct buffer { char *data; size_t used, room; };
struct peer { int fd, upgraded, subscribed; struct buffer in, out; };

static struct peer *peers[CONNECTIONS_MAX];
static int poller;

static void append(struct buffer *b, const void *data, size_t size) {
    if (b->used + size > b->room) {
        b->room = (b->used + size) * 2;
        b->data = realloc(b->data, b->room);
        if (!b->data) abort();
    }
    memcpy(b->data + b->used, data, size);
    b->used += size;
}

/* SHA-1 of a short text, FIPS 180-4: only for Sec-WebSocket-Accept. */
static void sha1(const char *text, size_t size, uint8_t digest[20]) {
    uint8_t block[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t total = size + 9 <= 64 ? 64 : 128;
    memcpy(block, text, size);
    block[size] = 0x80;
    for (int i = 0; i < 8; i++) block[total - 1 - i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    for (size_t at = 0; at < total; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)block[at + 4 * i] << 24 | block[at + 4 * i + 1] << 16 | block[at + 4 * i + 2] << 8 | block[at + 4 * i + 3];
        for (int i = 16; i < 80; i++) {
            uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
            w[i] = x << 1 | x >> 31;
        }
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t t = (a << 5 | a >> 27) + f + e + k + w[i];
            e = d, d = c, c = b << 30 | b >> 2, b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *data, int size, char *out) {
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < size; i += 3) {
        uint32_t v = data[i] << 16 | (i + 1 < size ? data[i + 1] << 8 : 0) | (i + 2 < size ? data[i + 2] : 0);
        *out++ = set[v >> 18], *out++ = set[v >> 12 & 63];
        *out++ = i + 1 < size ? set[v >> 6 & 63] : '=', *out++ = i + 2 < size ? set[v & 63] : '=';
    }
    *out = 0;
}

static void frame(struct buffer *out, const char *text, size_t size) {
    uint8_t head[4] = {0x81, (uint8_t)size, 0, 0};
    size_t used = 2;
    if (size > 65535) return;
    if (size > 125) head[1] = 126, head[2] = (uint8_t)(size >> 8), head[3] = (uint8_t)size, used = 4;
    append(out, head, used);
    append(out, text, size);
}

/* One message: {"#":"nine chars","put":{...}} or {"#":"nine chars","get":{"#":"soul"}}. */
static void message(struct peer *p, const char *text, size_t size) {
    char answer[512];
    if (size < 30 || memcmp(text, "{\"#\":\"", 6) || memcmp(text + 15, "\",\"", 3)) return;
    if (text[18] == 'p') {
        int n = snprintf(answer, sizeof answer, "{\"#\":\"answer\",\"@\":\"%.9s\",\"ok\":true}", text + 6);
        frame(&p->out, answer, (size_t)n);
        for (int i = 0; i < CONNECTIONS_MAX; i++)
            if (peers[i] && peers[i] != p && peers[i]->subscribed) frame(&peers[i]->out, text, size);
    } else {
        int n = snprintf(answer, sizeof answer,
            "{\"#\":\"answer\",\"##\":-1234567890,\"@\":\"%.9s\",\"put\":{\"bench/12345678901234\":{\"_\":{\"#\":\"bench/12345678901234\","
            "\">\":{\"text\":1700000000000}},\"text\":\"no real value, but as long as one\"}}}", text + 6);
        frame(&p->out, answer, (size_t)n);
        p->subscribed = 1;
    }
}

static void payload(struct peer *p, char *text, size_t size) {
    if (text[0] != '[') { message(p, text, size); return; }
    size_t start = 1;
    int depth = 0;
    for (size_t i = 1; i < size; i++) {  /* no braces inside texts: the generator writes none */
        if (text[i] == '{' && depth++ == 0) start = i;
        if (text[i] == '}' && --depth == 0) message(p, text + start, i + 1 - start);
    }
}

static void drop(struct peer *p) {
    peers[p->fd] = NULL;
    close(p->fd);
    free(p->in.data), free(p->out.data), free(p);
}

static int upgrade(struct peer *p) {
    char *end = memmem(p->in.data, p->in.used, "\r\n\r\n", 4);
    char *key = memmem(p->in.data, p->in.used, "Sec-WebSocket-Key: ", 19);
    if (!end || !key) return 0;
    char text[61], accept[32], answer[256];
    uint8_t digest[20];
    memcpy(text, key + 19, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1(text, 60, digest);
    base64(digest, 20, accept);
    int n = snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    append(&p->out, answer, (size_t)n);
    size_t used = (size_t)(end + 4 - p->in.data);
    memmove(p->in.data, p->in.data + used, p->in.used -= used);
    return p->upgraded = 1;
}

static void frames(struct peer *p) {
    size_t at = 0;
    while (p->in.used - at >= 6) {
        uint8_t *f = (uint8_t *)p->in.data + at;
        size_t size = f[1] & 127, head = 6;
        if (size == 126) size = (size_t)f[2] << 8 | f[3], head = 8;
        if (p->in.used - at < head + size) break;
        char *text = (char *)f + head;
        uint8_t mask[4];
        memcpy(mask, f + head - 4, 4);
        for (size_t i = 0; i < size; i++) text[i] ^= mask[i & 3];
        if ((f[0] & 15) == 1 && size) payload(p, text, size);
        at += head + size;
    }
    memmove(p->in.data, p->in.data + at, p->in.used -= at);
}

static void flush(struct peer *p) {
    size_t at = 0;
    while (at < p->out.used) {
        ssize_t n = send(p->fd, p->out.data + at, p->out.used - at, MSG_NOSIGNAL);
        if (n <= 0) break;
        at += (size_t)n;
    }
    memmove(p->out.data, p->out.data + at, p->out.used -= at);
}

int main(void) {
    static char chunk[READ_BYTES];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&here, size) || listen(listener, 512)) return 1;
    getsockname(listener, (struct sockaddr *)&here, &size);
    printf("{\"gun\":[\"ws://127.0.0.1:%d/gun\"],\"version\":\"ack\"}\n", ntohs(here.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int waiting = 0;
        for (int i = 0; i < CONNECTIONS_MAX; i++) waiting |= peers[i] && peers[i]->out.used;
        int n = epoll_wait(poller, ready, 256, waiting ? 1 : -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (fd >= CONNECTIONS_MAX) { close(fd); continue; }
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    peers[fd] = calloc(1, sizeof **peers);
                    peers[fd]->fd = fd;
                    event.data.fd = fd;
                    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            ssize_t got = recv(fd, chunk, sizeof chunk, 0);
            if (got == 0 || (got < 0 && errno != EAGAIN)) { drop(peers[fd]); continue; }
            if (got < 0) continue;
            append(&peers[fd]->in, chunk, (size_t)got);
            if (peers[fd]->upgraded || upgrade(peers[fd])) frames(peers[fd]);
        }
        for (int i = 0; i < CONNECTIONS_MAX; i++)
            if (peers[i] && peers[i]->out.used) flush(peers[i]);
    }
}
