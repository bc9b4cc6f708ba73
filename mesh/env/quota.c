#include "quota.h"

#include "base/alloc.h"
#include "base/seeded.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN 1000 /* thousandths */
#define FORGET_MS 10000
#define ENDS_WINDOW_S 2.0
#define ENDS_MIN 1.0 /* per second, when nothing is known */

static const struct quota_limits defaults = {.rate = QUOTA_RATE, .open = QUOTA_OPEN, .bytes = QUOTA_BYTES};

static void begin_tokens(struct quota_sender *sender, int64_t now_ms)
{
    sender->tokens_milli = (int64_t)sender->limits.rate * TOKEN;
    sender->filled_ms = now_ms;
}

void quota_init(struct quota *quota, uint32_t open_max)
{
    *quota = (struct quota){.open_max = open_max, .others = {.name = "others", .limits = defaults}, .all = {.name = "all"}};
    begin_tokens(&quota->others, 0);
}

void quota_done(struct quota *quota)
{
    struct quota_sender *sender, *next;
    HASH_ITER(hh, quota->senders, sender, next) {
        HASH_DEL(quota->senders, sender);
        free(sender);
    }
}

/* ---- rules ----------------------------------------------------------------------------------------------------------- */

/* A number with K, M, G behind it, up to `max`; "-" leaves *ret. The end of it, or NULL. */
static const char *take_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    assert(text);
    if (*text == '-')
        return text + 1;
    if (!isdigit((unsigned char)*text))
        return NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    end += shift != 0;
    if (errno || number == 0 || number > max >> shift)
        return NULL;
    *ret = (uint64_t)number << shift;
    return end;
}

static bool take_limits(const char *text, struct quota_limits *limits)
{
    uint64_t rate = limits->rate, open = limits->open, bytes = limits->bytes;
    const char *at = take_number(text, 1000000, &rate);
    if (at && strncmp(at, "/s", 2) == 0)
        at += 2;
    else if (!at || text[0] != '-')
        return false;
    if (*at == ',')
        at = take_number(at + 1, UINT32_MAX, &open);
    if (at && *at == ',')
        at = take_number(at + 1, (uint64_t)1 << 50, &bytes);
    if (!at || *at)
        return false;
    *limits = (struct quota_limits){.rate = (uint32_t)rate, .open = (uint32_t)open, .bytes = bytes};
    return true;
}

static const struct quota_rule *rule_of(const struct quota *quota, const char *sender)
{
    const struct quota_rule *any = NULL;
    for (size_t i = 0; i < quota->n_rules; i++) {
        if (strcmp(quota->rules[i].sender, sender) == 0)
            return &quota->rules[i];
        if (strcmp(quota->rules[i].sender, "*") == 0)
            any = &quota->rules[i];
    }
    return any;
}

static struct quota_limits limits_of(const struct quota *quota, const char *sender)
{
    const struct quota_rule *rule = rule_of(quota, sender);
    return rule ? rule->limits : defaults;
}

enum amp_code quota_rule(struct quota *quota, const char *text, struct amp_error *reterr)
{
    const char *equals = strchr(text, '=');
    struct quota_rule rule = {.sender = ""};
    size_t len = equals ? (size_t)(equals - text) : 0;
    if (len > 0 && len <= AMP_NAME_MAX)
        memcpy(rule.sender, text, len);
    rule.limits = limits_of(quota, rule.sender);
    if ((strcmp(rule.sender, "*") != 0 && !amp_id_is_valid(rule.sender)) || !take_limits(equals + 1, &rule.limits)) {
        amp_error_set(reterr, AMP_INVALID, "quota", "--quota: \"%.100s\" is not a quota", text);
        amp_error_hint(reterr, "SENDER=RATE/s,OPEN,BYTES, such as ci=200/s,5000,64M; \"-\" leaves one as it is, \"*\" is everybody else");
        return AMP_INVALID;
    }
    size_t at = 0;
    while (at < quota->n_rules && strcmp(quota->rules[at].sender, rule.sender) != 0)
        at++;
    if (at == QUOTA_RULES_MAX)
        return amp_error_set(reterr, AMP_INVALID, "quota", "more than %u quotas", QUOTA_RULES_MAX);
    quota->rules[at] = rule;
    quota->n_rules += at == quota->n_rules;
    quota->others.limits = limits_of(quota, "*");
    begin_tokens(&quota->others, 0);
    return AMP_OK;
}

/* ---- senders --------------------------------------------------------------------------------------------------------- */

static struct quota_sender *find(struct quota *quota, const char *name, int64_t now_ms)
{
    struct quota_sender *sender;
    HASH_FIND_STR(quota->senders, name, sender);
    if (sender)
        return sender;
    if (HASH_COUNT(quota->senders) >= QUOTA_SENDERS_MAX)
        return &quota->others;
    sender = xcalloc(1, sizeof *sender);
    snprintf(sender->name, sizeof sender->name, "%s", name);
    sender->limits = limits_of(quota, name);
    begin_tokens(sender, now_ms);
    HASH_ADD_STR(quota->senders, name, sender);
    return sender;
}

static void fill(struct quota_sender *sender, int64_t now_ms)
{
    int64_t most = (int64_t)sender->limits.rate * TOKEN, gone_ms = now_ms - sender->filled_ms;
    if (gone_ms > 1000)
        gone_ms = 1000; /* full by then */
    if (gone_ms > 0)
        sender->tokens_milli += gone_ms * sender->limits.rate; /* rate/s × TOKEN / 1000 ms */
    if (sender->tokens_milli > most)
        sender->tokens_milli = most;
    sender->filled_ms = now_ms;
}

uint32_t quota_promise(struct quota_sender *sender, double per_s, int64_t now_ms)
{
    double gap_ms = per_s > 0.001 ? 1000.0 / per_s : QUOTA_WAIT_MAX_MS;
    if (sender->promised_ms < now_ms)
        sender->promised_ms = now_ms;
    /* Whole milliseconds only: a fast one promises many for the same. */
    int64_t next = sender->promised_ms + (gap_ms >= 1 ? (int64_t)gap_ms : sender->n_refused % (uint64_t)(1 / gap_ms + 1) == 0);
    if (next - now_ms > QUOTA_WAIT_MAX_MS)
        next = now_ms + QUOTA_WAIT_MAX_MS;
    sender->promised_ms = next;
    int64_t wait_ms = next - now_ms;
    return wait_ms < QUOTA_WAIT_MIN_MS ? QUOTA_WAIT_MIN_MS : (uint32_t)wait_ms;
}

static double ends_now(const struct quota_sender *sender, int64_t now_ms)
{
    /* None for a while is fewer and fewer, however many there were. */
    double silent_s = (double)(now_ms - sender->ended_ms) / 1000;
    double ends = silent_s < ENDS_WINDOW_S ? sender->ends_per_s : sender->ends_per_s * ENDS_WINDOW_S / silent_s;
    return ends > ENDS_MIN ? ends : ENDS_MIN;
}

static void note_end(struct quota_sender *sender, int64_t now_ms)
{
    double gone_s = (double)(now_ms - sender->ended_ms) / 1000;
    double keep = gone_s < ENDS_WINDOW_S ? 1 - gone_s / ENDS_WINDOW_S : 0;
    sender->ends_per_s = sender->ends_per_s * keep + 1 / ENDS_WINDOW_S;
    sender->ended_ms = now_ms;
}

static enum amp_code refuse(struct quota_sender *sender, double per_s, int64_t now_ms, struct amp_error *err)
{
    sender->n_refused++;
    if (err)
        err->retry_after_ms = quota_promise(sender, per_s, now_ms);
    return err ? err->code : AMP_QUOTA;
}

enum amp_code quota_check(struct quota *quota, const char *name, uint64_t bytes, int64_t now_ms, struct amp_error *reterr)
{
    struct quota_sender *sender = find(quota, name, now_ms);
    const struct quota_limits *limits = &sender->limits;
    uint32_t free = quota->open_max > quota->open ? quota->open_max - quota->open : 0;
    struct amp_error ignored = {0}, *err = reterr ? reterr : &ignored;
    fill(sender, now_ms);
    if (free == 0) {
        amp_error_set(err, AMP_OVERLOADED, "", "%u tasks are open, which is as many as may be", quota->open);
        quota->all.n_refused++;
        return refuse(sender, ends_now(&quota->all, now_ms), now_ms, err);
    }
    if (sender->open >= limits->open || sender->open >= QUOTA_SHARE * (uint64_t)free) {
        amp_error_set(err, AMP_QUOTA, "", "%s has %u open tasks, and may have %u%s", name, sender->open, sender->open >= limits->open ? limits->open : QUOTA_SHARE * free,
                      sender->open >= limits->open ? "" : " while so many others are open");
        quota->n_refused++;
        return refuse(sender, ends_now(sender, now_ms), now_ms, err);
    }
    if (sender->bytes + bytes > limits->bytes && sender->open > 0 && !SEEDED_BUG("bytes-unkept")) {
        amp_error_set(err, AMP_QUOTA, "", "the open requests of %s are %llu bytes; with this one of %llu they would be more than the %llu that may be", name,
                      (unsigned long long)sender->bytes, (unsigned long long)bytes, (unsigned long long)limits->bytes);
        quota->n_refused++;
        return refuse(sender, ends_now(sender, now_ms), now_ms, err);
    }
    if (sender->tokens_milli < TOKEN && !SEEDED_BUG("rate-unkept")) {
        amp_error_set(err, AMP_QUOTA, "", "%s submits more than %u tasks a second", name, limits->rate);
        quota->n_refused++;
        return refuse(sender, limits->rate, now_ms, err);
    }
    sender->tokens_milli -= TOKEN;
    return AMP_OK;
}

void quota_add(struct quota *quota, const char *name, uint64_t bytes, int64_t now_ms)
{
    struct quota_sender *sender = find(quota, name, now_ms);
    sender->open++;
    sender->bytes += bytes;
    quota->open++;
}

void quota_remove(struct quota *quota, const char *name, uint64_t bytes, int64_t now_ms)
{
    struct quota_sender *sender;
    HASH_FIND_STR(quota->senders, name, sender);
    if (!sender || sender->open == 0)
        sender = &quota->others; /* it came when there were too many */
    sender->open -= sender->open > 0;
    sender->bytes -= sender->bytes < bytes ? sender->bytes : bytes;
    quota->open -= quota->open > 0;
    note_end(sender, now_ms);
    note_end(&quota->all, now_ms);
}

void quota_tick(struct quota *quota, int64_t now_ms)
{
    struct quota_sender *sender, *next;
    HASH_ITER(hh, quota->senders, sender, next) {
        if (sender->open || now_ms - sender->filled_ms < FORGET_MS || now_ms - sender->ended_ms < FORGET_MS)
            continue;
        HASH_DEL(quota->senders, sender);
        free(sender);
    }
}

double quota_fill(const struct quota_sender *sender)
{
    double open = (double)sender->open / sender->limits.open, bytes = (double)sender->bytes / (double)sender->limits.bytes;
    return open > bytes ? open : bytes;
}

size_t quota_fullest(const struct quota *quota, const struct quota_sender **ret, size_t max)
{
    size_t count = 0;
    for (const struct quota_sender *sender = quota->senders; sender; sender = sender->hh.next) {
        size_t at = count < max ? count++ : max;
        while (at > 0 && quota_fill(ret[at - 1]) < quota_fill(sender)) {
            if (at < max)
                ret[at] = ret[at - 1];
            at--;
        }
        if (at < max)
            ret[at] = sender;
    }
    return count;
}
