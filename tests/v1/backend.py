#!/usr/bin/env python3
"""A scripted version-1 backend: one RSA host key, the two HTTP endpoints, and a list of actions.

Written from docs/protocol.md.

    backend.py --host-key FILE [--listen 127.0.0.1] [--ssh-port 0] [--http-port 0] [--api-key KEY]
               [--accept LINE]... [--pinned] [--timeout SECONDS]

The host key is made when the file is missing. On stdout, one JSON event a line; the first is

    {"event": "listening", "at": SECONDS, "ssh": PORT, "http": PORT, "host_key": "ssh-rsa ..."}

On stdin come steps, one JSON value a line: an object, or a list of objects for several at once.
Each line is answered by events, the last of which is "done" or "failed".

    {"action": "add-user", "username": "alice", "sudo": false}
                        one action; "type" and "mid" are added when absent; the feedback with its
                        mid is awaited. A list of actions is sent before that.
    {"body": "{...}", "cut": 1, "pause": 0.01, "answers": 1}
                        any text as one netstring; with "cut" in packets of so many bytes, "pause"
                        seconds apart; so many other feedbacks are awaited
    {"raw": "12:{...},", "answers": 1}
                        the same for bytes as they are (latin-1), without a frame of ours
    {"quiet": 1.5}      nothing may come for so many seconds
    {"drop": true}      closes the connection and waits for the agent's next one
    {"wait": "closed"}  waits until the agent has closed the connection, and for its next one

Agents may log in with a key given by --accept or uploaded before with the right API key. The end
of stdin ends the program: 0 when every step went as told, 1 otherwise, 2 usage.
"""

import argparse
import base64
import http.server
import json
import os
import queue
import socket
import sys
import threading
import time

import paramiko

PINNED_KEX = ("diffie-hellman-group-exchange-sha1", "diffie-hellman-group14-sha1",
              "diffie-hellman-group1-sha1")


def say(event, **details):
    at = round(time.monotonic(), 3)
    # In one piece: several threads speak.
    sys.stdout.write(json.dumps({"event": event, "at": at, **details}) + "\n")
    sys.stdout.flush()


def netstring(body):
    return b"%d:%s," % (len(body), body)


class Failed(Exception):
    """A step did not go as told."""


class Door(paramiko.ServerInterface):
    """Lets known keys in, and the one subsystem."""

    def __init__(self, keys):
        self.keys = keys
        self.username = None
        self.subsystem = threading.Event()

    def get_allowed_auths(self, _username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        self.username = username
        known = f"{key.get_name()} {key.get_base64()}" in self.keys
        if not known:
            say("refused", username=username, key_type=key.get_name())
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, _channel_id):
        if kind == "session":
            return paramiko.OPEN_SUCCEEDED
        return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_env_request(self, _channel, name, value):
        # A version-1 backend does not know any; an agent must live with the refusal.
        say("env", name=name.decode(errors="replace"), value=value.decode(errors="replace"))
        return False

    def check_channel_subsystem_request(self, _channel, name):
        self.subsystem.set()
        return name == "bastio-agent"


class Session:
    """One connection: a channel to write to and a queue of what came."""

    def __init__(self, sock, address, backend):
        self.transport = paramiko.Transport(sock)
        self.transport.local_version = "SSH-2.0-bastio-backend-1"
        self.transport.add_server_key(backend.host_key)
        offer = self.transport.get_security_options()
        if backend.options.pinned:
            offer.kex = PINNED_KEX
            offer.digests = ("hmac-sha1",)
            offer.key_types = ("ssh-rsa",)
        self.door = Door(backend.keys)
        self.transport.start_server(server=self.door)
        self.channel = self.transport.accept(20)
        if self.channel is None or not self.door.subsystem.wait(10):
            self.transport.close()
            raise Failed("no channel with the subsystem")
        say("connected", client=self.transport.remote_version, username=self.door.username,
            address=address[0], cipher=self.transport.remote_cipher,
            mac=self.transport.remote_mac)
        self.messages = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        stream = self.channel.makefile("rb")
        try:
            while True:
                length = b""
                while not length.endswith(b":"):
                    character = stream.read(1)
                    if not character:
                        return
                    length += character
                body = stream.read(int(length[:-1]))
                if stream.read(1) != b",":
                    say("malformed", length=length.decode(errors="replace"))
                    return
                text = body.decode()
                self.messages.put((text, json.loads(text)))
        except (OSError, ValueError, EOFError) as error:
            say("malformed", why=str(error))
        finally:
            self.messages.put(None)

    def close(self):
        self.transport.close()


class Backend:
    def __init__(self, options):
        self.options = options
        self.keys = set(" ".join(line.split(" ")[:2]) for line in options.accept)
        self.host_key = self.read_host_key()
        self.sessions = queue.Queue()
        self.session = None
        self.mid = 0

    def read_host_key(self):
        path = self.options.host_key
        if not os.path.exists(path):
            key = paramiko.RSAKey.generate(2048)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                key.write_private_key(file)
        return paramiko.RSAKey.from_private_key_file(path)

    def host_key_line(self):
        return f"ssh-rsa {self.host_key.get_base64()}"

    # --- listening ---

    def listen(self):
        ssh = socket.create_server((self.options.listen, self.options.ssh_port))
        web = http.server.ThreadingHTTPServer(
            (self.options.listen, self.options.http_port), make_handler(self))
        threading.Thread(target=self.accept, args=(ssh,), daemon=True).start()
        threading.Thread(target=web.serve_forever, daemon=True).start()
        say("listening", ssh=ssh.getsockname()[1], http=web.server_address[1],
            host_key=self.host_key_line())

    def accept(self, listener):
        while True:
            sock, address = listener.accept()
            threading.Thread(target=self.start_session, args=(sock, address), daemon=True).start()

    def start_session(self, sock, address):
        try:
            self.sessions.put(Session(sock, address, self))
        except (Failed, OSError, EOFError, paramiko.SSHException) as error:
            say("no-session", why=f"{type(error).__name__}: {error}")

    def upload(self, body):
        """The status of one upload, by the rules of the original."""
        lines = [body.get("public_key"), body.get("old_public_key")]
        if not isinstance(lines[0], str) or not isinstance(lines[1], str):
            return 400
        try:
            base64.b64decode(lines[0].split(" ")[1], validate=True)
        except (IndexError, ValueError):
            return 400
        if body.get("api_key") != self.options.api_key:
            return 403
        new, old = lines
        if old and old not in self.keys:
            return 400
        self.keys.discard(old)
        self.keys.add(new)
        return 200

    # --- steps ---

    def current(self):
        if self.session is None:
            try:
                self.session = self.sessions.get(timeout=self.options.timeout)
            except queue.Empty:
                raise Failed("no agent has connected in time") from None
        return self.session

    def message(self, step):
        self.mid += 1
        return {"type": "action", "mid": str(self.mid), **step}

    def feedback(self):
        """The next feedback's message."""
        try:
            received = self.current().messages.get(timeout=self.options.timeout)
        except queue.Empty:
            raise Failed("no feedback in time") from None
        if received is None:
            self.session = None
            raise Failed("the agent has closed the connection instead of answering")
        text, message = received
        say("feedback", message=message, text=text)
        return message

    def feedbacks(self, mids, others):
        """Waits for the answers to these actions and for so many answers more."""
        while mids or others > 0:
            mid = self.feedback().get("mid")
            if mid in mids:
                mids.remove(mid)
            else:
                others -= 1

    def closed(self):
        try:
            while received := self.current().messages.get(timeout=self.options.timeout):
                say("feedback", message=received[1], text=received[0])
        except queue.Empty:
            raise Failed("the agent keeps the connection") from None
        self.session.close()
        self.session = None
        say("closed")
        self.current()

    def quiet(self, seconds):
        try:
            message = self.current().messages.get(timeout=seconds)
        except queue.Empty:
            say("quiet")
            return
        raise Failed(f"something came: {message}")

    def step(self, step):
        """Carries out one step: the mids whose feedbacks it is owed, and how many without one."""
        if "action" in step or "username" in step:
            message = self.message(step)
            self.current().channel.sendall(netstring(json.dumps(message).encode()))
            return [message["mid"]], 0
        if "body" in step or "raw" in step:
            data = netstring(step["body"].encode()) if "body" in step else (
                step["raw"].encode("latin-1"))
            cut = step.get("cut", len(data))
            try:
                for start in range(0, len(data), cut):
                    self.current().channel.sendall(data[start:start + cut])
                    time.sleep(step.get("pause", 0))
            except OSError as error:
                # It may hang up at bad bytes before it has all of them; the steps that follow say
                # whether it may.
                say("cut-off", why=str(error))
            return [], step.get("answers", 0)
        if "quiet" in step:
            self.quiet(step["quiet"])
        elif "drop" in step:
            self.current().close()
            self.session = None
            say("dropped")
            self.current()
        elif step.get("wait") == "closed":
            self.closed()
        else:
            raise Failed(f"unknown step {step}")
        return [], 0

    def run(self):
        good = True
        for line in sys.stdin:
            if not line.strip():
                continue
            steps = json.loads(line)
            try:
                owed = [self.step(step) for step in (steps if isinstance(steps, list) else [steps])]
                mids = [mid for mids, _ in owed for mid in mids]
                self.feedbacks(mids, sum(others for _, others in owed))
                say("done")
            except (Failed, OSError) as error:
                say("failed", why=str(error))
                good = False
        if self.session is not None:
            self.session.close()
        return 0 if good else 1


def make_handler(backend):
    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            # The query is ignored, as a backend that knows none does.
            if self.path.split("?")[0] == "/api/external/backend/host_key":
                self.reply(200, {"payload": backend.host_key_line()})
            else:
                self.reply(404, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path != "/api/external/server/upload_key":
                self.reply(404, {})
                return
            try:
                status = backend.upload(json.loads(body))
            except (ValueError, AttributeError):
                status = 400
            say("upload", status=status)
            self.reply(status, {})

        def log_message(self, *_):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host-key", required=True)
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--ssh-port", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--api-key", default="version-1-api-key")
    parser.add_argument("--accept", action="append", default=[], metavar="LINE")
    parser.add_argument("--pinned", action="store_true")
    parser.add_argument("--timeout", type=float, default=30)
    backend = Backend(parser.parse_args())
    backend.listen()
    return backend.run()


if __name__ == "__main__":
    sys.exit(main())
