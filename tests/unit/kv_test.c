#include "env/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "env_world.h"

static int begin(void **state)
{
    struct env_world *world = *state = calloc(1, sizeof *world);
    env_world_begin(world, NULL);
    return 0;
}

static int end(void **state)
{
    env_world_end(*state);
    free(*state);
    return 0;
}

struct asked {
    const char *key, *value, *owner, *token;
    int64_t if_version; /* -1: none */
    Amp__KvScope scope;
};

static Amp__Kv make(Amp__KvOp op, const struct asked *asked, Amp__Json *value)
{
    Amp__Kv kv = AMP__KV__INIT;
    kv.op = op;
    kv.scope = asked->scope ? asked->scope : AMP__KV_SCOPE__KV_CONTEXT;
    kv.owner = (char *)(asked->owner ? asked->owner : kv.scope == AMP__KV_SCOPE__KV_SHARED ? NULL : "c-1");
    kv.key = (char *)asked->key;
    kv.page_token = (char *)asked->token;
    kv.has_if_version = asked->if_version >= 0;
    kv.if_version = asked->if_version >= 0 ? (uint32_t)asked->if_version : 0;
    amp__json__init(value);
    if (asked->value) {
        value->text = (ProtobufCBinaryData){.len = strlen(asked->value), .data = (uint8_t *)asked->value};
        kv.value = value;
    }
    return kv;
}

static enum amp_code kv(struct env_world *world, Amp__KvOp op, const struct asked *asked)
{
    Amp__Json value;
    Amp__Kv request = make(op, asked, &value);
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_KV, &request);
}

#define PUT(...) kv(world, AMP__KV_OP__KV_PUT, &(struct asked){__VA_ARGS__})
#define GET(...) kv(world, AMP__KV_OP__KV_GET, &(struct asked){__VA_ARGS__})
#define DEL(...) kv(world, AMP__KV_OP__KV_DELETE, &(struct asked){__VA_ARGS__})
#define LIST(...) kv(world, AMP__KV_OP__KV_LIST, &(struct asked){__VA_ARGS__})

static uint32_t version(const struct env_world *world)
{
    assert_int_equal(world->reply->n_entries, 1);
    return world->reply->entries[0]->version;
}

static void test_each_change_adds_one_to_the_version(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(GET("a", .if_version = -1), AMP_NOT_FOUND);
    assert_int_equal(PUT("a", "1", .if_version = -1), AMP_OK);
    assert_int_equal(version(world), 1);
    assert_int_equal(PUT("a", "{\"x\":2}", .if_version = -1), AMP_OK);
    assert_int_equal(version(world), 2);
    env_world_restart(world);
    assert_int_equal(GET("a", .if_version = -1), AMP_OK);
    assert_int_equal(version(world), 2);
    assert_int_equal(world->reply->entries[0]->value->text.len, 7);
    assert_int_equal(DEL("a", .if_version = -1), AMP_OK);
    assert_int_equal(DEL("a", .if_version = -1), AMP_NOT_FOUND);
    assert_int_equal(PUT("a", "3", .if_version = -1), AMP_OK);
    assert_int_equal(version(world), 1);
}

static void test_a_change_for_another_version_is_a_conflict(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(PUT("a", "1", .if_version = 1), AMP_CONFLICT);
    assert_int_equal(PUT("a", "1", .if_version = 0), AMP_OK);
    assert_int_equal(PUT("a", "2", .if_version = 0), AMP_CONFLICT);
    assert_int_equal(PUT("a", "2", .if_version = 1), AMP_OK);
    assert_int_equal(DEL("a", .if_version = 1), AMP_CONFLICT);
    assert_int_equal(DEL("a", .if_version = 2), AMP_OK);
}

/* Twenty at once, none of which is committed when the next is looked at: one wins, and no two have the same version. */
static void test_writes_under_way_count(void **state)
{
    struct env_world *world = *state;
    Amp__Json value;
    Amp__Kv request = make(AMP__KV_OP__KV_PUT, &(struct asked){"a", "1", .if_version = -1}, &value);
    world->replies = 0;
    for (int i = 0; i < 20; i++)
        env_world_send(world, AMP__ENV_REQUEST__VERB_KV, &request);
    request.has_if_version = true;
    request.if_version = 20;
    env_world_send(world, AMP__ENV_REQUEST__VERB_KV, &request);
    env_world_wait(world, 21);
    assert_int_equal(world->err.code, AMP_OK);
    assert_int_equal(version(world), 21);
}

static void test_memories_are_apart(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(PUT("a", "1", .if_version = -1), AMP_OK);
    assert_int_equal(GET("a", .owner = "c-2", .if_version = -1), AMP_NOT_FOUND);
    assert_int_equal(GET("a", .owner = "c-1", .scope = AMP__KV_SCOPE__KV_AGENT, .if_version = -1), AMP_NOT_FOUND);
    assert_int_equal(GET("a", .scope = AMP__KV_SCOPE__KV_SHARED, .if_version = -1), AMP_NOT_FOUND);
    assert_int_equal(PUT("a", "1", .scope = AMP__KV_SCOPE__KV_AGENT, .owner = "not an id", .if_version = -1), AMP_INVALID);
    assert_int_equal(PUT("a", "1", .scope = AMP__KV_SCOPE__KV_SHARED, .owner = "c-1", .if_version = -1), AMP_INVALID);
}

static void test_what_is_too_large_is_refused(void **state)
{
    struct env_world *world = *state;
    char key[AMP_KV_KEY_MAX + 2], *value = calloc(1, AMP_KV_VALUE_MAX + 2);
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    assert_int_not_equal(PUT(key, "1", .if_version = -1), AMP_OK);
    key[AMP_KV_KEY_MAX] = '\0';
    assert_int_equal(PUT(key, "1", .if_version = -1), AMP_OK);
    memset(value, 'v', AMP_KV_VALUE_MAX + 1);
    value[0] = value[AMP_KV_VALUE_MAX] = '"';
    assert_int_equal(PUT("v", value, .if_version = -1), AMP_TOO_LARGE);
    value[AMP_KV_VALUE_MAX] = '\0';
    value[AMP_KV_VALUE_MAX - 1] = '"';
    assert_int_equal(PUT("v", value, .if_version = -1), AMP_OK);
    assert_int_equal(GET("v", .if_version = -1), AMP_OK);
    assert_int_equal(world->reply->entries[0]->value->text.len, AMP_KV_VALUE_MAX);
    free(value);
}

/* 30 values of 100 KiB, of which ten fit into one message; and keys as long as allowed, as the token is one. */
static void test_a_list_comes_in_pages_and_by_prefix(void **state)
{
    struct env_world *world = *state;
    char key[AMP_KV_KEY_MAX + 1], last[AMP_KV_KEY_MAX + 1] = "", *value = calloc(1, 102401);
    unsigned seen = 0, pages = 0;
    memset(value, 'v', 102400);
    value[0] = value[102399] = '"';
    memset(key, 'k', AMP_KV_KEY_MAX);
    key[AMP_KV_KEY_MAX] = '\0';
    for (int i = 0; i < 30; i++) {
        memcpy(key, i % 3 ? "all/" : "few/", 4);
        key[4] = (char)('a' + i % 26);
        key[5] = (char)('a' + i / 26);
        assert_int_equal(PUT(key, value, .if_version = -1), AMP_OK);
    }
    assert_int_equal(LIST("", .if_version = -1), AMP_TOO_LARGE); /* without a token: not a part in silence */
    do {
        assert_int_equal(LIST("", .token = last, .if_version = -1), AMP_OK);
        for (size_t i = 0; i < world->reply->n_entries; i++, seen++) {
            assert_true(strcmp(world->reply->entries[i]->key, last) > 0);
            snprintf(last, sizeof last, "%s", world->reply->entries[i]->key);
        }
        pages++;
    } while (world->reply->next_page_token);
    assert_int_equal(seen, 30);
    assert_true(pages >= 3);
    for (int i = 0; i < 30; i++) { /* small ones come at once */
        snprintf(key, sizeof key, "small-%d", i);
        assert_int_equal(PUT(key, "1", .if_version = -1), AMP_OK);
    }
    assert_int_equal(LIST("small-1", .if_version = -1), AMP_OK);
    assert_int_equal(world->reply->n_entries, 11);
    assert_int_equal(LIST("none", .if_version = -1), AMP_OK);
    assert_int_equal(world->reply->n_entries, 0);
    free(value);
}

static void test_with_a_broken_disk_a_write_says_so_and_reading_goes_on(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(PUT("a", "1", .if_version = -1), AMP_OK);
    env_world_break_disk(true);
    assert_int_equal(PUT("a", "2", .if_version = -1), AMP_JOURNAL);
    env_world_break_disk(false);
    assert_non_null(strstr(world->err.message, "disk"));
    assert_int_equal(PUT("a", "3", .if_version = -1), AMP_JOURNAL);
    assert_true(world->err.hint[0] != '\0');
    assert_int_equal(GET("a", .if_version = -1), AMP_OK);
    assert_int_equal(version(world), 1);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_each_change_adds_one_to_the_version),
        TEST(test_a_change_for_another_version_is_a_conflict),
        TEST(test_writes_under_way_count),
        TEST(test_memories_are_apart),
        TEST(test_what_is_too_large_is_refused),
        TEST(test_a_list_comes_in_pages_and_by_prefix),
        TEST(test_with_a_broken_disk_a_write_says_so_and_reading_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
