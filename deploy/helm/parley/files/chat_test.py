"""`helm test`: makes a chat through the gateway's Service, reads it back and deletes it."""

import json
import os
import urllib.request


def call(method, path, body=None):
    headers = {"content-type": "application/json"}
    if os.environ.get("KEY"):
        headers["authorization"] = "Bearer " + os.environ["KEY"]
    request = urllib.request.Request(
        os.environ["GATEWAY"] + path,
        method=method,
        headers=headers,
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=150) as response:
        text = response.read()
    return json.loads(text) if text else None


made = call("POST", "/chat", {"message": "Say hello.", "options": {"maxTokens": 16}})
print("answered:", made["message"]["finishReason"], made["usage"])
kept = call("GET", "/chat/" + made["chatID"])
assert [message["role"] for message in kept["messages"]] == ["user", "assistant"], kept
assert kept["messages"][1]["content"] == made["message"]["content"]
call("DELETE", "/chat/" + made["chatID"])
print("the chat was stored, read back and deleted")
