/* The C client as a peer of the end-to-end plan; see ../src/e2e.rs for what is said to it and what it says.
 *
 * Its events are those of ../src/event.rs, printed by snprintf with the time of day from gmtime_r. They are published by
 * js_PublishAsync with as many unacknowledged as the other clients have, and each is known to be stored when the library's
 * handler is called.
 */
#include <nats/nats.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IN_FLIGHT_MAX 4096
#define FIRST_NUMBER 100000000
#define EVENT_BYTES_MAX 8192
#define HOPS_MAX 83

static void fail(const char *what, natsStatus status)
{
    fprintf(stderr, "js_publish_async: %s: %s\n", what, natsStatus_GetText(status));
    exit(1);
}

static void check(const char *what, natsStatus status)
{
    if (status != NATS_OK)
        fail(what, status);
}

static uint64_t nanos(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- events ---- */

struct hop
{
    unsigned pool;
    const char *amount_in;
};

struct estimate
{
    uint64_t order_id;
    const char *estimator, *sell_token, *buy_token, *sell_amount, *out_amount;
    uint64_t gas;
    int hops;
    struct hop route[HOPS_MAX];
    double elapsed_micros;
    bool verified;
};

/* An event of 414 or 4096 bytes is an estimate, of 128 a quote, which has less of it. */
static struct estimate body = {
    .estimator = "two-hop",
    .sell_token = "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
    .buy_token = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
    .sell_amount = "1250000000000000000",
    .gas = 186000,
    .elapsed_micros = 23.75,
    .verified = true,
};

static void make_body(int size)
{
    body.hops = size == 128 ? 0 : size == 414 ? 1 : HOPS_MAX;
    body.out_amount = size == 128 ? "4267512345000000000" : size == 414 ? "42675123450000000000" : "426751234500";
    for (int hop = 0; hop < body.hops; hop++)
        body.route[hop] = (struct hop){10, "1250000000000000000"};
}

static int print_body(char *out, size_t room)
{
    if (body.hops == 0)
        return snprintf(out, room, "{\"orderId\":%llu,\"pool\":%u,\"out\":\"%s\"}",
                        (unsigned long long)body.order_id, 10, body.out_amount);
    int length = snprintf(
        out, room,
        "{\"orderId\":%llu,\"estimator\":\"%s\",\"sellToken\":\"%s\",\"buyToken\":\"%s\",\"sellAmount\":\"%s\",\"outAmount\":\"%s\",\"gas\":%llu,\"route\":[",
        (unsigned long long)body.order_id, body.estimator, body.sell_token, body.buy_token, body.sell_amount,
        body.out_amount, (unsigned long long)body.gas);
    for (int hop = 0; hop < body.hops; hop++)
        length += snprintf(out + length, room - (size_t)length, "%s{\"pool\":%u,\"amountIn\":\"%s\"}",
                           hop == 0 ? "" : ",", body.route[hop].pool, body.route[hop].amount_in);
    return length + snprintf(out + length, room - (size_t)length,
                             "],\"elapsedMicros\":%.2f,\"verified\":%s,\"error\":null}", body.elapsed_micros,
                             body.verified ? "true" : "false");
}

/* Prints an event and gives back its length. */
static int print_event(char *event, uint64_t number)
{
    struct timespec now;
    struct tm date;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &date);
    body.order_id = FIRST_NUMBER + number;
    int length = snprintf(event, EVENT_BYTES_MAX,
                          "{\"version\":\"v1\",\"timestamp\":\"%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ\",\"body\":",
                          date.tm_year + 1900, date.tm_mon + 1, date.tm_mday, date.tm_hour, date.tm_min,
                          date.tm_sec, now.tv_nsec);
    length += print_body(event + length, EVENT_BYTES_MAX - (size_t)length);
    event[length++] = '}';
    return length;
}

/* ---- acknowledgements ---- */

/* When each event was offered, and then how long it took; by its number. */
static uint64_t *times;
static atomic_ullong acked;

static void on_ack(jsCtx *js, natsMsg *message, jsPubAck *ack, jsPubAckErr *error, void *closure)
{
    static const char key[] = "\"orderId\":";
    (void)js;
    (void)closure;
    if (ack == NULL)
        fail("an event was not stored", error->Err);
    const char *number = strstr(natsMsg_GetData(message), key) + sizeof key - 1;
    uint64_t *its = &times[strtoull(number, NULL, 10) - FIRST_NUMBER];
    *its = nanos(CLOCK_MONOTONIC) - *its;
    natsMsg_Destroy(message);
    atomic_fetch_add(&acked, 1);
}

static void publish(jsCtx *js, const char *subject, uint64_t first, uint64_t events, uint64_t every_us)
{
    char event[EVENT_BYTES_MAX];
    uint64_t start = nanos(CLOCK_MONOTONIC);
    for (uint64_t index = 0; index < events; index++)
    {
        uint64_t due = start + index * every_us * 1000, now = nanos(CLOCK_MONOTONIC);
        if (every_us > 0 && due > now)
        {
            struct timespec wait = {(time_t)((due - now) / 1000000000), (long)((due - now) % 1000000000)};
            nanosleep(&wait, NULL);
        }
        times[first + index] = nanos(CLOCK_MONOTONIC);
        int length = print_event(event, first + index);
        check("js_PublishAsync", js_PublishAsync(js, subject, event, length, NULL));
    }
    check("js_PublishAsyncComplete", js_PublishAsyncComplete(js, NULL));
    /* The library says so when it has the last acknowledgement, and calls the handler then. */
    while (atomic_load(&acked) < first + events)
        nats_Sleep(1);
}

/* ---- what is said ---- */

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

static int ascending(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void tell(uint64_t *latencies, uint64_t events)
{
    double at[3], quantiles[3] = {0.5, 0.99, 0.999};
    qsort(latencies, events, sizeof *latencies, ascending);
    for (int i = 0; i < 3; i++)
        at[i] = (double)latencies[(uint64_t)(quantiles[i] * (double)(events - 1))] / 1e3;
    printf("{\"acked\":%llu,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f}\n", (unsigned long long)events, at[0], at[1], at[2]);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    if (count != 8)
        fail("URL SUBJECT SIZE EVENTS WARM_UP EVERY_US THREADS", NATS_INVALID_ARG);
    const char *subject = arguments[2];
    uint64_t events = strtoull(arguments[4], NULL, 10), warm_up = strtoull(arguments[5], NULL, 10);
    uint64_t every_us = strtoull(arguments[6], NULL, 10);
    make_body(atoi(arguments[3]));
    times = calloc(warm_up + events, sizeof *times);

    natsConnection *connection;
    jsCtx *js;
    jsOptions options;
    check("natsConnection_ConnectTo", natsConnection_ConnectTo(&connection, arguments[1]));
    check("jsOptions_Init", jsOptions_Init(&options));
    options.PublishAsync.MaxPending = IN_FLIGHT_MAX;
    options.PublishAsync.StallWait = 10000;
    options.PublishAsync.AckHandler = on_ack;
    check("natsConnection_JetStream", natsConnection_JetStream(&js, connection, &options));

    char word[16];
    publish(js, subject, 0, warm_up, 0);
    say("ready");
    if (fgets(word, sizeof word, stdin) == NULL || strcmp(word, "go\n") != 0)
        return 1;
    publish(js, subject, warm_up, events, every_us);
    say("done");
    tell(times + warm_up, events);
    /* Its end would be the end of its clock. */
    (void)!fgets(word, sizeof word, stdin);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    nats_Close();
    return 0;
}
