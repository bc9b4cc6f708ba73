/* Rows that are sealed and chained as they should be, and whose numbers cannot be: a chain proves who wrote, not what. */
#include "env/journal_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "journal_world.h"

struct numbers {
    const char *name;
    uint32_t of_task;
    struct {
        uint32_t seq, count;
    } rows[3];
    const char *finding; /* NULL: sound */
};

static void on_finding(void *ctx, const struct journal_finding *finding)
{
    char *findings = ctx;
    size_t len = strlen(findings);
    snprintf(findings + len, 1000 - len, "%s|%s|%s\n", finding->table, finding->row, finding->text);
}

static void write_rows(struct journal_world *world, const struct numbers *numbers)
{
    struct journal_batch *batch = journal_batch_new(world->journal);
    for (size_t i = 0; i < 3 && numbers->rows[i].seq; i++) {
        struct journal_row *row = journal_batch_add(batch, JOURNAL_EVENT);
        row->task = "t-1";
        row->seq = numbers->rows[i].seq;
        row->count = numbers->rows[i].count;
        row->body = amp_bytes_of("events");
    }
    journal_world_add_task(batch, "t-1", 100, numbers->of_task);
    journal_world_write(world, batch);
}

static void check(const struct numbers *numbers)
{
    static const struct journal_verify_handlers handlers = {.on_finding = on_finding};
    struct journal_world world;
    struct journal_report report;
    struct amp_error err = {0};
    char findings[1000] = "";
    journal_world_begin(&world);
    write_rows(&world, numbers);
    enum amp_code code = journal_verify(world.path, &handlers, findings, &report, &err);
    if (code != (numbers->finding ? AMP_CORRUPT : AMP_OK) || (numbers->finding && !strstr(findings, numbers->finding)))
        fail_msg("%s: %d, found: %s", numbers->name, (int)code, findings);
    journal_world_end(&world);
}

static void test_events_of_an_open_task_that_are_not_numbered_from_1_without_a_gap_are_found(void **state)
{
    static const struct numbers cases[] = {
        {"as they should be", 4, {{1, 1}, {2, 2}, {4, 1}}, NULL},
        {"a gap", 4, {{1, 1}, {3, 1}, {4, 1}}, "events|t-1|events of this task go on with 3 where 2 is next"},
        {"a number that is there twice", 3, {{1, 2}, {2, 1}, {3, 1}}, "events|t-1|events of this task go on with 2 where 3 is next"},
        {"starting at 2", 3, {{2, 1}, {3, 1}}, "events|t-1|events of this task go on with 2 where 1 is next"},
        {"as many, starting at 2", 2, {{2, 1}, {3, 1}}, "tasks|t-1|it has 2 events, but the last one that is there is 3"},
        {"the last one is missing", 3, {{1, 1}, {2, 1}}, "tasks|t-1|it has 3 events, but the last one that is there is 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i]);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_of_an_open_task_that_are_not_numbered_from_1_without_a_gap_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
