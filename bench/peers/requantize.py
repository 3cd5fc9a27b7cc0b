"""Write a GGUF file with the weights of another in another format: `requantize.py FROM TO FORMAT`.

Runs in llama.cpp's environment, whose own converter does it.
"""

import ctypes
import sys

import llama_cpp

FORMATS = {
    "float32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "float16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "bfloat16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "int8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}

source, target, name = sys.argv[1:]
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype = FORMATS[name]
settings.allow_requantize = True
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)))
