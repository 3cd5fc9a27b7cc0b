"""Ask a service with unmodified clients, and print what each returns as one JSON object.

Arguments: the address of the service. It runs in an environment that has the clients and nothing else.
"""

import json
import sys

TEXTS = ["A cat sits on the mat", "Interest rates rose again"]
QUERY = "who was in london ?"
DOCUMENTS = ["ada was in london .", "a bad goal !", "politics is good ."]


def openai_(url):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    vectors = client.embeddings.create(model="minilm", input=TEXTS)
    short = client.embeddings.create(model="minilm", input=TEXTS[0], dimensions=8, encoding_format="float")
    errors = []
    for arguments in ({"model": "nope", "input": "a"}, {"model": "minilm", "input": ""}):
        try:
            client.embeddings.create(**arguments)
        except openai.APIStatusError as error:
            errors.append([type(error).__name__, error.status_code, error.code, error.body["message"]])
    return {
        "vectors": [each.embedding for each in vectors.data],
        "tokens": vectors.usage.total_tokens,
        "short": short.data[0].embedding,
        "models": sorted(model.id for model in client.models.list()),
        "model": client.models.retrieve("minilm").id,
        "errors": errors,
    }


def langchain(url):
    from langchain_openai import OpenAIEmbeddings

    client = OpenAIEmbeddings(
        model="minilm", base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    return client.embed_documents(TEXTS)


def litellm_(url):
    import litellm

    embedding = litellm.embedding(model="openai/minilm", input=TEXTS, api_base=f"{url}/v1", api_key="none")
    ranks = {}
    for provider, base in (("huggingface", f"{url}/v2/models/ranker"), ("hosted_vllm", url)):
        answer = litellm.rerank(
            model=f"{provider}/ranker", query=QUERY, documents=DOCUMENTS, api_base=base, api_key="none"
        )
        ranks[provider] = [[each["index"], each["relevance_score"]] for each in answer.results]
    return {"vectors": [each["embedding"] for each in embedding.data], **ranks}


def llama_index(url):
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    embedder = TextEmbeddingsInference(model_name="minilm", base_url=f"{url}/v2/models/minilm")
    ranker = TextEmbeddingInference(
        model_name="ranker", base_url=f"{url}/v2/models/ranker", top_n=len(DOCUMENTS)
    )
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    ranked = ranker.postprocess_nodes(nodes, query_str=QUERY)
    return {
        "vectors": embedder.get_text_embedding_batch(TEXTS),
        "ranks": [[DOCUMENTS.index(node.text), node.score] for node in ranked],
    }


def cohere_(url):
    import cohere

    answers = {}
    for name, client in (
        ("v1", cohere.Client("none", base_url=url)),
        ("v2", cohere.ClientV2("none", base_url=url)),
    ):
        answer = client.rerank(model="ranker", query=QUERY, documents=DOCUMENTS, top_n=2)
        answers[name] = [[each.index, each.relevance_score] for each in answer.results]
    return answers


if __name__ == "__main__":
    clients = {
        "openai": openai_,
        "langchain": langchain,
        "litellm": litellm_,
        "llama-index": llama_index,
        "cohere": cohere_,
    }
    print(json.dumps({name: ask(sys.argv[1]) for name, ask in clients.items()}))
