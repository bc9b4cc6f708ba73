/* The eight behaviours by a C program that links with the mesh client, as its users would write it. */
#include <amesh/client.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void echo(struct amesh_task *task)
{
    amesh_task_complete(task, task->text + strlen("echo "));
}

static void stream(struct amesh_task *task)
{
    static const char *const words[] = {"one ", "two ", "three ", "four"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        amesh_task_write(task, words[i]);
}

static void tool(struct amesh_task *task)
{
    amesh_task_tool_call(task, "c1", "add", "{\"a\": 1,\n \"b\": 2}", NULL);
    amesh_task_tool_result(task, "c1", "3", false, NULL);
    amesh_task_complete(task, "sum 3");
}

static void remember(struct amesh_task *task)
{
    struct amp_error err;
    if (amesh_kv_put_text(task->mesh, &(struct amesh_place){.task = task, .key = "word"}, task->text + strlen("remember "), &err) == AMP_OK)
        amesh_task_complete(task, "noted");
    else
        amesh_task_fail(task, "%s", err.message);
}

static void recall(struct amesh_task *task)
{
    struct amesh_value value;
    struct amp_error err;
    if (amesh_kv_get(task->mesh, &(struct amesh_place){.task = task, .key = "word"}, &value, &err) == AMP_OK)
        amesh_task_printf(task, "you said %s", value.text);
    else
        amesh_task_fail(task, "%s", err.message);
    amesh_value_done(&value);
}

static void ask(struct amesh_task *task)
{
    char *colour;
    struct amp_error err;
    if (amesh_ask(task, &(struct amesh_question){.prompt = "Which colour?"}, &colour, &err) == AMP_OK)
        amesh_task_printf(task, "painted %s", colour);
    else
        amesh_task_fail(task, "%s", err.message);
    free(colour);
}

static void form(struct amesh_task *task)
{
    static const struct amesh_question questions[] = {
        {.prompt = "Which colour?", .options_json = "[{\"value\":\"red\",\"label\":\"Red\"},{\"value\":\"blue\",\"label\":\"Blue\"}]"},
        {.prompt = "How often?", .schema_json = "{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}"},
        {.prompt = "Sure?", .options_json = "[\"yes\",\"no\"]", .default_json = "\"no\"", .expires_ms = 300},
    };
    struct amesh_reply replies[3];
    struct amp_error err;
    if (amesh_ask_all(task, questions, 3, replies, &err) == AMP_OK)
        amesh_task_printf(task, "%s %s %s", replies[0].text, replies[1].text, replies[2].text);
    else
        amesh_task_fail(task, "%s", err.message);
    amesh_replies_done(replies, 3);
}

static void late(struct amesh_task *task)
{
    char *text;
    struct amp_error err;
    enum amp_code code = amesh_ask(task, &(struct amesh_question){.prompt = "Now?", .expires_ms = 200}, &text, &err);
    amesh_task_printf(task, "late: %s", code == AMP_OK ? text : amp_code_info(code)->name);
    free(text);
}

static void hang(struct amesh_task *task)
{
    amesh_task_write(task, "working");
    (void)amesh_task_wait(task, -1);
}

static void fail(struct amesh_task *task)
{
    amesh_task_fail(task, "ValueError: broken as %s", "asked");
}

static void artifact(struct amesh_task *task)
{
    amesh_task_artifact(task, &(struct amesh_artifact){.name = "report", .text = "forty-two", .filename = "report.txt", .media_type = "text/plain"}, NULL);
    amesh_task_complete(task, "made");
}

static void on_task(struct amesh_task *task, void *ctx)
{
    static const struct {
        const char *word;
        void (*run)(struct amesh_task *task);
    } verbs[] = {{"echo ", echo},     {"stream", stream}, {"tool", tool}, {"remember ", remember}, {"recall", recall}, {"ask", ask},
                 {"form", form},      {"late", late},     {"hang", hang},      {"fail", fail},     {"artifact", artifact}};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (!strncmp(task->text, verbs[i].word, strlen(verbs[i].word))) {
            verbs[i].run(task);
            return;
        }
    }
    amesh_task_reject(task, "what is %s?", task->text);
}

int main(void)
{
    struct amesh *mesh;
    struct amp_error err;
    if (amesh_connect(&(struct amesh_options){.concurrency = 4}, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, NULL, &err) != AMP_OK) {
        fprintf(stderr, "contract_agent_c: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}
