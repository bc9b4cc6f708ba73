/* amesh env verify: the journal as a file, with or without an environment on it. */
#include "commands.h"
#include "env/journal_files.h"

#include "base/home.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define JOURNAL_OPTION {.name = "journal", .arg = "FILE", .help = "the journal (default: journal.db in the home)", .complete = "files"}

struct at { /* which journal, and how to speak */
    char path[512];
    bool is_json;
};

static enum amp_code find_journal(const struct command *command, struct command_args *args, struct at *at, struct amp_error *reterr)
{
    struct home home;
    const char *path = command_value(command, args, "journal");
    at->is_json = command_flag(command, args, "json");
    log_init(log_level_from_env(LOG_ERROR), "amesh-env");
    if (path) {
        snprintf(at->path, sizeof at->path, "%s", path);
        return strlen(path) < sizeof at->path ? AMP_OK : amp_error_set(reterr, AMP_INVALID, "journal", "the path is too long");
    }
    enum amp_code code = home_open(&home, command_value(command, args, "home"), NULL, false, reterr);
    if (code == AMP_OK)
        snprintf(at->path, sizeof at->path, "%s/journal.db", home.path);
    return code;
}

/* ---- verify ------------------------------------------------------------------------------------------------------------- */

struct verifying {
    struct at at;
    struct amp_buf out; /* JSON of the findings */
    bool is_terminal;
};

static void add_member(struct amp_buf *out, const char *name, const char *text)
{
    (void)amp_buf_printf(out, "%s\"%s\":", out->len && out->data[out->len - 1] != '{' ? "," : "", name);
    (void)amp_json_append_string(out, amp_bytes_of(text));
}

static void clear_line(const struct verifying *verifying)
{
    if (verifying->is_terminal)
        fputs("\r\033[K", stderr);
}

static void on_finding(void *ctx, const struct journal_finding *finding)
{
    struct verifying *verifying = ctx;
    clear_line(verifying);
    if (verifying->at.is_json) {
        if (verifying->out.len)
            (void)amp_buf_append(&verifying->out, ",", 1);
        (void)amp_buf_append(&verifying->out, "{", 1);
        add_member(&verifying->out, "table", finding->table);
        add_member(&verifying->out, "row", finding->row ? finding->row : "");
        (void)amp_buf_printf(&verifying->out, ",\"entry\":%" PRIu64, finding->entry);
        add_member(&verifying->out, "text", finding->text);
        (void)amp_buf_append(&verifying->out, "}", 1);
        return;
    }
    struct amp_buf line;
    amp_buf_init(&line, 4096);
    (void)amp_text_sanitize(&line, amp_bytes_of(finding->row && finding->row[0] ? finding->row : finding->table[0] ? finding->table : "the file"), true);
    printf("damaged: %.*s", (int)line.len, line.len ? (const char *)line.data : "");
    amp_buf_reset(&line);
    (void)amp_text_sanitize(&line, amp_bytes_of(finding->text), true);
    if (finding->entry)
        printf(" (chain entry %" PRIu64 ")", finding->entry);
    printf(": %.*s\n", (int)line.len, line.len ? (const char *)line.data : "");
    amp_buf_done(&line);
}

static void on_progress(void *ctx, uint64_t done, uint64_t total)
{
    const struct verifying *verifying = ctx;
    if (verifying->is_terminal)
        fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " rows", done, total);
}

static void print_report(struct verifying *verifying, const struct journal_report *report)
{
    const char *path = verifying->at.path;
    if (verifying->at.is_json) {
        struct amp_buf out;
        amp_buf_init(&out, SIZE_MAX / 2);
        (void)amp_buf_printf(&out, "{\"sound\":%s", report->findings ? "false" : "true");
        add_member(&out, "journal", path);
        add_member(&out, "id", report->id);
        (void)amp_buf_printf(&out, ",\"rows\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"running\":%s", report->rows, report->entries, report->bytes,
                             report->is_running ? "true" : "false");
        (void)amp_buf_printf(&out, ",\"entry\":%" PRIu64, report->n);
        add_member(&out, "hash", report->hash);
        (void)amp_buf_printf(&out, ",\"head\":%s,\"framesCut\":%u,\"findingsCount\":%" PRIu64 ",\"findings\":[%.*s]}\n", report->has_head ? "true" : "false",
                             report->frames_cut, report->findings, (int)verifying->out.len, verifying->out.len ? (const char *)verifying->out.data : "");
        fwrite(out.data, 1, out.len, stdout);
        amp_buf_done(&out);
        return;
    }
    printf("%s: %" PRIu64 " rows, %" PRIu64 " chain entries, the last is %" PRIu64 " %.16s… (journal %s%s)\n", report->findings ? "looked at" : "sound", report->rows,
           report->entries, report->n, report->hash, report->id, report->is_running ? ", an environment has it" : "");
    if (report->frames_cut)
        printf("a transaction that was not committed ends its log (%u pages): the next environment cuts it off\n", report->frames_cut);
    if (!report->findings && !report->has_head)
        printf("%s-head is missing or not its own: that nothing was cut off its end is not known\n", path);
}

static int run_verify(const struct command *command, struct command_args *args)
{
    static const struct journal_verify_handlers handlers = {.on_finding = on_finding, .on_progress = on_progress};
    struct verifying verifying = {.is_terminal = isatty(STDERR_FILENO)};
    struct journal_report report;
    struct amp_error err = {0};
    amp_buf_init(&verifying.out, SIZE_MAX / 2);
    enum amp_code code = find_journal(command, args, &verifying.at, &err);
    if (code == AMP_OK)
        code = journal_verify(verifying.at.path, &handlers, &verifying, &report, &err);
    clear_line(&verifying);
    if (code == AMP_OK || code == AMP_CORRUPT)
        print_report(&verifying, &report);
    amp_buf_done(&verifying.out);
    return code == AMP_OK ? 0 : command_fail(verifying.at.is_json, &err);
}

static const struct command_option verify_options[] = {JOURNAL_OPTION, {0}};

const struct command journal_commands[] = {
    {.name = "env verify",
     .operands = "",
     .summary = "check the journal: every row, its chain of hashes, its end",
     .details = "Reads one state of the file and changes nothing; the environment may run meanwhile. Each row is held against its seal, each seal against the newest entry "
                "of the chain that has it, each entry against the one before, the end of the chain against journal.db-head, the numbers of events, and SQLite's own structures.\n\n"
                "Exit status 0: sound. 3: damaged, with a line for each finding: what, which chain entry wrote it, what is wrong.\n\n amesh env verify\n amesh env verify --journal backup.db",
     .options = verify_options,
     .run = run_verify},
    {0},
};
