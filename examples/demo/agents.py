"""Asks a human for a title, calls two other agents, one by name and one by skill, and hands on what it gets."""


def writer(text, task):
    title = task.ask("Which headline?")
    loud = task.send("shout", title)
    body = f"{text}: every agent has one, and none knows of the others. It speaks for them."
    return task.send(None, f"{loud.text.strip()}\n{body}", skill="print").text
