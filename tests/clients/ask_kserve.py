"""Ask a service with KServe's client over HTTP, in its first and second protocol, and over gRPC.

Arguments: the address of the service and its gRPC port. Prints one JSON object.
"""

import asyncio
import json
import sys

TEXTS = ["I love this product", "I hate this product"]


async def ask(url, grpc_port):
    import grpc
    import kserve
    import numpy as np
    from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig

    def request():
        tensor = kserve.InferInput("text", [len(TEXTS)], "BYTES")
        tensor.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=False)
        return kserve.InferRequest("sentiment", [tensor])

    def labels(response):
        [output] = [each for each in response.outputs if each.name == "label"]
        return [each.decode() if isinstance(each, bytes) else each for each in output.data]

    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    second = InferenceRESTClient(RESTConfig(protocol="v2"))
    answer = await first.infer(url, {"instances": TEXTS}, model_name="sentiment")
    rpc = InferenceGRPCClient(f"127.0.0.1:{grpc_port}")
    try:
        unknown = None
        await rpc.is_model_ready("nope")
    except grpc.RpcError as error:
        unknown = error.code().name
    return {
        "v1": [each["label"] for each in answer["predictions"]],
        "v1 ready": await first.is_model_ready(url, "sentiment"),
        "v2": labels(await second.infer(url, request(), model_name="sentiment")),
        "v2 ready": [
            await second.is_server_live(url),
            await second.is_server_ready(url),
            await second.is_model_ready(url, "sentiment"),
        ],
        "grpc": labels(await rpc.infer(request())),
        "grpc ready": [
            await rpc.is_server_live(),
            await rpc.is_server_ready(),
            await rpc.is_model_ready("sentiment"),
        ],
        "grpc unknown": unknown,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], int(sys.argv[2])))))
