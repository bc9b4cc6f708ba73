/* Tasks inside of tasks: what ends with what. (amp.md 5.4.4) */
#pragma once

struct etask;

/* control.c: cancels an open task, or passes that on to who has it. */
void control_end(struct etask *task, const char *reason);
void tree_ended(struct etask *task); /* that is on the disk: its children end with it, or not */
void tree_check(struct etask *task); /* it was committed, or loaded: has its parent ended meanwhile? */
