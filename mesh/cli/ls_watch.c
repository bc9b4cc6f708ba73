/* amesh ls --watch. Beats come from each instance each second: on a mesh of thousands a new one is always there, so a beat is compared with what is shown, and only an agent that changed is asked for
 * again. All of them are asked for now and then, since silence is news, too. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "cli/away.h"
#include "cli/ls.h"
#include "cli/output.h"

#define SETTLE_MS 50u     /* changes that come together are shown together */
#define AWAY_MS 500u      /* an environment that was away is asked again so soon */
#define REFRESH_MS 5000u  /* instances get lost */
#define CHANGED_MAX 32u   /* with more, all are asked for */
#define PACE 10           /* what takes long is done so much more rarely: at most a tenth of the time is spent on it */
#define BEAT_BYTES_MAX (1u << 20) /* of one beat, decoded */

struct shown {
    UT_hash_handle hh;
    Amp__AgentRecord *record;
    uint64_t look; /* of what people would call a change */
    bool is_listed; /* in the answer that is being read */
    char name[];
};

struct watch {
    struct cli *cli;
    Amp__AgentQuery *query;
    Amp__EnvRequest request;
    struct loop_timer *timer;
    struct env_call *call;
    struct away away;
    struct amp_arena arena;
    struct shown *agents;
    char *page;                  /* what is asked for: the one behind this name, or */
    char *changed[CHANGED_MAX];  /* the first of these */
    size_t n_changed;
    bool wants_all, is_all;      /* is_all: what is asked for now */
    bool is_new, was_printed;    /* what there is was not printed yet; anything ever was */
    int64_t asked_ms, all_ms;    /* when the answer that is awaited was asked for first; when all were last */
    int64_t ask_at, print_at, refresh_ms; /* not before; how often */
};

/* ---- what is shown ------------------------------------------------------------------------------------------ */

static uint64_t digest_of(const ProtobufCMessage *message)
{
    static const unsigned char key[crypto_shorthash_KEYBYTES];
    uint64_t digest;
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = xcalloc(1, size + 1);
    protobuf_c_message_pack(message, packed);
    crypto_shorthash((unsigned char *)&digest, packed, size, key);
    free(packed);
    return digest;
}

/* Not the moment of the last beat, or of the last progress. */
static uint64_t look_of_beat(const Amp__Beat *beat)
{
    Amp__Beat look = *beat;
    look.last_progress = NULL;
    look.card = NULL;
    look.death = NULL;
    return digest_of(&look.base);
}

static uint64_t look_of(const Amp__AgentRecord *record)
{
    uint64_t look = record->n_instances + record->instances_count + (record->card != NULL ? digest_of(&record->card->base) : 0);
    for (size_t i = 0; i < record->n_instances; i++)
        look = look * 31 + look_of_beat(record->instances[i]->beat);
    return look;
}

static struct shown *find(struct watch *watch, const char *name)
{
    struct shown *shown;
    HASH_FIND_STR(watch->agents, name, shown);
    return shown;
}

static void drop(struct watch *watch, struct shown *shown)
{
    HASH_DEL(watch->agents, shown);
    amp__agent_record__free_unpacked(shown->record, NULL);
    free(shown);
    watch->is_new = true;
}

static Amp__AgentRecord *copy_of(const Amp__AgentRecord *record)
{
    size_t size = amp__agent_record__get_packed_size(record);
    uint8_t *packed = xcalloc(1, size + 1);
    amp__agent_record__pack(record, packed);
    Amp__AgentRecord *copy = amp__agent_record__unpack(NULL, size, packed);
    free(packed);
    if (copy == NULL)
        abort(); /* what was decoded cannot be packed and read again: out of memory */
    return copy;
}

static void take(struct watch *watch, const Amp__AgentRecord *record)
{
    struct shown *shown = find(watch, record->name);
    uint64_t look = look_of(record);
    if (shown == NULL) {
        size_t len = strlen(record->name) + 1;
        shown = xcalloc(1, sizeof *shown + len);
        memcpy(shown->name, record->name, len);
        HASH_ADD_STR(watch->agents, name, shown);
        watch->is_new = true;
    }
    watch->is_new |= shown->look != look;
    shown->look = look;
    shown->is_listed = true;
    if (shown->record != NULL)
        amp__agent_record__free_unpacked(shown->record, NULL);
    shown->record = copy_of(record);
}

static int by_name(const struct shown *a, const struct shown *b)
{
    return strcmp(a->name, b->name);
}

static void print_all(struct watch *watch)
{
    struct ls_list list;
    const struct cli *cli = watch->cli;
    int64_t began_ms = clock_mono_ms();
    if (cli->out.is_terminal && !cli->is_json)
        fputs("\x1b[H\x1b[2J", stdout);
    else if (!cli->is_json && watch->was_printed)
        fputc('\n', stdout);
    ls_list_begin(&list);
    HASH_SRT(hh, watch->agents, by_name);
    for (struct shown *shown = watch->agents; shown != NULL; shown = shown->hh.next)
        ls_list_add(&list, cli, shown->record);
    ls_list_print(&list, cli, ls_is_of_a_kind(watch->query));
    watch->is_new = false;
    watch->was_printed = true;
    int64_t ended_ms = clock_mono_ms();
    watch->print_at = ended_ms + PACE * (ended_ms - began_ms);
    if (output_is_lost())
        loop_stop(cli->loop, amp_code_info(AMP_INTERRUPTED)->exit);
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static void ring(struct watch *watch, int64_t at_ms)
{
    int64_t left = at_ms - loop_now_ms(watch->cli->loop);
    loop_timer_set(watch->timer, left > 0 ? (uint32_t)left : 0);
}

/* What is to be done next, and when. */
static void plan(struct watch *watch)
{
    int64_t now = loop_now_ms(watch->cli->loop), at = watch->all_ms + watch->refresh_ms;
    if (watch->call != NULL)
        return; /* its answer goes on */
    if (watch->is_new && watch->print_at < at)
        at = watch->print_at;
    if ((watch->wants_all || watch->n_changed > 0) && watch->ask_at < at)
        at = watch->ask_at;
    ring(watch, at > now ? at : now);
}

static void forget_changed(struct watch *watch)
{
    while (watch->n_changed > 0)
        free(watch->changed[--watch->n_changed]);
}

static void ask_all(struct watch *watch)
{
    watch->wants_all = true;
    forget_changed(watch);
    watch->ask_at = loop_now_ms(watch->cli->loop) + SETTLE_MS;
}

static void on_changed(struct watch *watch, const char *agent)
{
    if (watch->wants_all)
        return;
    for (size_t i = 0; i < watch->n_changed; i++)
        if (strcmp(watch->changed[i], agent) == 0)
            return;
    if (watch->n_changed == 0)
        watch->ask_at = loop_now_ms(watch->cli->loop) + SETTLE_MS;
    if (watch->n_changed == CHANGED_MAX)
        ask_all(watch);
    else
        watch->changed[watch->n_changed++] = xstrdup(agent);
    plan(watch);
}

static void ask(struct watch *watch);

/* On a terminal what was said about the loss stands below the table: after it all is drawn anew. */
static void take_away(struct watch *watch, const struct amp_error *err)
{
    bool was_away = watch->away.is_away;
    away_answer(&watch->away, err);
    if (was_away && !watch->away.is_away && watch->cli->out.is_terminal)
        watch->is_new = true;
}

static void sweep(struct watch *watch)
{
    struct shown *shown, *next;
    HASH_ITER(hh, watch->agents, shown, next) {
        if (!shown->is_listed)
            drop(watch, shown);
    }
    int64_t now = loop_now_ms(watch->cli->loop);
    watch->all_ms = now;
    watch->refresh_ms = PACE * (now - watch->asked_ms) > (int64_t)REFRESH_MS ? PACE * (now - watch->asked_ms) : (int64_t)REFRESH_MS;
    watch->is_new |= !watch->was_printed;
}

/* The one that was asked for by its name is not there, or not one of those any more. */
static void take_one(struct watch *watch, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct shown *shown = find(watch, watch->changed[0]);
    if (shown != NULL && (err->code != AMP_OK || reply->n_agents == 0))
        drop(watch, shown);
    for (size_t i = 0; err->code == AMP_OK && i < reply->n_agents; i++)
        take(watch, reply->agents[i]);
    free(watch->changed[0]);
    memmove(watch->changed, watch->changed + 1, --watch->n_changed * sizeof watch->changed[0]);
}

static void take_page(struct watch *watch, const Amp__EnvReply *reply)
{
    for (size_t i = 0; i < reply->n_agents; i++)
        take(watch, reply->agents[i]);
    free(watch->page);
    watch->page = reply->next_page_token != NULL && *reply->next_page_token != '\0' ? xstrdup(reply->next_page_token) : NULL;
    if (watch->page == NULL) {
        watch->is_all = false;
        sweep(watch);
    }
}

static void lost(struct watch *watch, const struct amp_error *err)
{
    free(watch->page);
    watch->page = NULL;
    watch->is_all = false;
    take_away(watch, err); /* the environment may come back: it is said, and goes on */
    ask_all(watch);
    watch->ask_at = loop_now_ms(watch->cli->loop) + AWAY_MS;
    plan(watch);
}

static void on_answer(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct watch *watch = ctx;
    bool is_known = err->code == AMP_OK || (err->code == AMP_NO_SUCH_AGENT && !watch->is_all);
    watch->call = NULL;
    if (!is_known) {
        lost(watch, err);
        return;
    }
    take_away(watch, &(struct amp_error){.code = AMP_OK});
    if (watch->is_all)
        take_page(watch, reply);
    else if (watch->n_changed > 0)
        take_one(watch, reply, err);
    if (watch->is_all || (watch->n_changed > 0 && !watch->wants_all))
        ask(watch);
    plan(watch);
}

/* The next page of all, or the next one that changed. */
static void ask(struct watch *watch)
{
    char first[] = "";
    watch->query->page_token = watch->page != NULL ? watch->page : first;
    watch->query->name = watch->is_all ? NULL : watch->changed[0];
    enum amp_code code = env_call(watch->cli->loop, watch->cli->bus, watch->cli->from, &watch->request, watch->cli->timeout_ms, on_answer, watch, &watch->call);
    watch->query->page_token = watch->query->name = NULL; /* it is on its way */
    if (code != AMP_OK) {
        watch->call = NULL;
        lost(watch, &(struct amp_error){.code = code});
    }
}

static void begin(struct watch *watch)
{
    struct shown *shown;
    watch->asked_ms = loop_now_ms(watch->cli->loop);
    watch->is_all = watch->wants_all;
    watch->wants_all = false;
    for (shown = watch->agents; shown != NULL; shown = shown->hh.next)
        shown->is_listed = false;
    ask(watch);
}

static void on_timer(void *ctx)
{
    struct watch *watch = ctx;
    int64_t now = loop_now_ms(watch->cli->loop);
    if (watch->call != NULL)
        return;
    if (now >= watch->all_ms + watch->refresh_ms)
        watch->wants_all = true;
    bool is_due = (watch->wants_all || watch->n_changed > 0) && now >= watch->ask_at;
    if (watch->is_new && now >= watch->print_at)
        print_all(watch);
    if (is_due)
        begin(watch);
    plan(watch);
}

/* ---- beats -------------------------------------------------------------------------------------------------------- */

/* Does it say what is shown of this instance? Who is not shown is one of a kind that was not asked for, unless this is its first beat, which has a card. */
static bool is_shown(const struct shown *shown, const Amp__Beat *beat)
{
    if (shown == NULL)
        return beat->card == NULL;
    for (size_t i = 0; i < shown->record->n_instances; i++) {
        const Amp__Beat *old = shown->record->instances[i]->beat;
        if (strcmp(old->instance, beat->instance) == 0)
            return look_of_beat(old) == look_of_beat(beat) && (beat->card == NULL || (shown->record->card != NULL && digest_of(&beat->card->base) == digest_of(&shown->record->card->base)));
    }
    return shown->record->has_instances_count; /* one of those that are not listed */
}

static void on_beat(void *ctx, const struct bus_msg *msg)
{
    struct watch *watch = ctx;
    struct amp_subject subject;
    Amp__Envelope *envelope = NULL;
    amp_arena_reset(&watch->arena);
    if (amp_subject_parse(msg->subject, &subject, NULL) != AMP_OK || amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_BEAT, &watch->arena, &envelope, NULL, NULL) != AMP_OK)
        return; /* the environment counts these */
    const Amp__Beat *beat = envelope->beat;
    bool is_own = strcmp(subject.a, beat->agent) == 0 && strcmp(subject.b, beat->instance) == 0;
    if (is_own && !is_shown(find(watch, beat->agent), beat))
        on_changed(watch, beat->agent);
}

/* Beats are not waited for: nobody may have one to send. */
static void on_link(void *ctx, bool is_up)
{
    struct watch *watch = ctx;
    if (watch->timer == NULL)
        return;
    if (!is_up)
        away_lost(&watch->away, "the bus is away");
    ask_all(watch);
    plan(watch);
}

/* ---- begin and end ---------------------------------------------------------------------------------------------------- */

static int run(struct watch *watch, const char *subject)
{
    struct cli *cli = watch->cli;
    watch->timer = loop_timer_new(cli->loop, on_timer, watch);
    struct bus_sub *beats = bus_subscribe(cli->bus, subject, NULL, on_beat, watch);
    struct output_until until;
    output_until_begin(cli->loop, &until);
    watch->wants_all = true;
    plan(watch);
    int status = loop_run(cli->loop);
    output_until_end(&until);
    bus_unsubscribe(beats, false);
    env_call_cancel(watch->call);
    loop_timer_free(watch->timer);
    watch->timer = NULL;
    return status;
}

int ls_watch(struct cli *cli, Amp__AgentQuery *query)
{
    char subject[AMP_SUBJECT_SIZE];
    struct amp_error err = {0};
    struct watch watch = {.cli = cli, .query = query, .request = AMP__ENV_REQUEST__INIT, .refresh_ms = REFRESH_MS};
    struct shown *shown, *next;
    watch.request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
    watch.request.agents = query;
    cli->needs_subscription = true;
    cli->on_link = on_link;
    cli->link_ctx = &watch;
    int status = cli_connect(cli);
    if (status != 0)
        return status;
    if (amp_subject_build(AMP_SUBJECT_HB, "*", "*", NULL, subject, &err) != AMP_OK)
        return cli_fail(cli, &err, NULL);
    amp_arena_init(&watch.arena, BEAT_BYTES_MAX);
    away_init(&watch.away, cli, "what is shown may be old");
    status = run(&watch, subject);
    HASH_ITER(hh, watch.agents, shown, next) {
        drop(&watch, shown);
    }
    forget_changed(&watch);
    free(watch.page);
    amp_arena_done(&watch.arena);
    return status;
}
