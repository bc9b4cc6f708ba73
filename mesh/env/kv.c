/* kv: memory of contexts, agents and of all, in the journal. Each key has a version, 1 on its first put; if_version makes a put or a delete a
 * compare-and-set. A reply to a write leaves after its commit. A list comes in pages for who sends a token, "" for the first; the token is
 * the last key of a page. Who sends none gets all, or is told that it is too much. (amp.md 10.6) */
#include "env_private.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX JOURNAL_READ_MAX

struct kv_pending { /* a key whose writes are under way: what they will have made of it */
    UT_hash_handle hh;
    uint32_t version; /* 0: deleted */
    uint32_t writes;
    size_t name_len;
    char name[]; /* scope, owner, key, each with its NUL */
};

struct kv_write {
    struct env *env;
    struct kv_pending *pending;
    uint32_t version;
    enum amp_encoding encoding;
    char from[AMP_NAME_MAX + 1], key[AMP_KV_KEY_MAX + 1];
    char reply[];
};

static const char *const scopes[] = {[AMP__KV_SCOPE__KV_CONTEXT] = "context", [AMP__KV_SCOPE__KV_AGENT] = "agent", [AMP__KV_SCOPE__KV_SHARED] = "shared"};

struct entries {
    struct amp_arena *arena;
    Amp__KvEntry **list;
    size_t count, bytes, room;
    bool is_cut;
};

static bool add_entry(void *ctx, const struct journal_row *row)
{
    struct entries *entries = ctx;
    Amp__KvEntry *entry = amp_arena_alloc(entries->arena, sizeof *entry);
    Amp__Json *value = amp_arena_alloc(entries->arena, sizeof *value);
    entries->bytes += row->body.len + strlen(row->key) + 32;
    entries->is_cut = !entry || !value || entries->count == LIST_MAX || (entries->count > 0 && entries->bytes > entries->room);
    if (entries->is_cut)
        return false;
    amp__kv_entry__init(entry);
    amp__json__init(value);
    value->text.data = (uint8_t *)amp_arena_strdup(entries->arena, row->body);
    value->text.len = row->body.len;
    entry->key = amp_arena_strdup(entries->arena, amp_bytes_of(row->key));
    entry->value = value;
    entry->has_version = true;
    entry->version = row->version;
    entries->list[entries->count++] = entry;
    return true;
}

/* As many as fit: JSON may be larger than what was measured. */
static void answer_entries(const struct ask *ask, struct entries *entries)
{
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.n_entries = entries->count;
    answer.entries = entries->list;
    for (;;) {
        size_t count = answer.n_entries;
        bool is_cut = entries->is_cut || count < entries->count;
        if (is_cut && !ask->request->kv->page_token) {
            env_refuse_code(ask, AMP_TOO_LARGE, "key", "there are more keys than one message on this bus can hold; ask with a longer prefix, or in pages");
            return;
        }
        answer.next_page_token = is_cut && count ? entries->list[count - 1]->key : NULL;
        if (env_answer(ask->env, ask->reply, ask->encoding, &answer) != AMP_TOO_LARGE)
            return;
        if (count <= 1) {
            env_refuse_code(ask, AMP_TOO_LARGE, "key", "the value is larger than one message on this bus");
            return;
        }
        answer.n_entries = count / 2;
    }
}

static const struct env_missing no_key = {AMP_NOT_FOUND, "key", "key", "amesh kv ls, of the same --context, --agent or --shared"};

static void read_keys(const struct ask *ask, const Amp__Kv *kv, const char *owner)
{
    struct env *env = ask->env;
    bool is_list = kv->op == AMP__KV_OP__KV_LIST;
    struct entries entries = {.arena = env_answer_arena(env), .room = env_payload_max(env)};
    struct journal_kv_query query = {.scope = scopes[kv->scope], .owner = owner, .key = kv->key ? kv->key : "", .after = kv->page_token,
                                     .is_prefix = is_list};
    entries.list = amp_arena_alloc(entries.arena, LIST_MAX * sizeof *entries.list);
    enum amp_code code = entries.list ? journal_kv(env->journal, &query, add_entry, &entries) : AMP_NO_MEMORY;
    if (code != AMP_OK && code != AMP_NOT_FOUND)
        env_refuse_unread(env, ask->reply, ask->encoding);
    else if (!is_list && entries.count == 0)
        env_refuse_missing(ask, &no_key, kv->key);
    else
        answer_entries(ask, &entries);
}

static bool take_version(void *ctx, const struct journal_row *row)
{
    *(uint32_t *)ctx = row->version;
    return false;
}

static enum amp_code version_now(struct env *env, const struct kv_pending *pending, const Amp__Kv *kv, const char *owner, uint32_t *ret)
{
    struct journal_kv_query query = {.scope = scopes[kv->scope], .owner = owner, .key = kv->key};
    *ret = pending ? pending->version : 0;
    enum amp_code code = pending ? AMP_OK : journal_kv(env->journal, &query, take_version, ret);
    return code == AMP_NOT_FOUND ? AMP_OK : code;
}

static size_t make_name(const Amp__Kv *kv, const char *owner, char *name, size_t size)
{
    return (size_t)snprintf(name, size, "%s%c%s%c%s", scopes[kv->scope], '\n', owner, '\n', kv->key) + 1;
}

static void on_written(void *ctx, enum amp_code code)
{
    struct kv_write *write = ctx;
    struct env *env = write->env;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    Amp__KvEntry entry = AMP__KV_ENTRY__INIT, *entries[] = {&entry};
    struct reads_hand before = reads_answer(env, write->from);
    if (code == AMP_OK) {
        entry.key = write->key;
        entry.has_version = true;
        entry.version = write->version;
        answer.n_entries = 1;
        answer.entries = entries;
        (void)env_answer(env, write->reply, write->encoding, &answer);
    } else if (code == AMP_JOURNAL) {
        env_refuse_journal(env, write->reply, write->encoding);
    } else {
        struct amp_error err = {0};
        amp_error_set(&err, code, "", "%s", amp_code_info(code)->text);
        err.retry_after_ms = 100;
        env_refuse(env, write->reply, write->encoding, &err);
    }
    reads_answered(env, before);
    if (--write->pending->writes == 0) {
        HASH_DEL(env->kv, write->pending);
        free(write->pending);
    }
    free(write);
}

static struct kv_pending *hold(struct env *env, struct kv_pending *pending, const char *name, size_t name_len)
{
    if (!pending) {
        pending = xcalloc(1, sizeof *pending + name_len);
        memcpy(pending->name, name, name_len);
        pending->name_len = name_len;
        HASH_ADD_KEYPTR(hh, env->kv, pending->name, name_len, pending);
    }
    pending->writes++;
    return pending;
}

static enum amp_code write_key(const struct ask *ask, const Amp__Kv *kv, const char *owner, struct kv_write *write)
{
    struct env *env = ask->env;
    bool is_put = kv->op == AMP__KV_OP__KV_PUT;
    struct journal_batch *batch = journal_batch_new(env->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = scopes[kv->scope];
    row->owner = journal_batch_text(batch, owner);
    row->key = journal_batch_text(batch, kv->key);
    row->version = is_put ? write->version : 0;
    row->at_unix_ms = clock_unix_ms();
    if (is_put)
        row->body = journal_batch_bytes(batch, (struct amp_bytes){.data = kv->value->text.data, .len = kv->value->text.len});
    enum amp_code code = journal_write(env->journal, batch, on_written, write);
    if (code != AMP_OK)
        journal_batch_free(batch);
    return code;
}

static void refuse_version(const struct ask *ask, const Amp__Kv *kv, uint32_t version)
{
    struct amp_error err = {0};
    if (version)
        amp_error_set(&err, AMP_CONFLICT, "ifVersion", "key %s has version %u now, not %u", kv->key, version, kv->if_version);
    else
        amp_error_set(&err, AMP_CONFLICT, "ifVersion", "key %s is not there (that is version 0), it has no version %u", kv->key, kv->if_version);
    amp_error_hint(&err, "read it again (amesh kv get --json has value and version), then write with that version");
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

/* May it be changed now? Answers if not. */
static bool may_change(const struct ask *ask, const Amp__Kv *kv, const char *owner, uint32_t version)
{
    struct env *env = ask->env;
    uint32_t keys = 0;
    bool is_new = version == 0 && kv->op == AMP__KV_OP__KV_PUT;
    if (journal_failure(env->journal))
        env_refuse_journal(env, ask->reply, ask->encoding);
    else if (kv->has_if_version && kv->if_version != version)
        refuse_version(ask, kv, version);
    else if (kv->op == AMP__KV_OP__KV_DELETE && version == 0)
        env_refuse_missing(ask, &no_key, kv->key);
    else if (is_new && journal_count_keys(env->journal, scopes[kv->scope], owner, &keys) != AMP_OK)
        env_refuse_unread(env, ask->reply, ask->encoding);
    else if (is_new && keys >= ENV_KV_KEYS_MAX)
        env_refuse_code(ask, AMP_OVERLOADED, "key", "this owner has as many keys as allowed; delete some");
    else if (HASH_COUNT(env->kv) >= ENV_KV_PENDING_MAX)
        env_refuse_code(ask, AMP_OVERLOADED, "key", "too many writes are under way");
    else
        return true;
    return false;
}

static void change_key(const struct ask *ask, const Amp__Kv *kv, const char *owner)
{
    struct env *env = ask->env;
    char name[16 + AMP_NAME_MAX + AMP_KV_KEY_MAX + 4];
    size_t name_len = make_name(kv, owner, name, sizeof name), size = strlen(ask->reply) + 1;
    struct kv_pending *pending;
    uint32_t version = 0;
    HASH_FIND(hh, env->kv, name, name_len, pending);
    if (version_now(env, pending, kv, owner, &version) != AMP_OK) {
        env_refuse_unread(env, ask->reply, ask->encoding);
        return;
    }
    if (!may_change(ask, kv, owner, version))
        return;
    struct kv_write *write = xcalloc(1, sizeof *write + size);
    write->env = env;
    write->encoding = ask->encoding;
    write->version = kv->op == AMP__KV_OP__KV_PUT ? version + 1 : 0;
    etask_strcpy(write->from, ask->from);
    snprintf(write->key, sizeof write->key, "%s", kv->key);
    memcpy(write->reply, ask->reply, size);
    write->pending = hold(env, pending, name, name_len);
    write->pending->version = write->version;
    enum amp_code code = write_key(ask, kv, owner, write);
    if (code != AMP_OK) {
        write->pending->version = version;
        on_written(write, code);
    }
}

void kv_verb(const struct ask *ask)
{
    const Amp__Kv *kv = ask->request->kv;
    const char *owner = kv->scope == AMP__KV_SCOPE__KV_SHARED || !kv->owner ? "" : kv->owner;
    size_t key_len = kv->key ? strlen(kv->key) : 0;
    if (kv->scope != AMP__KV_SCOPE__KV_SHARED && !amp_id_is_valid(owner))
        env_refuse_code(ask, AMP_INVALID, "kv.owner", "name the context or the agent whose memory is meant");
    else if (key_len > AMP_KV_KEY_MAX || (key_len == 0 && kv->op != AMP__KV_OP__KV_LIST))
        env_refuse_code(ask, AMP_INVALID, "kv.key", "a key has 1 to 256 bytes");
    else if (kv->op == AMP__KV_OP__KV_PUT && (!kv->value || kv->value->text.len > AMP_KV_VALUE_MAX))
        env_refuse_code(ask, kv->value ? AMP_TOO_LARGE : AMP_INVALID, "kv.value", kv->value ? "a value has at most 256 KiB" : "a put needs a value");
    else if (kv->op == AMP__KV_OP__KV_GET || kv->op == AMP__KV_OP__KV_LIST)
        read_keys(ask, kv, owner);
    else
        change_key(ask, kv, owner);
}

size_t kv_waiting(const struct env *env)
{
    return HASH_COUNT(env->kv);
}

void kv_done(struct env *env)
{
    struct kv_pending *pending, *next;
    HASH_ITER(hh, env->kv, pending, next) {
        HASH_DEL(env->kv, pending);
        free(pending);
    }
}
