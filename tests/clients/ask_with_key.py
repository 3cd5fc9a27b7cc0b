"""OpenAI's client with a key that may ask twelve times a minute: it waits for its turn without being told to.

Arguments: the URL, the key, and the model. Prints how many vectors it got, and after how many seconds.
"""

import json
import sys
import time

import openai

TIMES = 14


def main(url, key, model):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
    begun = time.monotonic()
    vectors = [client.embeddings.create(model=model, input="a").data[0].embedding for _ in range(TIMES)]
    seconds = time.monotonic() - begun
    try:
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong").models.list()
        refused = ""
    except openai.AuthenticationError as error:
        refused = str(error.body["message"])
    print(json.dumps({"vectors": len(vectors), "seconds": seconds, "refused": refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
