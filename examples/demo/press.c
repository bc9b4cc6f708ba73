/* Sets a text in a frame and prints it, with a line at its foot that it gets from whoever can count. Called by the writer; itself a caller. */
#include <amesh/client.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 60 };

static void print_line(struct amesh_task *task, const char *text, size_t len)
{
    amesh_task_printf(task, "| %-*.*s |\n", WIDTH, (int)len, text);
}

static void print_wrapped(struct amesh_task *task, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        if (len > WIDTH)
            for (len = WIDTH; len > 1 && text[len] != ' ';)
                len--;
        print_line(task, text, len);
        text += len;
        text += *text != '\0';
    }
}

static void print_rule(struct amesh_task *task)
{
    static const char dashes[] = "------------------------------------------------------------";
    amesh_task_printf(task, "+-%.*s-+\n", WIDTH, dashes);
}

static void on_task(struct amesh_task *task, void *ctx)
{
    struct amesh_answer count;
    struct amp_error err;
    amesh_task_step_start(task, "count");
    enum amp_code code = amesh_send(task->mesh, task, &(struct amesh_call){.skill = "count", .text = task->text}, &count, &err);
    amesh_task_step_end(task, "count");
    if (code == AMP_OK) {
        print_rule(task);
        print_wrapped(task, task->text);
        print_rule(task);
        print_line(task, count.text, strlen(count.text));
        print_rule(task);
    } else {
        amesh_task_fail(task, "nobody counts: %s", err.message);
    }
    amesh_answer_done(&count);
}

int main(void)
{
    struct amesh *mesh;
    struct amp_error err;
    const char *const skills[] = {"print:sets a text in a frame", NULL};
    if (amesh_connect(&(struct amesh_options){.skills = skills}, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, NULL, &err) != AMP_OK) {
        fprintf(stderr, "press: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}
