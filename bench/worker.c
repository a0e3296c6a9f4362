/* worker.c - see worker.h. */
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { NAME_MAX_LENGTH = 31, DEFAULT_KIB = 1024 };

/* ---- options ------------------------------------------------------------------------------ */

enum { OPTION_SOCKET = 512, OPTION_SEND, OPTION_RECV };

static const struct argp_option k_options[] = {
    {"socket", OPTION_SOCKET, "PATH", 0, "take orders from there, rather than from stdin", 0},
    {"send", OPTION_SEND, "KIB", 0, "room for the vectors that are passed in; without it 1024", 0},
    {"recv", OPTION_RECV, "KIB", 0, "room for the results; without it 1024", 0},
    {NULL, 0, NULL, 0, NULL, 0}};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    bench_options *options = state->input;

    switch (key) {
    case OPTION_SOCKET:
        options->socket = value;
        return 0;
    case OPTION_SEND:
        options->send_kib = strtoul(value, NULL, 10);
        return 0;
    case OPTION_RECV:
        options->recv_kib = strtoul(value, NULL, 10);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp bench_argp = {k_options, parse_option, NULL, NULL, NULL, NULL, NULL};

static size_t bytes_of(unsigned long kib)
{
    return (size_t)(kib > 0 ? kib : DEFAULT_KIB) << 10;
}

size_t bench_send_bytes(const bench_options *options)
{
    return bytes_of(options->send_kib);
}

size_t bench_recv_bytes(const bench_options *options)
{
    return bytes_of(options->recv_kib);
}

/* ---- what workers need -------------------------------------------------------------------- */

int bench_count_of_ranks(const char *option, const char *value, const struct argp_state *state)
{
    char *end;
    long count = strtol(value, &end, 10);

    if (*end != '\0' || count < 1 || count > BENCH_RANKS_MAX)
        argp_error(state, "--%s: '%s' is not a whole number from 1 to %d", option, value,
                   BENCH_RANKS_MAX);
    return (int)count;
}

float *bench_private(size_t bytes)
{
    void *memory;

    if (posix_memalign(&memory, 4096, bytes) != 0) {
        fprintf(stderr, "bench: no memory for %zu bytes; give smaller --sizes\n", bytes);
        return NULL;
    }
    return memset(memory, 0, bytes);
}

void bench_bind_thread(int rank, int ranks)
{
    if (bench_core(ranks - 1) >= 0)
        bench_bind(bench_core(rank));
}

/* ---- rank 0: lines ------------------------------------------------------------------------ */

/* Who gives the orders. */
typedef struct master {
    FILE *in, *out;
} master;

static int connect_to(master *m, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* a name outside of the file system */
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        fprintf(stderr, "bench: cannot reach %s: %s\n", path, strerror(errno));
        return -1;
    }
    m->in = fdopen(fd, "r");
    m->out = fdopen(dup(fd), "w");
    return m->in != NULL && m->out != NULL ? 0 : -1;
}

static void say_hello(const master *m, const bench_library *library)
{
    fputs("has", m->out);
    for (bench_operation op = 0; op < BENCH_OPERATIONS; op++)
        if (library->run[op] != NULL)
            fprintf(m->out, " %s", bench_operation_name(op));
    fputc('\n', m->out);
    fflush(m->out);
}

/* Is the line an order that can be carried out? Otherwise says why not. */
static bool understand(const master *m, const bench *b, const bench_library *library,
                       const bench_options *options, const char *line, bench_order *order)
{
    char name[NAME_MAX_LENGTH + 1];
    int full;

    *order = (bench_order){0};
    if (sscanf(line, "%31s %zu %lf %d", name, &order->bytes, &order->seconds, &full) != 4 ||
        !(order->seconds > 0)) {
        fprintf(m->out, "no: an order is OPERATION BYTES SECONDS FULL\n");
        return false;
    }
    bench_operation op = bench_operation_named(name);
    order->operation = (int)op;
    order->full = full != 0;
    size_t blocks = op == BENCH_ALLGATHER ? (size_t)b->ranks : 1;
    if (op == BENCH_OPERATIONS || !bench_is_possible(library, op, order->bytes, b->ranks) ||
        order->bytes > bench_send_bytes(options) ||
        order->bytes * blocks > bench_recv_bytes(options)) {
        fprintf(m->out, "no: there is no such operation, size, or room for it\n");
        return false;
    }
    return true;
}

static int serve(bench *b, const bench_library *library, const bench_options *options, float *send,
                 float *recv)
{
    master m = {stdin, stdout};
    bench_order order;
    bench_result r;
    char line[256];

    if (options->socket != NULL && connect_to(&m, options->socket) != 0)
        return -1;
    say_hello(&m, library);
    while (fgets(line, sizeof(line), m.in) != NULL) {
        if (understand(&m, b, library, options, line, &order)) {
            bench_give_order(b, &order);
            if (bench_slice(b, library, &order, send, recv, &r) != 0)
                return -1;
            fprintf(m.out, "ok %u %.4f %.4f %.4f %.4f %llu\n", r.calls, r.min, r.median, r.p99,
                    r.back_to_back, (unsigned long long)r.wrong);
        }
        fflush(m.out);
    }
    order = (bench_order){.end = true};
    bench_give_order(b, &order);
    return 0;
}

/* ---- the others --------------------------------------------------------------------------- */

static int follow(bench *b, const bench_library *library, float *send, float *recv)
{
    bench_order order;

    for (uint32_t number = 1;; number++) {
        if (bench_await_order(b, number, &order) != 0)
            return -1;
        if (order.end)
            return 0;
        if (bench_slice(b, library, &order, send, recv, NULL) != 0)
            return -1;
    }
}

int bench_work(bench *b, const bench_library *library, const bench_options *options, float *send,
               float *recv)
{
    int failed = -1;

    if (send != NULL && recv != NULL)
        failed =
            b->rank == 0 ? serve(b, library, options, send, recv) : follow(b, library, send, recv);
    if (failed != 0)
        bench_give_up(b);
    return failed;
}

int bench_work_private(bench *b, const bench_library *library, const bench_options *options)
{
    float *send = bench_private(bench_send_bytes(options));
    float *recv = bench_private(bench_recv_bytes(options));
    int failed = bench_work(b, library, options, send, recv);

    free(send);
    free(recv);
    return failed;
}
