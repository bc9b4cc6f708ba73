"""Asks a human for a title, calls two other agents, and writes."""


def writer(text, task):
    title = task.ask("Which headline?")
    loud = task.send("shout", title)
    body = f"{text}: every agent has one, and none knows of the others"
    count = task.send("counter", body)
    yield f"{loud.text.strip()}\n{body} ({count.text.strip()})"
