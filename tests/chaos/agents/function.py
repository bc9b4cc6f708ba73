import hashlib
import threading


def agent(text):
    """The campaign's agent as a function: the digest of what it was asked."""
    threading.Event().wait(int(text.split()[2]) / 1000)
    return hashlib.sha256(text.encode()).hexdigest()
