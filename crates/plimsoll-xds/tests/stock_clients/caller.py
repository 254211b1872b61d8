"""Calls a target all the time, from four threads, until standard input ends; then says how that went."""

import json
import sys
import threading
import time

import grpc

PAUSE_S = 0.004
SESSIONS = 60

errors = {}
calls = 0
lock = threading.Lock()
stop = threading.Event()
channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_unary("/test.Backend/Call")


def work(first):
    global calls
    number = first
    while not stop.is_set():
        problem = None
        try:
            call(b"", timeout=10, metadata=[("x-session", "session-%d" % (number % SESSIONS))])
        except grpc.RpcError as error:
            problem = "%s: %s" % (error.code(), error.details())
        number += 1
        with lock:
            calls += 1
            if problem:
                errors[problem] = errors.get(problem, 0) + 1
        time.sleep(PAUSE_S)


call(b"", timeout=30, wait_for_ready=True)
print("ready", flush=True)
threads = [threading.Thread(target=work, args=(i * 15,)) for i in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"calls": calls, "errors": errors}), flush=True)
channel.close()
