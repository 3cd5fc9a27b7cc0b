"""Ask a chat model with unmodified clients, and print what each returns as one JSON object.

Arguments: the address of the service, whose endpoint `chat` is a chat model. It runs in an environment that
has the clients and nothing else. All but the sampled answers are greedy, so that they can be compared.
"""

import asyncio
import json
import sys

MESSAGES = [
    {"role": "system", "content": "You answer briefly."},
    {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
]
PROMPT = "The capital of France is"
PLAIN = [{"role": message["role"], "content": message["content"]} for message in MESSAGES]
TOKENS = 12

GREEDY = {"model": "chat", "temperature": 0, "max_tokens": TOKENS}


def joined(chunks):
    """Return the text of the chunks of a chat, the reasons why they end, and the last count of tokens."""
    text, reasons, usage = "", [], None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    return [text, reasons, usage and usage.completion_tokens]


def openai_(url):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    chat, completions = client.chat.completions, client.completions
    whole = chat.create(messages=MESSAGES, **GREEDY)
    [said] = whole.choices
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    scored = chat.create(messages=MESSAGES, logprobs=True, top_logprobs=2, **GREEDY)
    sampling = {"model": "chat", "max_tokens": 4, "temperature": 1.5, "seed": 7, "n": 2}
    sampled = chat.create(messages=MESSAGES, extra_body={"top_k": 50, "min_p": 0.01}, **sampling)
    again = chat.create(messages=MESSAGES, extra_body={"top_k": 50, "min_p": 0.01}, **sampling)
    text = completions.create(prompt=[PROMPT, PROMPT], logprobs=2, **GREEDY)
    pieces = list(completions.create(prompt=PROMPT, stop=["Paris"], stream=True, **GREEDY))
    return {
        "whole": [said.message.content, [said.finish_reason], whole.usage.completion_tokens],
        "stream": joined(chat.create(messages=MESSAGES, **counted, **GREEDY)),
        "logprobs": [
            [each.token, each.logprob, len(each.top_logprobs)] for each in scored.choices[0].logprobs.content
        ],
        "sampled": [each.message.content for each in sampled.choices],
        "again": [each.message.content for each in again.choices],
        "completions": [each.text for each in text.choices],
        "completion logprobs": text.choices[0].logprobs.token_logprobs,
        "stopped": ["".join(each.choices[0].text for each in pieces), pieces[-1].choices[0].finish_reason],
        "errors": errors(client),
    }


def errors(client):
    import openai

    found = []
    for arguments in (
        {"model": "nope", "messages": MESSAGES},
        {"model": "chat", "messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"model": "chat", "messages": MESSAGES, "stream": True, "response_format": {"type": "json_object"}},
    ):
        try:
            client.chat.completions.create(**arguments)
        except openai.APIStatusError as error:
            found.append([type(error).__name__, error.status_code, error.param])
    return found


def openai_async(url):
    import openai

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            whole = await client.chat.completions.create(messages=MESSAGES, **GREEDY)
            stream = await client.chat.completions.create(messages=MESSAGES, stream=True, **GREEDY)
            chunks = [chunk async for chunk in stream]
            return [whole.choices[0].message.content, joined(chunks)[0]]

    return asyncio.run(ask())


def langchain(url):
    from langchain_openai import ChatOpenAI

    client = ChatOpenAI(base_url=f"{url}/v1", api_key="none", stream_usage=True, **GREEDY)
    whole = client.invoke(PLAIN)
    pieces = list(client.stream(PLAIN))
    counts = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    return {
        "whole": [whole.content, whole.usage_metadata["output_tokens"]],
        "stream": ["".join(piece.content for piece in pieces), sum(each["output_tokens"] for each in counts)],
    }


def litellm_(url):
    import litellm

    ask = {"model": "openai/chat", "messages": MESSAGES, "api_base": f"{url}/v1", "api_key": "none"}
    ask |= {"temperature": 0, "max_tokens": TOKENS}
    whole = litellm.completion(**ask)
    stream = litellm.completion(stream=True, stream_options={"include_usage": True}, **ask)
    text = litellm.text_completion(
        model="text-completion-openai/chat", prompt=PROMPT, api_base=f"{url}/v1", api_key="none",
        temperature=0, max_tokens=TOKENS,
    )  # fmt: skip
    return {
        "whole": whole.choices[0].message.content,
        "stream": "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices),
        "text": text.choices[0].text,
        "triton": litellm.completion(
            model="triton/chat", messages=[{"role": "user", "content": PROMPT}], max_tokens=TOKENS,
            api_base=f"{url}/v2/models/chat/generate", api_key="none",
        ).choices[0].message.content,
    }  # fmt: skip


if __name__ == "__main__":
    clients = {
        "openai": openai_,
        "openai async": openai_async,
        "langchain": langchain,
        "litellm": litellm_,
    }
    print(json.dumps({name: ask(sys.argv[1]) for name, ask in clients.items()}))
