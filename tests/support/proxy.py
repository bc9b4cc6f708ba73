"""A way to the bus that can be cut or frozen: a TCP proxy."""
import select
import socket
import threading


class Proxy:
    """Proxy(port) → .url; .reset() resets every connection that goes through it, with what is on its way; .made counts them. While .open is cleared nothing gets through, and nothing is closed."""

    def __init__(self, port):
        self.target, self.made, self.pairs, self.lock = ("127.0.0.1", port), 0, [], threading.Lock()
        self.open = threading.Event()
        self.open.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.made += 1
                self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _next(self, a):
        select.select([a], [], [])
        self.open.wait()
        return a.recv(1 << 16)

    def _pump(self, a, b):
        try:
            while data := self._next(a):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def reset(self):
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        return len(pairs)

    def close(self):
        self.listener.close()
        self.reset()
